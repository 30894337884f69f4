"""Golden rewards: one number a response, untouched by padding, batches and what comes after the cut."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BartConfig,
    BartForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from workers import tables
from workers.language_models import batches, models
from workers.rewards.configs import ScoreConfig
from workers.rewards.score import score

pytestmark = pytest.mark.train

Write = Callable[[list[list[str]]], Path]


def run(out: Path, golden: Path, responses: Path, batch_size: int = 64, **settings: Any) -> np.ndarray:
    out.mkdir(exist_ok=True)
    config = ScoreConfig.model_validate(settings)
    metrics = score(config, out, golden=golden, responses=responses, batch_size=batch_size)
    scores = np.load(out / "scores.npy")
    assert set(metrics) == set(config.declared())
    assert metrics["mean_reward"] == pytest.approx(scores.mean(), abs=1e-5)
    assert metrics["sd_reward"] == pytest.approx(scores.std(), abs=1e-5)
    assert scores.dtype == np.float32
    return scores


def one_at_a_time(golden: Path, responses: Path, cut: str | None) -> np.ndarray:
    """Literally: the head on the last hidden state of prompt + response, without padding."""
    source = models.locate(golden)
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModelForSequenceClassification, tokenizer)
    found = []
    for row in tables.RESPONSES.read(responses).to_pylist():
        answer = row["response"].split(cut)[0] if cut else row["response"]
        ids = torch.tensor([tokenizer(row["prompt"] + answer)["input_ids"]])
        with torch.no_grad():
            found.append(float(model.score(model.base_model(input_ids=ids).last_hidden_state[0, -1])))
    return np.array(found)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_padding_and_batches_do_not_change_scores(
    batch_size: int, tiny_golden: Path, tiny_responses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "WINDOW", 2)  # so that windows matter too
    scores = run(tmp_path, tiny_golden, tiny_responses, batch_size=batch_size)
    assert scores.shape == (3, 4)
    assert scores.std() > 0.1
    np.testing.assert_allclose(
        scores.ravel(), one_at_a_time(tiny_golden, tiny_responses, "\n\nHuman"), atol=1e-4, rtol=0
    )


def test_a_model_with_absolute_positions_and_eos_for_padding_scores_the_same(
    tiny_policy: Path, tiny_responses: Path, tmp_path: Path
) -> None:
    tokenizer = models.load_tokenizer(models.locate(tiny_policy))
    tokenizer.pad_token = tokenizer.eos_token
    torch.manual_seed(0)
    model = GPT2ForSequenceClassification(
        GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=128, num_labels=1)
    )
    torch.nn.init.normal_(model.score.weight, std=1.0)
    models.save_model(model, tokenizer, tmp_path)
    scores = run(tmp_path / "out", tmp_path, tiny_responses, cut_at=None)
    np.testing.assert_allclose(scores.ravel(), one_at_a_time(tmp_path, tiny_responses, None), atol=1e-4, rtol=0)


def test_the_response_is_cut_where_cut_at_begins(
    tiny_golden: Path, tiny_write_responses: Write, tmp_path: Path
) -> None:
    responses = tiny_write_responses([[" Yes.", " Yes.\n\nHuman: no\n\nAssistant: No, go away."]])
    cut, whole = run(tmp_path, tiny_golden, responses), run(tmp_path, tiny_golden, responses, cut_at=None)
    assert cut[0, 0] == pytest.approx(cut[0, 1], abs=1e-5)
    assert abs(whole[0, 0] - whole[0, 1]) > 1e-2


def test_the_learned_preference_shows_in_the_scores(
    tiny_golden: Path, tiny_write_responses: Write, tmp_path: Path
) -> None:
    responses = tiny_write_responses([[" To paint a bike, buy 99 good brushes.", " No, go away. I hate you, 99."]])
    ((good, bad),) = run(tmp_path, tiny_golden, responses)
    assert good > bad


def test_long_texts_keep_their_end(tiny_golden: Path, tiny_write_responses: Write, tmp_path: Path) -> None:
    responses = tiny_write_responses([[" boat" * 300 + " Yes.", " bike" * 300 + " Yes.", " bike" * 300 + " No."]])
    ((first, second, third),) = run(tmp_path, tiny_golden, responses, max_tokens=3)
    assert first == pytest.approx(second, abs=1e-5)
    assert abs(second - third) > 1e-4


def test_with_strip_white_space_around_the_response_is_not_read(
    tiny_golden: Path, tiny_write_responses: Write, tmp_path: Path
) -> None:
    wide = tiny_write_responses([["  Yes. \n", " No. \n\nHuman: why?"]])
    narrow = tiny_write_responses([["Yes.", "No."]])
    stripped = run(tmp_path / "a", tiny_golden, wide, strip=True)
    np.testing.assert_allclose(stripped, run(tmp_path / "b", tiny_golden, narrow), atol=1e-5, rtol=0)
    assert np.abs(stripped - run(tmp_path / "c", tiny_golden, wide)).max() > 1e-3


def test_with_chat_the_turns_are_read_in_the_template_of_the_golden_model(
    tiny_golden: Path,
    tiny_chat_golden: Path,
    tiny_chat_reward: Callable[[str, str], float],
    tiny_write_responses: Write,
    tmp_path: Path,
) -> None:
    responses = tiny_write_responses([[" Yes.", " No.\n\nHuman: why?"]])
    with pytest.raises(ValueError, match="no chat template"):
        run(tmp_path / "plain", tiny_golden, responses, chat=True)
    prompt = tables.RESPONSES.read(responses)["prompt"][0].as_py()
    expected = [tiny_chat_reward(prompt, answer) for answer in ("Yes.", "No.")]
    found = run(tmp_path / "a", tiny_chat_golden, responses, chat=True)
    np.testing.assert_allclose(found, [expected], atol=1e-4, rtol=0)
    assert np.abs(run(tmp_path / "b", tiny_chat_golden, responses) - expected).max() > 1e-3


@pytest.mark.parametrize("name", ["score", "classifier"])
def test_rewards_are_as_fine_in_bfloat16_as_in_float32(
    name: str, tiny_policy: Path, tiny_golden: Path, tiny_write_responses: Write, tmp_path: Path
) -> None:
    """A bfloat16 head has 8 bits: 100 of these rewards would be ties. Heads of encoders have several layers."""
    golden = tiny_golden
    if name == "classifier":
        golden = tmp_path
        tokenizer = models.load_tokenizer(models.locate(tiny_policy))
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        encoder = RobertaForSequenceClassification(
            RobertaConfig(
                vocab_size=len(tokenizer),
                pad_token_id=tokenizer.pad_token_id,
                num_labels=1,
                initializer_range=0.3,
                **sizes,
            )
        )
        models.save_model(encoder, tokenizer, golden)
    words = [" Yes.", " No.", " To", " a", " boat", " bike", " door", " paint", " mend", " sell"]
    responses = tiny_write_responses(
        [[first + second + third for third in words] for first in words for second in words[:5]]
    )
    found = run(tmp_path / "out", golden, responses, dtype="bfloat16").ravel()
    assert len(np.unique(found)) > 0.98 * len(found)
    exact = run(tmp_path / "float32", golden, responses).ravel()
    np.testing.assert_allclose(found, exact, atol=0.05 * np.ptp(exact))


def test_a_head_that_cannot_be_kept_in_float32_is_refused(
    tiny_policy: Path, tiny_responses: Path, tmp_path: Path
) -> None:
    tokenizer = models.load_tokenizer(models.locate(tiny_policy))
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    tokens = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    model = BartForSequenceClassification(BartConfig(**tokens, num_labels=1, **sizes, **heads))
    models.save_model(model, tokenizer, tmp_path)
    with pytest.raises(ValueError, match=r"no head called score or classifier.*use dtype: float32"):
        score(ScoreConfig(dtype="bfloat16"), tmp_path, golden=tmp_path, responses=tiny_responses)


def test_a_language_model_is_no_reward_model(tiny_policy: Path, tiny_responses: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks score\.weight"):
        score(ScoreConfig(), tmp_path, golden=tiny_policy, responses=tiny_responses)


def test_a_classifier_with_two_labels_is_refused(tiny_policy: Path, tiny_responses: Path, tmp_path: Path) -> None:
    source = models.locate(tiny_policy)
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModelForSequenceClassification, tokenizer, new=("score.",), num_labels=2)
    models.save_model(model, tokenizer, tmp_path)
    with pytest.raises(ValueError, match="one label, this has 2"):
        score(ScoreConfig(), tmp_path, golden=tmp_path, responses=tiny_responses)


def test_a_score_that_is_not_finite_names_prompt_and_response(
    tiny_golden: Path, tiny_write_responses: Write, tmp_path: Path
) -> None:
    shutil.copytree(tiny_golden / "model", tmp_path / "model")
    source = models.locate(tmp_path)
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModelForSequenceClassification, tokenizer)
    poison = tokenizer.encode("🙂", add_special_tokens=False)[-1]
    with torch.no_grad():
        model.model.embed_tokens.weight[poison] = torch.nan
    models.save_model(model, tokenizer, tmp_path)
    responses = tiny_write_responses([[" a", " a longer one"], [" b", " b 🙂"]])
    with pytest.raises(ValueError, match="prompt 11, response 1: the reward is not finite"):
        score(ScoreConfig(), tmp_path, golden=tmp_path, responses=responses)


@pytest.mark.parametrize("tokens", ["eos", "none"])
def test_a_tokenizer_without_a_pad_token_pads_with_its_end_token_and_without_either_is_refused(
    tokens: str, tiny_golden: Path, tiny_responses: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_golden / "model", tmp_path / "model")
    settings = tmp_path / "model" / "tokenizer_config.json"
    known = json.loads(settings.read_text())
    known["pad_token"] = None
    if tokens == "none":
        known["eos_token"] = None
    settings.write_text(json.dumps(known))
    if tokens == "none":
        with pytest.raises(ValueError, match="the tokenizer has neither a pad nor an EOS token"):
            run(tmp_path / "out", tmp_path, tiny_responses)
        return
    found = run(tmp_path / "out", tmp_path, tiny_responses)
    np.testing.assert_allclose(found, run(tmp_path / "padded", tiny_golden, tiny_responses), atol=1e-5, rtol=0)


def test_an_empty_response_is_scored_as_its_prompt_alone(
    tiny_golden: Path, tiny_write_responses: Write, tmp_path: Path
) -> None:
    responses = tiny_write_responses([["", " \n", "\n\nHuman: why?"]])
    ((empty, blank, cut),) = run(tmp_path, tiny_golden, responses, strip=True)
    assert empty == pytest.approx(one_at_a_time(tiny_golden, tiny_write_responses([[""]]), None)[0], abs=1e-4)
    assert blank == pytest.approx(empty, abs=1e-5)
    assert cut == pytest.approx(empty, abs=1e-5)


def test_texts_that_lose_their_beginning_are_counted(
    tiny_golden: Path, tiny_write_responses: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    responses = tiny_write_responses([[" Yes.", " boat" * 300, " bike" * 300], [" No.", " a", " b"]])
    run(tmp_path / "a", tiny_golden, responses)
    # The context of the model, which is shorter than `max_tokens`.
    assert "2 of 6 texts have more than 256 tokens and lose their beginning" in capsys.readouterr().out
    run(tmp_path / "b", tiny_golden, tiny_write_responses([[" Yes."]]))
    assert "lose their beginning" not in capsys.readouterr().out


def test_responses_that_are_not_utf8_name_the_file(tiny_golden: Path, tmp_path: Path) -> None:
    texts = pa.array([b"yes", b"\xff no"], pa.binary()).view(pa.string())
    numbers, prompts = pa.array([0, 0]), pa.array(["\n\nHuman: Hi\n\nAssistant:"] * 2)
    table = pa.Table.from_arrays([numbers, pa.array([0, 1]), prompts, texts], schema=tables.RESPONSES.schema)
    pq.write_table(table, tables.RESPONSES.path(tmp_path))
    with pytest.raises(ValueError, match=r"responses\.parquet: .*UTF8.*index 1.*write texts as UTF-8"):
        score(ScoreConfig(), tmp_path, golden=tiny_golden, responses=tmp_path)


def test_half_a_surrogate_pair_is_refused_where_responses_are_written(tmp_path: Path) -> None:
    columns = {
        "prompt_id": [0],
        "response_id": [0],
        "prompt": ["\n\nHuman: Hi\n\nAssistant:"],
        "response": ["a \ud83d"],
    }
    with pytest.raises(ValueError, match=r"responses\.parquet: '\\ud83d' in 'a \\ud83d' is half a surrogate pair"):
        tables.RESPONSES.write(columns, tmp_path)

"""Supervised fine-tuning: real TRL, loss on the response only, prompts cut at their beginning."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from workers import progress, tables
from workers.language_models import models
from workers.language_models.configs import Lora, SftConfig
from workers.language_models.sft import sft

pytestmark = pytest.mark.train


def load(folder: Path) -> tuple[Any, Any]:
    source = models.locate(folder)
    tokenizer = models.load_tokenizer(source)
    return models.load_model(source, AutoModelForCausalLM, tokenizer), tokenizer


def response_loss(policy: Path, demonstrations: Path) -> float:
    """Literally: mean over all response tokens and EOS of -log p(token | everything before it)."""
    model, tokenizer = load(policy)
    losses = []
    for row in tables.DEMONSTRATIONS.read(demonstrations).to_pylist():
        prompt = tokenizer(row["prompt"])["input_ids"]
        whole = [*tokenizer(row["prompt"] + row["response"])["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logs = model(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
        losses += [-float(logs[at - 1, whole[at]]) for at in range(len(prompt), len(whole))]
    return sum(losses) / len(losses)


def write(folder: Path, rows: list[tuple[str, str]]) -> Path:
    folder.mkdir()
    columns = {"prompt": [p for p, _ in rows], "response": [r for _, r in rows]}
    tables.DEMONSTRATIONS.write(columns, folder)
    return folder


def test_only_response_tokens_and_eos_enter_the_loss(
    tiny_policy: Path, tiny_demonstrations: Path, tmp_path: Path
) -> None:
    config = SftConfig(learning_rate=1e-12, epochs=1, batch_size=24)
    metrics = sft(config, tmp_path, policy=tiny_policy, demonstrations=tiny_demonstrations)
    assert metrics["sft_steps"] == 1
    assert metrics["sft_loss"] == pytest.approx(response_loss(tiny_policy, tiny_demonstrations), abs=1e-4)


def test_fine_tuning_lowers_the_loss_and_leaves_only_the_model_and_its_curve(
    tiny_policy: Path, tiny_demonstrations: Path, tmp_path: Path
) -> None:
    config = SftConfig(learning_rate=1e-2, epochs=4, batch_size=8)
    metrics = sft(config, tmp_path, policy=tiny_policy, demonstrations=tiny_demonstrations)
    assert set(metrics) == set(config.declared())
    assert metrics["sft_steps"] == 12
    before, after = response_loss(tiny_policy, tiny_demonstrations), response_loss(tmp_path, tiny_demonstrations)
    assert after < 0.7 * before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["history.parquet", "model"]
    history = tables.HISTORY.read(tmp_path).to_pylist()
    # TRL logs every tenth step.
    assert [row["step"] for row in history if row["metric"] == "loss"] == [10]


def test_the_log_says_how_far_the_training_is(
    tiny_policy: Path,
    tiny_demonstrations: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    metrics = sft(SftConfig(epochs=1, batch_size=8), tmp_path, policy=tiny_policy, demonstrations=tiny_demonstrations)
    steps = int(metrics["sft_steps"])
    said = capsys.readouterr().out
    assert f"optimizer steps: 1 of {steps} in " in said
    assert f"optimizer steps: {steps} of {steps} in " in said
    found = progress.read_progress(said)
    assert found
    assert found.share == 1


@pytest.mark.parametrize(
    ("merged", "files"),
    [(False, ["adapter", "history.parquet", "reference.json"]), (True, ["history.parquet", "model"])],
)
def test_lora_stores_its_adapter_or_where_asked_the_whole_model(
    merged: bool, files: list[str], tiny_policy: Path, tiny_demonstrations: Path, tmp_path: Path
) -> None:
    config = SftConfig(lora=Lora(r=4, alpha=8, merged=merged), learning_rate=1e-2, epochs=3, batch_size=8)
    sft(config, tmp_path, policy=tiny_policy, demonstrations=tiny_demonstrations)
    assert sorted(file.name for file in tmp_path.iterdir()) == files
    # Readers of an adapter get the weights of the merged model, so what was stored merged before keeps its key.
    assert config.identity()["lora"] == {"r": 4, "alpha": 8, "dropout": 0.0} | ({"merged": True} if merged else {})
    base, merged = load(tiny_policy)[0].state_dict(), load(tmp_path)[0].state_dict()
    assert set(merged) == set(base)
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed == {f"model.layers.0.self_attn.{part}_proj.weight" for part in "qv"}
    assert response_loss(tmp_path, tiny_demonstrations) < response_loss(tiny_policy, tiny_demonstrations)


def test_the_seed_fixes_the_result_whatever_ran_before(
    tiny_policy: Path, tiny_demonstrations: Path, tmp_path: Path
) -> None:
    found, curves = [], []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)
        out = tmp_path / str(number)
        out.mkdir()
        config = SftConfig(learning_rate=1e-3, epochs=1, batch_size=8, seed=seed)
        sft(config, out, policy=tiny_policy, demonstrations=tiny_demonstrations)
        found.append(load(out)[0].state_dict()["model.embed_tokens.weight"])
        curves.append((out / "history.parquet").read_bytes())
    assert curves[0] == curves[1]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("lora", [None, Lora(r=2, alpha=2, merged=True)])
def test_bfloat16_is_stored_and_does_not_leak_into_the_next_training(
    lora: Lora | None, tiny_policy: Path, tiny_demonstrations: Path, tmp_path: Path
) -> None:
    losses = []
    for dtype in ("float32", "bfloat16", "float32"):
        out = tmp_path / f"{dtype}{len(losses)}"
        out.mkdir()
        config = SftConfig(lora=lora, epochs=1, batch_size=24, dtype=dtype)
        losses.append(sft(config, out, policy=tiny_policy, demonstrations=tiny_demonstrations)["sft_loss"])
        model = AutoModelForCausalLM.from_pretrained(out / "model")
        assert {str(weight.dtype) for weight in model.parameters()} == {f"torch.{dtype}"}
    assert losses[0] == losses[2]
    assert losses[0] != losses[1]


def test_a_prompt_that_is_too_long_loses_its_beginning(tiny_policy: Path, tmp_path: Path) -> None:
    tokenizer = load(tiny_policy)[1]
    tail = "\n\nHuman: How do I paint a bike?\n\nAssistant:"
    long = write(tmp_path / "long", [("\n\nHuman: hello boat" * 30 + tail, " Yes.")])
    short = write(tmp_path / "short", [(tail, " Yes.")])
    limit = len(tokenizer(tail + " Yes.")["input_ids"]) + 1
    config = SftConfig(learning_rate=1e-12, epochs=1, max_tokens=limit)
    losses = []
    for rows in (long, short):
        out = tmp_path / f"{rows.name}-out"
        out.mkdir()
        losses.append(sft(config, out, policy=tiny_policy, demonstrations=rows)["sft_loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_long_rows_are_left_out_and_counted_where_a_prompt_is_nothing_without_its_beginning(
    tiny_policy: Path, tmp_path: Path
) -> None:
    _, tokenizer = load(tiny_policy)
    short = ("\n\nHuman: Which?\n\nAssistant:", " The first.")
    long = ("\n\nHuman: Which? " + "boat " * 40 + "\n\nAssistant:", " The other.")
    limit = len(tokenizer("".join(short))["input_ids"]) + 1
    config = SftConfig(learning_rate=1e-12, epochs=1, max_tokens=limit, long_rows="leave_out")
    (tmp_path / "out").mkdir()
    both, one = write(tmp_path / "both", [long, short]), write(tmp_path / "one", [short])
    metrics = sft(config, tmp_path / "out", policy=tiny_policy, demonstrations=both)
    assert set(metrics) == set(config.declared())
    assert metrics["long_rows"] == 1
    assert metrics["sft_loss"] == pytest.approx(response_loss(tiny_policy, one), abs=1e-4)
    with pytest.raises(ValueError, match=rf"none of its 1 rows has at most {limit} tokens: raise max_tokens"):
        sft(config, tmp_path / "out", policy=tiny_policy, demonstrations=write(tmp_path / "two", [long]))
    assert "long_rows" not in SftConfig().identity(), "the default is what was trained before there was a choice"
    assert config.identity()["long_rows"] == "leave_out"


def test_in_a_chat_the_template_parts_prompt_and_response_and_ends_the_response(
    tiny_policy: Path, tmp_path: Path
) -> None:
    rows = write(
        tmp_path / "rows", [("\n\nHuman: Paint a bike?\n\nAssistant: No.\n\nHuman: Why?\n\nAssistant:", " So.")]
    )
    config = SftConfig(learning_rate=1e-12, epochs=1, chat=True)
    with pytest.raises(ValueError, match="no chat template"):
        sft(config, tmp_path, policy=tiny_policy, demonstrations=rows)
    shutil.copytree(tiny_policy, tmp_path / "policy")
    tokenizer = load(tiny_policy)[1]
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    tokenizer.save_pretrained(tmp_path / "policy" / "model")
    metrics = sft(config, tmp_path, policy=tmp_path / "policy", demonstrations=rows)
    prompt = "<user>Paint a bike?</><assistant>No.</><user>Why?</><assistant>"
    ids, whole = (tokenizer(text)["input_ids"] for text in (prompt, f"{prompt}So.</>"))
    with torch.no_grad():
        logs = load(tiny_policy)[0](input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
    assert whole[: len(ids)] == ids
    expected = -float(torch.stack([logs[at - 1, whole[at]] for at in range(len(ids), len(whole))]).mean())
    assert metrics["sft_loss"] == pytest.approx(expected, abs=1e-4)


def test_no_demonstrations_are_refused(tiny_policy: Path, tmp_path: Path) -> None:
    empty = write(tmp_path / "empty", [])
    with pytest.raises(ValueError, match="no demonstrations"):
        sft(SftConfig(), tmp_path, policy=tiny_policy, demonstrations=empty)

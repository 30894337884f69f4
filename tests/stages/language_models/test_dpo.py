"""Direct preference optimisation: real TRL, and its loss computed by hand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

from workers import tables
from workers.language_models import adapters, models
from workers.language_models.configs import DpoConfig, Lora
from workers.language_models.dpo import dpo

pytestmark = pytest.mark.train

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def load(folder: Path) -> tuple[Any, Any]:
    source = models.locate(folder)
    tokenizer = models.load_tokenizer(source)
    return models.load_model(source, AutoModelForCausalLM, tokenizer), tokenizer


def write(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    folder.mkdir()
    columns = {name: [row[i] for row in rows] for i, name in enumerate(("prompt", "chosen", "rejected"))}
    tables.PREFERENCES.write({**columns, "subset": [""] * len(rows)}, folder)
    return folder


def token_logs(policy: Path, prompt: str, whole: str) -> torch.Tensor:
    """log p of each token of `whole` that is not of `prompt`, float64; texts hold their special tokens."""
    model, tokenizer = load(policy)
    start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logs = model.double()(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return torch.stack([logs[at - 1, ids[at]] for at in range(start, len(ids))])


def by_hand(policy: Path, reference: Path, rows: list[tuple[str, str, str]], config: DpoConfig) -> float:
    """dpo_weight * mean over rows of -log sigmoid(beta * difference) + sft_weight * mean over tokens of -log p."""
    dpo_terms, chosen_tokens = [], []
    for prompt, chosen, rejected in rows:
        texts = [f"<bos>{prompt}", f"<bos>{prompt}{chosen}<eos>", f"<bos>{prompt}{rejected}<eos>"]
        new = [token_logs(policy, texts[0], each) for each in texts[1:]]
        old = [token_logs(reference, texts[0], each) for each in texts[1:]]
        ratio = [a.sum() - b.sum() for a, b in zip(new, old, strict=True)]
        dpo_terms.append(-logsigmoid(config.beta * (ratio[0] - ratio[1])))
        chosen_tokens.append(new[0])
    return float(
        config.dpo_weight * torch.stack(dpo_terms).mean() + config.sft_weight * -torch.cat(chosen_tokens).mean()
    )


ROWS = [
    ("\n\nHuman: How do I paint a bike?\n\nAssistant:", " To paint a bike, buy a good brush.", " No."),
    ("\n\nHuman: How do I sell a boat?\n\nAssistant:", " Take your time.", " Go away, I hate you and your boat."),
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("rows") / "preferences", ROWS)


@pytest.mark.parametrize(("dpo_weight", "sft_weight"), [(1.0, 0.0), (1.0, 1e-6), (0.25, 0.5), (0.0, 0.5)])
def test_the_loss_of_the_first_step_is_dpo_plus_alpha_sft(
    dpo_weight: float, sft_weight: float, tiny_policy: Path, rows: Path, tmp_path: Path
) -> None:
    config = DpoConfig(dpo_weight=dpo_weight, sft_weight=sft_weight, batch_size=2, learning_rate=1e-12, warmup=0)
    metrics = dpo(config, tmp_path, policy=tiny_policy, preferences=rows)
    assert metrics["dpo_steps"] == 1
    assert metrics["dpo_rows"] == 2
    # The policy is still its own reference, so L_DPO is log 2. Differences of 1e-6 are what the second case is about.
    assert metrics["dpo_loss"] == pytest.approx(by_hand(tiny_policy, tiny_policy, ROWS, config), abs=2e-7, rel=2e-6)


@pytest.mark.parametrize(
    ("sft_weight", "lora", "learning_rate"),
    [(0.0, None, 1e-2), (1e-6, None, 1e-2), (0.5, None, 1e-2), (0.5, Lora(r=2, alpha=4), 1e-1)],
)
def test_the_loss_after_a_step_is_against_the_model_that_training_began_with(
    sft_weight: float, lora: Lora | None, learning_rate: float, tiny_policy: Path, rows: Path, tmp_path: Path
) -> None:
    """Two steps: twice the mean of their losses, minus the first, is the loss of the model after one step."""
    config = DpoConfig(sft_weight=sft_weight, batch_size=2, learning_rate=learning_rate, warmup=0, beta=0.5, lora=lora)
    outs = []
    for epochs in (1, 2):
        out = tmp_path / str(epochs)
        out.mkdir()
        outs.append(dpo(config.model_copy(update={"epochs": epochs}), out, policy=tiny_policy, preferences=rows))
    # The cosine of two steps is at its peak in the first, as that of one step is.
    second = 2 * outs[1]["dpo_loss"] - outs[0]["dpo_loss"]
    expected = by_hand(tmp_path / "1", tiny_policy, ROWS, config)
    assert expected < outs[0]["dpo_loss"] - 0.05
    assert second == pytest.approx(expected, abs=1e-5)


def test_alpha_is_not_lost_where_the_loss_is_summed(tiny_policy: Path, rows: Path, tmp_path: Path) -> None:
    """Also under bfloat16 autocast: a bfloat16 sum of 0.69 and 5e-6 would be 0.69."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        for alpha in (0.0, 1e-6):
            out = tmp_path / f"{dtype}{alpha}"
            out.mkdir()
            config = DpoConfig(sft_weight=alpha, batch_size=2, learning_rate=1e-12, warmup=0, dtype=dtype)
            found[dtype, alpha] = dpo(config, out, policy=tiny_policy, preferences=rows)["dpo_loss"]
    sft_loss = by_hand(tiny_policy, tiny_policy, ROWS, DpoConfig(dpo_weight=0, sft_weight=1.0))
    for dtype in ("float32", "bfloat16"):
        assert found[dtype, 1e-6] - found[dtype, 0.0] == pytest.approx(1e-6 * sft_loss, rel=0.05)


def test_training_prefers_the_chosen_and_leaves_only_the_model(
    tiny_policy: Path, tiny_preferences: Path, tmp_path: Path
) -> None:
    config = DpoConfig(learning_rate=1e-3, batch_size=10, epochs=2)
    metrics = dpo(config, tmp_path, policy=tiny_policy, preferences=tiny_preferences)
    assert set(metrics) == set(config.declared())
    assert metrics["dpo_steps"] == 12
    assert metrics["long_rows"] == 0
    table = tables.PREFERENCES.read(tiny_preferences).to_pylist()[:3]
    held = [(row["prompt"], row["chosen"], row["rejected"]) for row in table]
    assert by_hand(tmp_path, tiny_policy, held, config) < 0.5
    assert sorted(file.name for file in tmp_path.iterdir()) == ["history.parquet", "model"]


def test_a_training_whose_only_step_is_warm_up_changes_nothing_and_is_an_error(
    tiny_policy: Path, rows: Path, tmp_path: Path
) -> None:
    config = DpoConfig(learning_rate=1e-2, batch_size=2)
    words = r"2 rows in batches of 2 x gradient_accumulation 1, 1 epochs, are 1 optimizer steps, of which the first 1"
    with pytest.raises(ValueError, match=rf"changed nothing: {words}.*less warmup"):
        dpo(config, tmp_path, policy=tiny_policy, preferences=rows)
    dpo(config.model_copy(update={"epochs": 2}), tmp_path, policy=tiny_policy, preferences=rows)
    before, after = (load(folder)[0].state_dict() for folder in (tiny_policy, tmp_path))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_rows_that_are_too_long_are_left_out_and_counted(tiny_policy: Path, tmp_path: Path) -> None:
    """Cut ones would have changed the loss."""
    tokenizer = load(tiny_policy)[1]
    prompt, chosen, rejected = ROWS[0]
    long = [(prompt, chosen, " No." * 30), ("\n\nHuman: boat" * 30 + "\n\nAssistant:", chosen, rejected)]
    limit = len(tokenizer(prompt + chosen)["input_ids"]) + 1
    rows = write(tmp_path / "rows", [ROWS[0], *long])
    config = DpoConfig(dpo_weight=0, sft_weight=1, learning_rate=1e-12, warmup=0, max_tokens=limit)
    metrics = dpo(config, tmp_path, policy=tiny_policy, preferences=rows)
    assert (metrics["dpo_rows"], metrics["long_rows"]) == (1, 2)
    assert metrics["dpo_loss"] == pytest.approx(by_hand(tiny_policy, tiny_policy, ROWS[:1], config), rel=2e-6)
    with pytest.raises(ValueError, match=rf"none of its 3 rows has at most {limit - 1} tokens.*max_tokens"):
        dpo(config.model_copy(update={"max_tokens": limit - 1}), tmp_path, policy=tiny_policy, preferences=rows)


def test_the_seed_fixes_the_result_whatever_ran_before(
    tiny_policy: Path, tiny_preferences: Path, tmp_path: Path
) -> None:
    found = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)
        out = tmp_path / str(number)
        out.mkdir()
        config = DpoConfig(learning_rate=1e-3, batch_size=10, seed=seed, lora=Lora(r=2, alpha=2))
        dpo(config, out, policy=tiny_policy, preferences=tiny_preferences)
        found.append([(out / "adapter" / name).read_bytes() for name in (adapters.CONFIG, adapters.WEIGHTS)])
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_in_a_chat_the_template_parts_prompt_and_answer_and_ends_the_answer(
    tiny_policy: Path, rows: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no chat template"):
        dpo(DpoConfig(chat=True), tmp_path, policy=tiny_policy, preferences=rows)
    shutil.copytree(tiny_policy, tmp_path / "chat")
    tokenizer = load(tiny_policy)[1]
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path / "chat" / "model")
    config = DpoConfig(dpo_weight=0, sft_weight=1, chat=True, learning_rate=1e-12, warmup=0)
    metrics = dpo(config, tmp_path, policy=tmp_path / "chat", preferences=rows)
    logs = [
        token_logs(tiny_policy, text, f"{text}{answer}<eos>")
        for text, answer in (
            ("<bos><user>How do I paint a bike?<assistant>", "To paint a bike, buy a good brush."),
            ("<bos><user>How do I sell a boat?<assistant>", "Take your time."),
        )
    ]
    assert metrics["dpo_loss"] == pytest.approx(-float(torch.cat(logs).mean()), rel=2e-6)


@pytest.mark.parametrize("lora", [None, Lora(r=2, alpha=2, merged=True)])
def test_bfloat16_is_stored(lora: Lora | None, tiny_policy: Path, rows: Path, tmp_path: Path) -> None:
    dpo(DpoConfig(lora=lora, dtype="bfloat16", warmup=0), tmp_path, policy=tiny_policy, preferences=rows)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert {str(weight.dtype) for weight in model.parameters()} == {"torch.bfloat16"}

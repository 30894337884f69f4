"""Golden margins: the chosen answer's reward minus the rejected one's, untouched by padding and batches."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from workers import tables
from workers.language_models import batches, models
from workers.rewards.configs import MarginsConfig
from workers.rewards.margins import margins

pytestmark = pytest.mark.train


def run(out: Path, golden: Path, preferences: Path, batch_size: int = 64, **settings: Any) -> np.ndarray:
    out.mkdir()
    config = MarginsConfig.model_validate(settings)
    metrics = margins(config, out, golden=golden, preferences=preferences, batch_size=batch_size)
    found = np.load(out / "margins.npy")
    assert set(metrics) == set(config.declared())
    assert metrics["mean_reward_gap"] == pytest.approx(found.mean(), abs=1e-5)
    assert found.dtype == np.float32
    return found


def test_margins_are_the_differences_of_rewards_read_one_at_a_time(
    tiny_golden: Path, tiny_preferences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = models.locate(tiny_golden)
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModelForSequenceClassification, tokenizer)

    def reward(text: str) -> float:
        with torch.no_grad():
            return float(model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits[0, 0])

    rows = tables.PREFERENCES.read(tiny_preferences).to_pylist()
    some = [0, 6, 7, 13, 14, 31, 59]  # of the first, a middle and the last window
    expected = [
        reward(rows[i]["prompt"] + rows[i]["chosen"]) - reward(rows[i]["prompt"] + rows[i]["rejected"]) for i in some
    ]
    monkeypatch.setattr(batches, "WINDOW", 2)  # so that windows matter too
    for batch_size in (7, 64):
        found = run(tmp_path / str(batch_size), tiny_golden, tiny_preferences, batch_size=batch_size)
        assert found.shape == (60,)
        np.testing.assert_allclose(found[some], expected, atol=1e-4, rtol=0)
    # The model was trained on these preferences.
    assert (found > 0).mean() > 0.9


def test_with_chat_answers_are_turns_in_the_template_of_the_golden_model(
    tiny_chat_golden: Path, tiny_chat_reward: Callable[[str, str], float], tiny_preferences: Path, tmp_path: Path
) -> None:
    row = tables.PREFERENCES.read(tiny_preferences).slice(0, 1).to_pylist()[0]
    chosen, rejected = (tiny_chat_reward(row["prompt"], row[answer].strip()) for answer in ("chosen", "rejected"))
    found = run(tmp_path / "out", tiny_chat_golden, tiny_preferences, chat=True)
    assert found[0] == pytest.approx(chosen - rejected, abs=1e-4)


def test_a_reward_that_is_not_finite_names_the_row(tiny_golden: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_golden / "model", tmp_path / "model")
    source = models.locate(tmp_path)
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModelForSequenceClassification, tokenizer)
    with torch.no_grad():
        model.model.embed_tokens.weight[tokenizer.encode("🙂", add_special_tokens=False)[-1]] = torch.nan
    models.save_model(model, tokenizer, tmp_path)
    columns: dict[str, object] = {
        "prompt": ["\n\nHuman: a\n\nAssistant:"] * 3, "chosen": [" a"] * 3, "rejected": [" b", " 🙂", " c"],
        "subset": [""] * 3,
    }  # fmt: skip
    tables.PREFERENCES.write(columns, tmp_path)
    with pytest.raises(ValueError, match="row 2: the reward of the rejected answer is not finite"):
        run(tmp_path / "out", tmp_path, tmp_path)

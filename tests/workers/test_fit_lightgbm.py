from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from reward_artifacts import linear_world, write_annotations, write_embeddings

from workers.configs import FitLightgbmConfig
from workers.fit_lightgbm import boost, fit_lightgbm, log_loss, parameters
from workers.reward_heads import load_reward_head


def config(**fields: Any) -> FitLightgbmConfig:
    return FitLightgbmConfig(**({"num_boost_round": 30, "seed": 3} | fields))


def trees(booster: lightgbm.Booster) -> str:
    return booster.model_to_string().split("\nparameters:")[0]


def artifacts(tmp_path: Path, dtype: str = "float32") -> tuple[Path, list[Path], np.ndarray, np.ndarray]:
    embeddings, rewards = linear_world(300, 4, 6)
    one, other = np.random.default_rng(0).integers(rewards.size, size=(2, 900))
    better = rewards.ravel()[one] > rewards.ravel()[other]
    winner, loser = np.where(better, one, other), np.where(better, other, one)
    folders = [
        write_embeddings(tmp_path / f"e{i}", part.astype(dtype)) for i, part in enumerate(np.split(embeddings, [70]))
    ]
    features = np.concatenate([np.load(folder / "embeddings.npy") for folder in folders]).reshape(-1, 6)
    return write_annotations(tmp_path / "a", winner, loser), folders, features, rewards.ravel()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_booster_learns_the_golden_order_and_can_be_loaded(tmp_path: Path, dtype: str) -> None:
    annotations, folders, features, rewards = artifacts(tmp_path, dtype)
    out = tmp_path / "out"
    out.mkdir()
    metrics = fit_lightgbm(config(), out, annotations=annotations, embeddings=folders)
    assert set(metrics) == set(config().metrics())
    assert 0 < metrics["train_loss"] < np.log(2)
    assert np.corrcoef(load_reward_head(out).predict(features), rewards)[0, 1] > 0.8


def test_train_loss_is_the_librarys_own_on_winners_and_losers(tmp_path: Path) -> None:
    annotations, folders, features, _ = artifacts(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    metrics = fit_lightgbm(config(), out, annotations=annotations, embeddings=folders)
    from workers.embeddings import read_pairs

    rows = np.concatenate(read_pairs(annotations))
    data = lightgbm.Dataset(features[rows], np.repeat([1, 0], len(rows) // 2))
    history: dict[str, dict[str, list[float]]] = {}
    lightgbm.train(parameters(config()), data, 30, [data], ["train"], callbacks=[lightgbm.record_evaluation(history)])
    assert metrics["train_loss"] == pytest.approx(history["train"]["binary_logloss"][-1], rel=1e-9)


def test_the_number_of_threads_does_not_change_the_trees() -> None:
    embeddings, rewards = linear_world(3000, 1, 40)
    features = embeddings.reshape(-1, 40)
    labels = (rewards.ravel() + np.random.default_rng(0).standard_normal(3000) > 0).astype(float)
    grown = {trees(boost(features, labels, config(), threads)) for threads in (1, 2, 3)}
    assert len(grown) == 1


def test_the_same_fit_gives_the_same_file(tmp_path: Path) -> None:
    annotations, folders, _, _ = artifacts(tmp_path)
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir(exist_ok=True)
        fit_lightgbm(config(), tmp_path / name, annotations=annotations, embeddings=folders)
        contents.append((tmp_path / name / "model.txt").read_text())
    assert contents[0] == contents[1]


def test_what_is_not_configured_keeps_the_librarys_defaults() -> None:
    embeddings, rewards = linear_world(200, 1, 5)
    text = boost(embeddings.reshape(-1, 5), (rewards.ravel() > 0).astype(float), config()).model_to_string()
    for line in ("objective: binary", "num_leaves: 31", "learning_rate: 0.1", "min_data_in_leaf: 20", "max_bin: 255"):
        assert re.search(rf"^\[{re.escape(line)}\]$", text, re.MULTILINE), line
    assert FitLightgbmConfig(seed=0).num_boost_round == 100


def test_too_few_rows_for_a_single_split_are_refused_with_a_remedy() -> None:
    features = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    with pytest.raises(ValueError, match=r"no split in 30 rows .*more annotations or a smaller min_data_in_leaf"):
        boost(features, np.repeat([1.0, 0.0], 15), config())


def test_log_loss_is_the_binary_cross_entropy_and_never_overflows() -> None:
    logits, labels = np.array([0.3, -2.0, 1.0]), np.array([1.0, 0.0, 0.0])
    probability = 1 / (1 + np.exp(-logits))
    expected = -np.mean(labels * np.log(probability) + (1 - labels) * np.log(1 - probability))
    assert log_loss(logits, labels) == pytest.approx(expected)
    assert log_loss(np.array([1e4, -1e4]), np.array([0.0, 1.0])) == pytest.approx(1e4)

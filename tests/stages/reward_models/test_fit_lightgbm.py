from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from reward_artifacts import linear_world, write_annotations, write_embeddings

from workers.reward_models.configs import FitLightgbmConfig
from workers.reward_models.fit_lightgbm import binned, boost, fit_lightgbm, fit_lightgbms, parameters
from workers.reward_models.heads import load_reward_head
from workers.reward_models.metrics import log_loss
from workers.stage import Call


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
    assert set(metrics) == set(config().declared())
    assert 0 < metrics["train_loss"] < np.log(2)
    assert np.corrcoef(load_reward_head(out).predict(features), rewards)[0, 1] > 0.8


def test_train_loss_is_the_librarys_own_on_winners_and_losers(tmp_path: Path) -> None:
    annotations, folders, features, _ = artifacts(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    metrics = fit_lightgbm(config(), out, annotations=annotations, embeddings=folders)
    from workers.reward_models.pairs import read_pairs

    rows = np.concatenate(read_pairs(annotations))
    data = lightgbm.Dataset(features[rows], np.repeat([1, 0], len(rows) // 2))
    history: dict[str, dict[str, list[float]]] = {}
    lightgbm.train(parameters(config()), data, 30, [data], ["train"], callbacks=[lightgbm.record_evaluation(history)])
    assert metrics["train_loss"] == pytest.approx(history["train"]["binary_logloss"][-1], rel=1e-9)


def test_the_number_of_threads_does_not_change_the_trees() -> None:
    embeddings, rewards = linear_world(3000, 1, 40)
    features = embeddings.reshape(-1, 40)
    labels = (rewards.ravel() + np.random.default_rng(0).standard_normal(3000) > 0).astype(float)
    grown = {trees(boost(binned(features, config()), labels, config(), threads)) for threads in (1, 2, 3)}
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
    data = binned(embeddings.reshape(-1, 5), config())
    text = boost(data, (rewards.ravel() > 0).astype(float), config()).model_to_string()
    for line in ("objective: binary", "num_leaves: 31", "learning_rate: 0.1", "min_data_in_leaf: 20", "max_bin: 255"):
        assert re.search(rf"^\[{re.escape(line)}\]$", text, re.MULTILINE), line
    assert FitLightgbmConfig(seed=0).num_boost_round == 100


def test_too_few_rows_for_a_single_split_make_a_constant_model_and_the_log_tells_the_remedy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    features = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    booster = boost(binned(features, config()), np.repeat([1.0, 0.0], 15), config())
    assert len(set(booster.predict(features, raw_score=True))) == 1
    said = capsys.readouterr().out
    assert "no split in 30 rows" in said
    assert "more annotations or a smaller min_data_in_leaf" in said


def test_log_loss_is_the_binary_cross_entropy_and_never_overflows() -> None:
    logits, labels = np.array([0.3, -2.0, 1.0]), np.array([1.0, 0.0, 0.0])
    probability = 1 / (1 + np.exp(-logits))
    expected = -np.mean(labels * np.log(probability) + (1 - labels) * np.log(1 - probability))
    assert log_loss(logits, labels) == pytest.approx(expected)
    assert log_loss(np.array([1e4, -1e4]), np.array([0.0, 1.0])) == pytest.approx(1e4)


def test_fits_of_the_same_pairs_bin_the_features_once_and_equal_separate_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import workers.reward_models.fit_lightgbm as module

    annotations, folders, _, _ = artifacts(tmp_path)
    winner, loser = module.read_pairs(annotations)
    noisy = np.random.default_rng(1).random((3, len(winner))) < [[0.1], [0.3], [0.5]]
    pairs = [
        write_annotations(tmp_path / f"n{i}", *np.where(n, (loser, winner), (winner, loser)))
        for i, n in enumerate(noisy)
    ]
    pairs.append(write_annotations(tmp_path / "fewer", winner[:400], loser[:400]))
    binnings = []
    monkeypatch.setattr(module, "binned", lambda features, setting: binnings.append(1) or binned(features, setting))
    calls = []
    for number, each in enumerate(pairs):
        (tmp_path / f"together{number}").mkdir()
        calls.append(Call(config(), tmp_path / f"together{number}", {"annotations": each, "embeddings": folders}))
    together = list(fit_lightgbms(calls))
    assert len(binnings) == 2
    for number, each in enumerate(pairs):
        out = tmp_path / f"alone{number}"
        out.mkdir()
        assert fit_lightgbm(config(), out, annotations=each, embeddings=folders) == together[number]
        assert (out / "model.txt").read_text() == (tmp_path / f"together{number}" / "model.txt").read_text()


def test_a_fit_without_a_split_is_told_and_its_neighbours_are_not_touched(tmp_path: Path) -> None:
    annotations, folders, _, _ = artifacts(tmp_path)
    few = write_annotations(tmp_path / "few", np.arange(10), np.arange(10, 20))
    calls = []
    for number, each in enumerate([annotations, few, annotations]):
        (tmp_path / str(number)).mkdir()
        calls.append(Call(config(), tmp_path / str(number), {"annotations": each, "embeddings": folders}))
    first, bad, last = fit_lightgbms(calls)
    # Of balanced labels, the best constant costs ln 2.
    assert bad == {"train_loss": pytest.approx(math.log(2))}
    assert first == last

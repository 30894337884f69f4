from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import lightgbm
import numpy as np
import pytest
import torch

from workers.reward_models.heads import build_mlp, load_reward_head, save_lightgbm, save_mlp


def saved_mlp(folder: Path) -> torch.nn.Sequential:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    network = build_mlp(6, (5, 4))
    save_mlp([network], 6, (5, 4), folder)
    return network


def saved_booster(folder: Path) -> lightgbm.Booster:
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    features = random.standard_normal((200, 6)).astype(np.float32)
    labels = features[:, 0] > 0
    booster = lightgbm.train({"objective": "binary", "verbosity": -1}, lightgbm.Dataset(features, labels), 5)
    save_lightgbm(booster, folder)
    return booster


FEATURES = np.random.default_rng(1).standard_normal((9, 6)).astype(np.float32)


def test_a_saved_mlp_predicts_as_before(tmp_path: Path) -> None:
    network = saved_mlp(tmp_path)
    head = load_reward_head(tmp_path)
    rewards = head.predict(FEATURES)
    assert head.dimension == 6
    assert rewards.dtype == np.float32
    expected = network(torch.from_numpy(FEATURES)).detach().numpy()[:, 0]
    np.testing.assert_allclose(rewards, expected, rtol=1e-5, atol=1e-6)


def test_a_saved_booster_predicts_logits_as_before(tmp_path: Path) -> None:
    booster = saved_booster(tmp_path)
    head = load_reward_head(tmp_path)
    rewards = head.predict(FEATURES)
    assert head.dimension == 6
    assert rewards.dtype == np.float64
    np.testing.assert_allclose(1 / (1 + np.exp(-rewards)), booster.predict(FEATURES), rtol=1e-12)


@pytest.mark.parametrize("save", [saved_mlp, saved_booster])
def test_half_precision_and_read_only_features_predict_as_their_float32_copy(tmp_path: Path, save: object) -> None:
    assert callable(save)
    save(tmp_path)
    head = load_reward_head(tmp_path)
    half = FEATURES.astype(np.float16)
    half.flags.writeable = False
    np.testing.assert_allclose(head.predict(half), head.predict(half.astype(np.float32)), rtol=1e-6)


@pytest.mark.parametrize("save", [saved_mlp, saved_booster])
def test_features_of_another_width_are_refused(tmp_path: Path, save: object) -> None:
    assert callable(save)
    save(tmp_path)
    with pytest.raises(ValueError, match=r"takes \(n, 6\)"):
        load_reward_head(tmp_path).predict(FEATURES[:, :5])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "mlp"}', '{"kind": "mlp", "dimension": "wide"}'])
def test_a_description_that_is_not_one_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "reward_model.json").write_text(text)
    with pytest.raises(ValueError, match=r"reward_model\.json: not the description"):
        load_reward_head(tmp_path)


def test_an_unknown_kind_or_shape_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "reward_model.json").write_text('{"kind": "oracle", "dimension": 6}')
    with pytest.raises(ValueError, match=r"reward_model\.json: kind 'oracle'"):
        load_reward_head(tmp_path)
    (tmp_path / "reward_model.json").write_text('{"kind": "mlp", "dimension": 6, "hidden": "deep"}')
    with pytest.raises(ValueError, match=r"reward_model\.json: hidden 'deep'"):
        load_reward_head(tmp_path)


def test_weights_that_contradict_their_description_or_are_torn_are_refused_by_name(tmp_path: Path) -> None:
    saved_mlp(tmp_path / "mlp")
    saved_booster(tmp_path / "lightgbm")
    for kind, file in (("mlp", "weights.safetensors"), ("lightgbm", "model.txt")):
        folder = tmp_path / kind
        description = json.loads((folder / "reward_model.json").read_text())
        (folder / "reward_model.json").write_text(json.dumps(description | {"dimension": 7}))
        with pytest.raises(ValueError, match=file):
            load_reward_head(folder)
        (folder / file).write_bytes((folder / file).read_bytes()[:20])
        with pytest.raises(ValueError, match=file):
            load_reward_head(folder)
        (folder / file).unlink()
        with pytest.raises(FileNotFoundError):
            load_reward_head(folder)


def test_importing_reward_heads_imports_neither_torch_nor_lightgbm() -> None:
    code = "import sys, workers.reward_models.heads; print({'torch', 'lightgbm', 'safetensors'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"

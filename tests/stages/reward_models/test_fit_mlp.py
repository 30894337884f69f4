"""The stage that fits MLP reward models: alone, with others, in every precision."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlp_fits import artifacts, config, pairs_of
from reward_artifacts import write_annotations

from workers.precision import factor_type
from workers.reward_models.configs import FitMlpConfig
from workers.reward_models.fit_mlp import (
    fit_mlp,
    fit_mlps,
)
from workers.reward_models.heads import load_reward_head
from workers.stage import Call


@pytest.mark.parametrize("training", ["paper", "clean"])
@pytest.mark.parametrize("loss", ["bt", "clf"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_reward_model_learns_the_golden_order_and_can_be_loaded(
    tmp_path: Path, training: str, loss: str, dtype: str
) -> None:
    annotations, folders, rewards = artifacts(tmp_path, dtype)
    out = tmp_path / "out"
    out.mkdir()
    setting = config(training=training, loss=loss, epochs=30)
    metrics = fit_mlp(setting, out, annotations=annotations, embeddings=folders)
    assert set(metrics) == set(setting.declared())
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())
    assert metrics["steps"] == metrics["epochs"] * math.ceil(960 / 100)
    assert json.loads((out / "reward_model.json").read_text())["hidden"] == [16, 8]
    features = np.concatenate([np.load(folder / "embeddings.npy") for folder in folders]).reshape(-1, 12)
    predicted = load_reward_head(out).predict(features)
    assert np.corrcoef(predicted, rewards.ravel())[0, 1] > 0.9


def test_the_same_fit_gives_the_same_file(tmp_path: Path) -> None:
    annotations, folders, _ = artifacts(tmp_path)
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        fit_mlp(config(), tmp_path / name, annotations=annotations, embeddings=folders)
        contents.append((tmp_path / name / "weights.safetensors").read_bytes())
    assert contents[0] == contents[1]


def test_a_fit_imports_nothing_large_that_it_does_not_use(tmp_path: Path) -> None:
    annotations, folders, _ = artifacts(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from workers.reward_models.configs import FitMlpConfig; from workers.reward_models.fit_mlp import fit_mlp\n"
        "out, annotations, *folders = map(Path, sys.argv[1:])\n"
        "fit_mlp(FitMlpConfig(loss='bt', hidden=(8,), seed=0), out, annotations=annotations, embeddings=folders)\n"
        "print(sorted({'torch._dynamo', 'pandas', 'pyarrow.dataset', 'scipy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(annotations), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(Path.cwd())})
    assert done.stdout == "[]\n"


def test_annotations_of_other_embeddings_are_refused(tmp_path: Path) -> None:
    _, folders, _ = artifacts(tmp_path)
    annotations = write_annotations(tmp_path / "other", np.array([800, 0]), np.array([1, 1]))
    with pytest.raises(ValueError, match=r"row 800 is outside the 800 rows .*made on other responses"):
        fit_mlp(config(), tmp_path, annotations=annotations, embeddings=folders)


def calls_of(folder: Path, settings: list[FitMlpConfig], annotations: list[Path], folders: list[Path]) -> list[Call]:
    calls = []
    for number, (setting, pairs) in enumerate(zip(settings, annotations, strict=True)):
        out = folder / str(number)
        out.mkdir(parents=True)
        calls.append(Call(setting, out, {"annotations": pairs, "embeddings": folders}))
    return calls


def test_a_network_is_the_same_bit_for_bit_whoever_is_fitted_with_it(tmp_path: Path) -> None:
    _, folders, rewards = artifacts(tmp_path)
    sizes = [600, 250, 600, 90, 333]
    annotations = [
        write_annotations(tmp_path / f"a{number}", *pairs_of(size, rewards, seed=number))
        for number, size in enumerate(sizes)
    ]
    settings = [
        config(seed=1), config(loss="clf", seed=2), config(training="clean", seed=3, epochs=30),
        config(loss="clf", hidden=(5,), member=2), config(members=2, batch_size=10_240),
    ]  # fmt: skip
    calls = calls_of(tmp_path / "together", settings, annotations, folders)
    together = list(fit_mlps(calls))
    for number, call in enumerate(calls):
        alone = tmp_path / "alone" / str(number)
        alone.mkdir(parents=True)
        metrics = fit_mlp(call.config, alone, annotations=annotations[number], embeddings=folders)
        assert together[number] == metrics
        for name in ("weights.safetensors", "reward_model.json"):
            assert (call.out / name).read_bytes() == (alone / name).read_bytes()


def test_a_fit_that_diverges_is_left_out_and_its_neighbours_are_not_touched(tmp_path: Path) -> None:
    annotations, folders, _ = artifacts(tmp_path)
    settings = [config(), config(learning_rate=1e30, loss="clf"), config(seed=8)]
    first, bad, last = fit_mlps(calls_of(tmp_path / "together", settings, [annotations] * 3, folders))
    assert first is not None and bad is None and last is not None  # noqa: PT018
    out = tmp_path / "alone"
    out.mkdir()
    assert fit_mlp(config(seed=8), out, annotations=annotations, embeddings=folders) == last


def test_several_members_are_those_that_would_be_fitted_alone_and_are_averaged_or_the_least_is_taken(
    tmp_path: Path,
) -> None:
    annotations, folders, _ = artifacts(tmp_path)
    features = np.concatenate([np.load(folder / "embeddings.npy") for folder in folders]).reshape(-1, 12)

    def rewards(**fields: Any) -> np.ndarray:
        out = tmp_path / str(fields)
        out.mkdir()
        fit_mlp(config(**fields), out, annotations=annotations, embeddings=folders)
        return load_reward_head(out).predict(features)

    single = np.stack([rewards(member=member) for member in (1, 2, 3)])
    np.testing.assert_allclose(rewards(member=1, members=3), single.mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(rewards(member=1, members=3, aggregation="min"), single.min(axis=0))


@pytest.mark.parametrize("loss", ["bt", "clf"])
def test_rounding_the_factors_to_bfloat16_changes_the_rewards_little(tmp_path: Path, loss: str) -> None:
    annotations, folders, golden = artifacts(tmp_path)
    features = np.concatenate([np.load(folder / "embeddings.npy") for folder in folders]).reshape(-1, 12)
    rewards, losses = {}, {}
    for precision in ("float32", "tf32", "bfloat16"):
        out = tmp_path / precision
        out.mkdir()
        setting = config(loss=loss, precision=precision, epochs=30)
        losses[precision] = fit_mlp(setting, out, annotations=annotations, embeddings=folders)["validation_loss"]
        rewards[precision] = load_reward_head(out).predict(features)
    if not torch.cuda.is_available():
        assert np.array_equal(rewards["tf32"], rewards["float32"])
    assert np.array_equal(rewards["bfloat16"], rewards["float32"]) == (factor_type("bfloat16") == torch.float32)
    assert losses["bfloat16"] == pytest.approx(losses["float32"], abs=0.03)
    right = {each: np.corrcoef(rewards[each], golden.ravel())[0, 1] for each in rewards}
    assert right["bfloat16"] == pytest.approx(right["float32"], abs=0.02)
    assert np.corrcoef(rewards["bfloat16"], rewards["float32"])[0, 1] > 0.98

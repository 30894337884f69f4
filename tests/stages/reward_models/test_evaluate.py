from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from reward_artifacts import linear_world, write_embeddings, write_scores
from scipy.stats import spearmanr

from workers.metric import Undefined
from workers.precision import factor_type
from workers.reward_models import embeddings as module
from workers.reward_models.configs import EvaluateConfig
from workers.reward_models.embeddings import open_embeddings
from workers.reward_models.evaluate import any_pairs, evaluate, evaluate_all, permutations, predict, same_prompt_pairs
from workers.reward_models.heads import build_mlp, save_lightgbm, save_linear, save_mlp
from workers.stage import Call


def config(**fields: Any) -> EvaluateConfig:
    return EvaluateConfig(**({"best_of": (2, 5, 12), "repeats": 20, "pairs": 500} | fields))


@dataclass
class World:
    embeddings: np.ndarray
    rewards: np.ndarray
    inputs: dict[str, Any]
    out: Path


def world(tmp_path: Path, rewards: np.ndarray | None = None, prompts: int = 9, responses: int = 12) -> World:
    embeddings, linear = linear_world(prompts, responses, 6)
    rewards = linear if rewards is None else rewards.astype(np.float32)
    cut = [4]
    inputs = {
        "embeddings": [write_embeddings(tmp_path / f"e{i}", e) for i, e in enumerate(np.split(embeddings, cut))],
        "scores": [write_scores(tmp_path / f"s{i}", s) for i, s in enumerate(np.split(rewards, cut))],
        "reward_model": tmp_path / "model",
    }
    for name in ("model", "out"):
        (tmp_path / name).mkdir()
    torch.manual_seed(0)
    save_mlp([build_mlp(6, (8,))], 6, (8,), tmp_path / "model")
    return World(embeddings, rewards, inputs, tmp_path / "out")


def mlp_predictions(w: World) -> np.ndarray:
    torch.manual_seed(0)
    return build_mlp(6, (8,))(torch.from_numpy(w.embeddings)).squeeze(-1).detach().numpy()


def test_metrics_equal_their_definitions_written_as_loops(tmp_path: Path) -> None:
    w = world(tmp_path)
    setting = config()
    metrics = evaluate(setting, w.out, **w.inputs)
    assert set(metrics) == set(setting.declared())
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())

    predictions, rewards = mlp_predictions(w), w.rewards.astype(np.float64)
    orders = permutations(setting, 12)
    for size in setting.best_of:
        repeats = []
        for order in orders:
            picked = [order[:size][np.argmax(row[order[:size]])] for row in predictions]
            repeats.append(np.mean([rewards[i, k] for i, k in enumerate(picked)]))
        assert metrics[f"best_of_{size}"] == pytest.approx(np.mean(repeats))
        stored = pq.read_table(w.out / "best_of.parquet").to_pydict()
        assert stored["mean"][stored["n"].index(size)] == pytest.approx(np.mean(repeats))
        assert stored["sd"][stored["n"].index(size)] == pytest.approx(np.std(repeats), abs=1e-12)
    best = predictions.argmax(axis=1)
    picked = rewards[np.arange(9), best]
    assert metrics["mean_golden_reward"] == pytest.approx(rewards.mean())
    assert metrics["improvement"] == pytest.approx(picked.mean() - rewards.mean())
    assert metrics["improvement"] == pytest.approx(metrics["best_of_12"] - metrics["mean_golden_reward"])
    correlations = [spearmanr(*rows).statistic for rows in zip(predictions, rewards, strict=True)]
    assert metrics["spearman"] == pytest.approx(np.mean(correlations))
    assert metrics["quantile"] == pytest.approx(np.mean(rewards <= picked[:, None]))
    for name, pairs in (
        ("pairwise_accuracy", same_prompt_pairs(9, 12, setting)),
        ("pairwise_accuracy_cross", any_pairs(108, setting)),
    ):
        agree = [
            (predictions.flat[a] > predictions.flat[b]) == (rewards.flat[a] > rewards.flat[b])
            for a, b in zip(*pairs, strict=True)
        ]
        assert metrics[name] == pytest.approx(np.mean(agree))


def test_only_small_tables_are_stored(tmp_path: Path) -> None:
    w = world(tmp_path)
    evaluate(config(), w.out, **w.inputs)
    assert sorted(file.name for file in w.out.iterdir()) == ["best_of.parquet", "prompts.parquet"]
    assert pq.read_table(w.out / "best_of.parquet").column_names == ["n", "mean", "sd"]
    prompts = pq.read_table(w.out / "prompts.parquet")
    assert prompts.num_rows == 9
    assert prompts["prompt"].to_pylist() == list(range(9))


@pytest.mark.parametrize("tied", [False, True])
def test_each_metric_that_names_a_column_is_the_mean_of_its_column_over_the_prompts(tmp_path: Path, tied: bool) -> None:
    rewards = 3 + 2 * linear_world(9, 12, 6)[1]
    if tied:
        rewards[2] = 1.5
    w = world(tmp_path, rewards)
    metrics = evaluate(config(), w.out, **w.inputs)
    table = pq.read_table(w.out / "prompts.parquet")
    named = {name: metric.column for name, metric in config().declared().items() if metric.column}
    assert set(named.values()) == set(table.column_names) - {"prompt"}
    for name, column in named.items():
        values = [value for value in table[column].to_pylist() if value is not None]
        assert len(values) == (8 if tied and column == "spearman" else 9)
        assert metrics[name] == pytest.approx(math.fsum(values) / len(values), rel=0, abs=1e-12)


def test_a_perfect_model_has_the_best_metrics_and_its_negative_the_worst(tmp_path: Path) -> None:
    w = world(tmp_path)
    direction = np.linalg.lstsq(w.embeddings.reshape(-1, 6), w.rewards.ravel(), rcond=None)[0]
    values = {}
    for sign in (1, -1):
        network = build_mlp(6, ())
        with torch.no_grad():
            network[0].weight.copy_(torch.from_numpy(sign * direction)[None])
        save_mlp([network], 6, (), w.inputs["reward_model"])
        values[sign] = evaluate(config(), w.out, **w.inputs)
    for name, best, worst in (("spearman", 1, -1), ("quantile", 1, 1 / 12), ("pairwise_accuracy", 1, 0)):
        assert values[1][name] == pytest.approx(best, abs=1e-3)
        assert values[-1][name] == pytest.approx(worst, abs=1e-3)
    assert values[1]["best_of_12"] == pytest.approx(w.rewards.max(axis=1).mean())
    assert values[-1]["best_of_12"] == pytest.approx(w.rewards.min(axis=1).mean())


def test_a_lightgbm_model_is_evaluated_as_well(tmp_path: Path) -> None:
    w = world(tmp_path)
    features, labels = w.embeddings.reshape(-1, 6), w.rewards.ravel() > 0
    save_lightgbm(
        lightgbm.train({"objective": "binary", "verbosity": -1}, lightgbm.Dataset(features, labels), 10),
        w.inputs["reward_model"],
    )
    (w.inputs["reward_model"] / "weights.safetensors").unlink()
    assert evaluate(config(), w.out, **w.inputs)["spearman"] > 0.5


def test_predictions_do_not_depend_on_the_block_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    w = world(tmp_path)
    seen = []

    class Recorder:
        dimension = 6

        def predict(self, features: np.ndarray) -> np.ndarray:
            seen.append(len(features))
            return np.asarray(features, dtype=np.float64).sum(axis=1)

    source = open_embeddings(w.inputs["embeddings"])
    for values in (1, 12 * 6 * 3, 10**9):
        monkeypatch.setattr(module, "BLOCK_VALUES", values)
        (predictions,) = predict([Recorder()], source, "float32")
        np.testing.assert_allclose(predictions, w.embeddings.astype(np.float64).sum(axis=2))
    assert seen == [12] * 9 + [36, 12, 36, 24] + [48, 60]


def test_more_repeats_continue_fewer_and_pairs_are_drawn_by_the_seed() -> None:
    assert np.array_equal(permutations(config(repeats=30), 7)[:20], permutations(config(repeats=20), 7))
    assert np.array_equal(np.sort(permutations(config(), 7), axis=1), np.tile(np.arange(7), (20, 1)))
    assert not np.array_equal(permutations(config(seed=1), 7), permutations(config(), 7))
    left, right = same_prompt_pairs(5, 4, config())
    assert (left != right).all()
    assert (left // 4 == right // 4).all()
    assert set(left) == set(right) == set(range(20))
    left, right = any_pairs(20, config())
    assert (left != right).all()
    assert (left // 4 != right // 4).any()


def test_undefined_correlations_are_dropped_and_stored_as_null(tmp_path: Path) -> None:
    rewards = linear_world(9, 12, 6)[1]
    rewards[2] = 1.5
    w = world(tmp_path, rewards)
    metrics = evaluate(config(), w.out, **w.inputs)
    predictions = mlp_predictions(w)
    defined = [spearmanr(predictions[i], rewards[i]).statistic for i in range(9) if i != 2]
    assert metrics["spearman"] == pytest.approx(np.mean(defined))
    stored = pq.read_table(w.out / "prompts.parquet")["spearman"].to_pylist()
    assert stored[2] is None
    assert stored.count(None) == 1


def test_a_constant_reward_model_has_its_best_of_n_and_an_undefined_spearman(tmp_path: Path) -> None:
    rewards = linear_world(9, 12, 6)[1]
    w = world(tmp_path, rewards)
    network = build_mlp(6, ())
    torch.nn.init.zeros_(network[0].weight)
    save_mlp([network], 6, (), w.inputs["reward_model"])
    metrics = evaluate(config(), w.out, **w.inputs)
    assert metrics.pop("spearman") == Undefined(
        "within each of the 9 test prompts, all predicted or all golden rewards are equal"
    )
    # Of equals the first is chosen, and a tie is half right.
    assert all(isinstance(value, float) for value in metrics.values())
    assert metrics["improvement"] == pytest.approx(rewards[:, 0].mean() - rewards.mean())
    assert metrics["pairwise_accuracy"] == metrics["pairwise_accuracy_cross"] == 0.5
    assert pq.read_table(w.out / "prompts.parquet")["spearman"].null_count == 9


def test_more_candidates_than_responses_are_refused_with_a_remedy(tmp_path: Path) -> None:
    w = world(tmp_path)
    with pytest.raises(
        ValueError, match=r"best_of asks for 13 responses, but each test prompt has 12: drop .* or generate"
    ):
        evaluate(config(best_of=(2, 13)), w.out, **w.inputs)


def test_a_prediction_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    w = world(tmp_path)
    network = build_mlp(6, ())
    torch.nn.init.constant_(network[0].bias, torch.inf)
    save_mlp([network], 6, (), w.inputs["reward_model"])
    with pytest.raises(ValueError, match="model: predicts a reward that is not finite"):
        evaluate(config(), w.out, **w.inputs)


def test_a_reward_model_of_another_embedding_is_refused(tmp_path: Path) -> None:
    w = world(tmp_path)
    save_mlp([build_mlp(7, (8,))], 7, (8,), w.inputs["reward_model"])
    with pytest.raises(ValueError, match=r"dimension 7, but .*e0/embeddings\.npy holds 6"):
        evaluate(config(), w.out, **w.inputs)


def test_scores_of_other_responses_are_refused(tmp_path: Path) -> None:
    w = world(tmp_path)
    write_scores(tmp_path / "s1", w.rewards[:4])
    with pytest.raises(ValueError, match=r"e1/embeddings\.npy holds .* but .*s1/scores\.npy"):
        evaluate(config(), w.out, **w.inputs)


def test_reward_models_evaluated_together_get_what_each_gets_alone(tmp_path: Path) -> None:
    w = world(tmp_path)
    features = w.embeddings.reshape(-1, 6)
    models = {name: tmp_path / name for name in ("small", "several", "trees", "line", "broken")}
    for folder in models.values():
        folder.mkdir()
    save_mlp([build_mlp(6, (8,))], 6, (8,), models["small"])
    save_mlp([build_mlp(6, (16, 8)) for _ in range(3)], 6, (16, 8), models["several"], "min")
    labels = (w.rewards.ravel() > 0).astype(float)
    trees = lightgbm.train(
        {"objective": "binary", "min_data_in_leaf": 5, "verbosity": -1}, lightgbm.Dataset(features, labels), 5
    )
    save_lightgbm(trees, models["trees"])
    save_linear(np.arange(6.0), 0.5, models["line"])
    broken = build_mlp(6, ())
    torch.nn.init.constant_(broken[0].bias, torch.inf)
    save_mlp([broken], 6, (), models["broken"])
    other = config(seed=5, best_of=(3,))
    calls = []
    for number, (name, setting) in enumerate([*((name, config()) for name in models), ("small", other)]):
        (tmp_path / f"together{number}").mkdir()
        calls.append(Call(setting, tmp_path / f"together{number}", w.inputs | {"reward_model": models[name]}))
    together = list(evaluate_all(calls))
    assert together[4] is None
    for number, call in enumerate(calls):
        if number == 4:
            continue
        out = tmp_path / f"alone{number}"
        out.mkdir()
        assert evaluate(call.config, out, **call.inputs) == together[number]
        for file in ("best_of.parquet", "prompts.parquet"):
            assert pq.read_table(out / file).equals(pq.read_table(call.out / file))


def test_bfloat16_changes_the_predictions_little(tmp_path: Path) -> None:
    w = world(tmp_path, prompts=40, responses=50)
    exact, rounded = (evaluate(config(precision=each), w.out, **w.inputs) for each in ("float32", "bfloat16"))
    assert (exact == rounded) == (factor_type("bfloat16") == torch.float32)
    assert rounded["spearman"] == pytest.approx(exact["spearman"], abs=0.01)
    assert rounded["best_of_12"] == pytest.approx(exact["best_of_12"], abs=0.05)

"""Linear reward models: known answers, the definition of what is minimised, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reward_artifacts import linear_world, write_annotations, write_embeddings
from scipy.optimize import minimize
from scipy.special import expit

from workers.reward_models.configs import FitLinearConfig
from workers.reward_models.fit_linear import fit_linear, solve
from workers.reward_models.heads import load_reward_head

EMBEDDINGS, REWARDS = linear_world(200, 4, 5)
FEATURES = EMBEDDINGS.reshape(-1, 5).astype(np.float64)


def config(**fields: Any) -> FitLinearConfig:
    return FitLinearConfig(**({"loss": "bt"} | fields))


def pairs(beta: float = 2.0, count: int = 700) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    one, other = random.integers(REWARDS.size, size=(2, count))
    gap = REWARDS.ravel()[one] - REWARDS.ravel()[other]
    wins = random.random(count) < expit(beta * gap)
    return np.where(wins, one, other), np.where(wins, other, one)


def standardised(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rows.mean(axis=0), rows.std(axis=0)


@pytest.mark.parametrize("method", ["logistic", "ridge"])
@pytest.mark.parametrize("loss", ["bt", "clf"])
def test_the_golden_order_is_learned_and_can_be_loaded(tmp_path: Path, method: str, loss: str) -> None:
    winner, loser = pairs()
    annotations = write_annotations(tmp_path / "a", winner, loser)
    folders = [write_embeddings(tmp_path / f"e{i}", part) for i, part in enumerate(np.split(EMBEDDINGS, [70]))]
    out = tmp_path / "out"
    out.mkdir()
    metrics = fit_linear(config(method=method, loss=loss), out, annotations=annotations, embeddings=folders)
    assert set(metrics) == set(config().declared())
    predicted = load_reward_head(out).predict(EMBEDDINGS.reshape(-1, 5))
    assert np.corrcoef(predicted, REWARDS.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_logistic_minimises_the_sum_of_cross_entropies_and_half_the_penalty_times_the_squared_weights(
    penalty: float,
) -> None:
    winner, loser = pairs()
    winners, losers = FEATURES[winner], FEATURES[loser]
    _, scale = standardised(np.concatenate([winners, losers]))
    differences = (winners - losers) / scale

    def objective(weights: np.ndarray) -> float:
        # Each annotation in both orders, which say the same.
        return float(2 * np.logaddexp(0, -differences @ weights).sum() + penalty / 2 * weights @ weights)

    expected = minimize(objective, np.zeros(5), method="BFGS", options={"gtol": 1e-6}).x / scale
    weights, bias, loss = solve(winners, losers, config(penalty=penalty))
    assert weights == pytest.approx(expected, rel=1e-3)
    assert bias == 0
    assert loss == pytest.approx(np.logaddexp(0, -(winners - losers) @ weights).mean())


@pytest.mark.parametrize("loss", ["bt", "clf"])
def test_ridge_solves_the_normal_equations(loss: str) -> None:
    winner, loser = pairs()
    winners, losers = FEATURES[winner], FEATURES[loser]
    centre, scale = standardised(np.concatenate([winners, losers]))
    targets = np.repeat([1.0, -1.0], len(winners))
    if loss == "bt":
        rows = np.concatenate([winners - losers, losers - winners]) / scale
    else:
        rows = (np.concatenate([winners, losers]) - centre) / scale
    expected = np.linalg.solve(rows.T @ rows + 3.0 * np.eye(5), rows.T @ targets) / scale
    weights, bias, train_loss = solve(winners, losers, config(method="ridge", loss=loss, penalty=3.0))
    assert weights == pytest.approx(expected, rel=1e-9)
    # Standardised rows and balanced targets have mean 0, so that the bias only undoes the centring.
    assert bias == pytest.approx(0.0 if loss == "bt" else -expected @ centre, abs=1e-12)
    assert train_loss == pytest.approx(((rows @ (expected * scale) - targets) ** 2).mean())


def test_the_units_of_a_feature_do_not_matter() -> None:
    winner, loser = pairs()
    units = np.array([1.0, 1e-3, 1e3, 10.0, 0.5])
    for each in (config(), config(method="ridge"), config(loss="clf")):
        plain, *_ = solve(FEATURES[winner], FEATURES[loser], each)
        scaled, *_ = solve(FEATURES[winner] * units, FEATURES[loser] * units, each)
        assert scaled * units == pytest.approx(plain, rel=1e-4)


def test_a_feature_that_never_changes_is_harmless_and_embeddings_that_never_change_are_refused() -> None:
    winner, loser = pairs()
    features = FEATURES.copy()
    features[:, 2] = 7.0
    weights, *_ = solve(features[winner], features[loser], config())
    assert weights[2] == 0
    with pytest.raises(ValueError, match="all embeddings of the annotated responses are the same"):
        solve(np.ones((4, 3)), np.ones((4, 3)), config())


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    winner, loser = pairs()
    annotations = write_annotations(tmp_path / "a", winner, loser)
    fit_linear(config(), tmp_path, annotations=annotations, embeddings=[write_embeddings(tmp_path / "e", EMBEDDINGS)])
    file = tmp_path / "linear.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"linear\.npz: not the weights of a linear reward"):
        load_reward_head(tmp_path)
    np.savez(file, weights=np.ones(4), bias=0.0)
    with pytest.raises(ValueError, match=r"linear\.npz: weights of shape \(4,\)"):
        load_reward_head(tmp_path)

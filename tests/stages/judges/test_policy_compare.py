"""A policy against its start: golden reward, wins, and wins at equal length."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reward_artifacts import write_scores
from scipy.optimize import minimize

from workers.judges.configs import PolicyCompareConfig
from workers.judges.policy_compare import INVERSE_PENALTY, length_controlled_win_rate, policy_compare
from workers.tables import COMPARED_PROMPTS

Write = Callable[[list[list[str]]], Path]

TEXTS = [[" aaaa", " bb"], [" c", " dddddd"]]
START = [[" a", " b\n\nHuman: not counted"], [" cc", " dd"]]
REWARDS = np.array([[1.0, 2.0], [3.0, 4.0]])
START_REWARDS = np.array([[0.0, 2.0], [4.0, 1.0]])


@pytest.fixture
def inputs(tmp_path: Path, tiny_write_responses: Write) -> dict[str, list[Path]]:
    return {
        "responses": [tiny_write_responses(TEXTS)],
        "scores": [write_scores(tmp_path / "s", REWARDS)],
        "start_responses": [tiny_write_responses(START)],
        "start_scores": [write_scores(tmp_path / "t", START_REWARDS)],
    }


def test_response_i_is_compared_with_response_i_and_a_tie_is_half_a_win(
    tmp_path: Path, inputs: dict[str, list[Path]]
) -> None:
    config = PolicyCompareConfig()
    metrics = policy_compare(config, tmp_path, **inputs)
    assert set(metrics) == set(config.declared())
    assert metrics["golden_reward"] == 2.5
    assert metrics["start_golden_reward"] == 1.75
    assert metrics["win_rate"] == 2.5 / 4
    assert metrics["mean_length"] == (5 + 3 + 2 + 7) / 4
    assert metrics["start_mean_length"] == (2 + 2 + 3 + 3) / 4
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert (found["pairs"], found["wins"], found["ties"]) == (4, 2, 1)
    rate, coefficients = length_controlled_win_rate(np.array([1, 0.5, 0, 1]), np.array([3.0, 1.0, -1.0, 4.0]))
    assert metrics["length_controlled_win_rate"] == rate
    assert (found["theta"], found["phi"]) == (coefficients["theta"], coefficients["phi"])


def test_each_metric_that_names_a_column_is_the_mean_over_the_prompts_of_the_comparison(
    tmp_path: Path, inputs: dict[str, list[Path]]
) -> None:
    metrics = policy_compare(PolicyCompareConfig(), tmp_path, **inputs)
    rows = COMPARED_PROMPTS.read(tmp_path).to_pydict()
    assert len(set(rows["prompt"])) == 2
    assert rows["win_rate"] == [0.75, 0.5]
    assert rows["mean_length"] == [4, 4.5]
    declared = PolicyCompareConfig().declared()
    named = {name: metric.column for name, metric in declared.items() if metric.column}
    assert set(named.values()) == set(rows) - {"prompt"}
    for name, column in named.items():
        assert metrics[name] == pytest.approx(math.fsum(rows[column]) / 2, rel=0, abs=1e-12)


def test_a_policy_against_itself_wins_half(tmp_path: Path, inputs: dict[str, list[Path]]) -> None:
    same = inputs | {"start_responses": inputs["responses"], "start_scores": inputs["scores"]}
    metrics = policy_compare(PolicyCompareConfig(), tmp_path, **same)
    assert metrics["win_rate"] == 0.5
    assert metrics["length_controlled_win_rate"] == pytest.approx(0.5)
    assert metrics["golden_reward"] == metrics["start_golden_reward"]


def test_shards_are_read_as_one(tmp_path: Path, inputs: dict[str, list[Path]], tiny_write_responses: Write) -> None:
    whole = policy_compare(PolicyCompareConfig(), tmp_path, **inputs)
    # The two prompts of `tiny_write_responses` begin anew in every shard, hence both policies are cut.
    cut = {
        "responses": [tiny_write_responses([row]) for row in TEXTS],
        "scores": [write_scores(tmp_path / f"s{i}", REWARDS[i : i + 1]) for i in range(2)],
        "start_responses": [tiny_write_responses([row]) for row in START],
        "start_scores": [write_scores(tmp_path / f"t{i}", START_REWARDS[i : i + 1]) for i in range(2)],
    }
    assert policy_compare(PolicyCompareConfig(), tmp_path, **cut) == whole


def test_other_prompts_or_scores_are_refused(
    tmp_path: Path, inputs: dict[str, list[Path]], tiny_write_responses: Write
) -> None:
    fewer = {
        "start_responses": [tiny_write_responses([[" a"], [" b"]])],
        "start_scores": [write_scores(tmp_path / "u", np.zeros((2, 1)))],
    }
    with pytest.raises(ValueError, match=r"do not answer the same prompts equally often \(2 x 2 and 2 x 1 responses\)"):
        policy_compare(PolicyCompareConfig(), tmp_path, **(inputs | fewer))
    with pytest.raises(ValueError, match=r"scores of \(prompts, responses\) \(2, 1\), but .* has \(2, 2\)"):
        policy_compare(PolicyCompareConfig(), tmp_path, **(inputs | {"scores": fewer["start_scores"]}))


def objective(weights: Any, wins: Any, difference: Any) -> float:
    """The definition: cross-entropy of (half) wins and a ridge, row by row."""
    theta, phi = weights
    deviation = np.std(difference, ddof=1)
    loss = 0.5 * (theta**2 + phi**2) / INVERSE_PENALTY
    for win, length in zip(wins, difference, strict=True):
        probability = 1 / (1 + math.exp(-(theta + phi * math.tanh(length / deviation))))
        loss -= win * math.log(probability) + (1 - win) * math.log(1 - probability)
    return float(loss)


def test_the_length_controlled_win_rate_is_the_minimum_of_its_definition() -> None:
    random = np.random.default_rng(0)
    difference = random.normal(40, 60, 80)
    wins = np.where(random.random(80) < 0.1, 0.5, random.random(80) < 1 / (1 + np.exp(-difference / 50)))
    rate, found = length_controlled_win_rate(wins, difference)
    best = minimize(objective, [0.0, 0.0], (wins, difference), tol=1e-10).x
    assert [found["theta"], found["phi"]] == pytest.approx(best.tolist(), abs=1e-4)
    assert rate == pytest.approx(1 / (1 + math.exp(-best[0])), abs=1e-5)


def test_wins_that_come_from_length_alone_are_taken_away_and_others_stay() -> None:
    random = np.random.default_rng(1)
    difference = random.normal(60, 60, 4000)
    relative = np.tanh(difference / difference.std(ddof=1))
    for theta in (0.0, 0.8):
        wins = (random.random(4000) < 1 / (1 + np.exp(-theta - 2 * relative))).astype(float)
        rate, found = length_controlled_win_rate(wins, difference)
        assert wins.mean() > rate + 0.08
        assert rate == pytest.approx(1 / (1 + math.exp(-theta)), abs=0.03)
        assert found["phi"] == pytest.approx(2, abs=0.25)


@pytest.mark.parametrize(("count", "expected"), [(10, 0.9947), (100, 0.9993)])
def test_a_policy_that_always_wins_has_a_finite_rate_short_of_one(count: int, expected: float) -> None:
    rate, _ = length_controlled_win_rate(np.ones(count), np.zeros(count))
    assert rate == pytest.approx(expected, abs=1e-4)
    assert length_controlled_win_rate(np.zeros(count), np.zeros(count))[0] == pytest.approx(1 - rate)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(-500, 500)), min_size=1, max_size=30))
def test_it_is_finite_whatever_separates_the_pairs_and_turns_with_the_sides(rows: list[tuple[float, int]]) -> None:
    wins, difference = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    rate, _ = length_controlled_win_rate(wins, difference)
    assert 0 < rate < 1
    assert length_controlled_win_rate(1 - wins, -difference)[0] == pytest.approx(1 - rate, abs=1e-6)

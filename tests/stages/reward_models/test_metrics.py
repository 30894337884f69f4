from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.stats import ConstantInputWarning, rankdata, spearmanr

from workers.reward_models.metrics import best_of_n, chosen, pairwise_accuracy, quantile, spearman

Floats = NDArray[np.float64]

#: Few distinct values, so that ties are the rule.
tied = st.integers(-3, 3).map(float)


@st.composite
def predictions_and_rewards(draw: st.DrawFn, least: int = 1) -> tuple[Floats, Floats]:
    shape = draw(st.tuples(st.integers(1, 5), st.integers(least, 9)))
    return draw(hnp.arrays(np.float64, shape, elements=tied)), draw(hnp.arrays(np.float64, shape, elements=tied))


def literal_best_of_n(
    predictions: Floats, rewards: Floats, sizes: list[int], permutations: NDArray[np.int64]
) -> Floats:
    """The loops of the released `step6_eval_rms.py`."""
    table = []
    for permutation in permutations:
        row = []
        for size in sizes:
            candidates = permutation[:size]
            total = 0.0
            for prompt in range(len(predictions)):
                best = candidates[0]
                for candidate in candidates:
                    if predictions[prompt][candidate] > predictions[prompt][best]:
                        best = candidate
                total += rewards[prompt][best]
            row.append(total / len(predictions))
        table.append(row)
    return np.array(table)


def shuffles(repeats: int, responses: int, seed: int = 0) -> NDArray[np.int64]:
    random = np.random.default_rng(seed)
    return np.stack([random.permutation(responses) for _ in range(repeats)])


def test_best_of_n_equals_a_hundred_permutations_of_literal_loops() -> None:
    random = np.random.default_rng(1)
    predictions = random.integers(0, 6, size=(7, 30)).astype(np.float32)
    rewards = random.standard_normal((7, 30))
    sizes, permutations = [2, 5, 10, 30], shuffles(100, 30)
    fast = best_of_n(predictions, rewards, sizes, permutations)
    np.testing.assert_allclose(fast, literal_best_of_n(predictions, rewards, sizes, permutations), atol=1e-12)


@given(data=predictions_and_rewards(), seed=st.integers(0, 99))
def test_best_of_n_equals_the_literal_loops_also_with_ties(data: tuple[Floats, Floats], seed: int) -> None:
    permutations = shuffles(3, data[0].shape[1], seed)
    sizes = [*range(data[0].shape[1], 0, -1), 1]
    fast = best_of_n(*data, sizes, permutations)
    np.testing.assert_allclose(fast, literal_best_of_n(*data, sizes, permutations), atol=1e-12)


@given(data=predictions_and_rewards())
def test_a_perfect_model_never_loses_by_more_candidates(data: tuple[Floats, Floats]) -> None:
    rewards = data[1]
    sizes = list(range(1, rewards.shape[1] + 1))
    table = best_of_n(rewards, rewards, sizes, shuffles(4, rewards.shape[1]))
    assert (np.diff(table, axis=1) >= 0).all()
    np.testing.assert_allclose(table[:, -1], rewards.max(axis=1).mean())


@given(data=predictions_and_rewards(), shift=st.floats(-5, 5), scale=st.floats(0.1, 9))
def test_only_the_order_of_predictions_matters(data: tuple[Floats, Floats], shift: float, scale: float) -> None:
    predictions, rewards = data
    permutations = shuffles(2, rewards.shape[1])
    sizes = [1, rewards.shape[1]]
    moved = np.exp(predictions * scale) + shift * 1e-3
    assert np.array_equal(
        best_of_n(predictions, rewards, sizes, permutations), best_of_n(moved, rewards, sizes, permutations)
    )
    assert np.array_equal(quantile(predictions, rewards), quantile(moved, rewards))


@given(data=predictions_and_rewards(), seed=st.integers(0, 99))
def test_the_order_of_prompts_does_not_matter(data: tuple[Floats, Floats], seed: int) -> None:
    predictions, rewards = data
    order = np.random.default_rng(seed).permutation(len(rewards))
    permutations = shuffles(2, rewards.shape[1])
    np.testing.assert_allclose(
        best_of_n(predictions, rewards, [1], permutations),
        best_of_n(predictions[order], rewards[order], [1], permutations),
    )
    assert np.array_equal(
        spearman(predictions, rewards)[order], spearman(predictions[order], rewards[order]), equal_nan=True
    )


def test_sizes_that_cannot_be_taken_are_refused() -> None:
    values = np.zeros((2, 4))
    for sizes in ([5], [0, 2]):
        with pytest.raises(ValueError, match="between 1 and the 4 responses"):
            best_of_n(values, values, sizes, shuffles(1, 4))


@settings(deadline=None)
@given(data=predictions_and_rewards(least=2))
def test_spearman_equals_scipy_with_ties_and_is_undefined_where_scipy_is(data: tuple[Floats, Floats]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        expected = [spearmanr(one, other).statistic for one, other in zip(*data, strict=True)]
    np.testing.assert_allclose(spearman(*data), expected, atol=1e-12)


def test_spearman_equals_scipy_on_long_rows() -> None:
    random = np.random.default_rng(2)
    predictions = random.standard_normal((20, 500)).astype(np.float32)
    rewards = np.round(predictions + random.standard_normal((20, 500)), 1)
    expected = [spearmanr(one, other).statistic for one, other in zip(predictions, rewards, strict=True)]
    np.testing.assert_allclose(spearman(predictions, rewards), expected, atol=1e-12)


@given(data=predictions_and_rewards(least=2))
def test_spearman_is_symmetric_bounded_and_blind_to_the_order_of_responses(data: tuple[Floats, Floats]) -> None:
    value = spearman(*data)
    defined = value[np.isfinite(value)]
    assert ((defined >= -1) & (defined <= 1)).all()
    assert np.array_equal(value, spearman(data[1], data[0]), equal_nan=True)
    order = np.random.default_rng(0).permutation(data[0].shape[1])
    np.testing.assert_allclose(value, spearman(data[0][:, order], data[1][:, order]), atol=1e-12)


def test_a_single_response_has_no_spearman() -> None:
    assert np.isnan(spearman(np.ones((3, 1)), np.ones((3, 1)))).all()


@given(data=predictions_and_rewards())
def test_the_quantile_is_the_share_of_rewards_at_most_the_chosen(data: tuple[Floats, Floats]) -> None:
    predictions, rewards = data
    for row, value in enumerate(quantile(predictions, rewards)):
        best = int(np.argmax(predictions[row]))
        assert chosen(predictions)[row] == best
        assert value == pytest.approx(rankdata(rewards[row], "max")[best] / len(rewards[row]))


def test_pairwise_accuracy_drops_golden_ties_and_halves_predicted_ties() -> None:
    rewards = np.array([[0.0, 1.0, 1.0], [2.0, 3.0, 4.0]])
    predictions = np.array([[0.0, 1.0, 5.0], [7.0, 7.0, 6.0]])
    left, right = np.array([0, 1, 3, 5]), np.array([1, 2, 4, 3])  # right, golden tie, predicted tie, wrong
    assert pairwise_accuracy(predictions, rewards, left, right) == pytest.approx((1 + 0.5 + 0) / 3)
    with pytest.raises(ValueError, match="undefined"):
        pairwise_accuracy(predictions, rewards, left[1:2], right[1:2])


@given(data=predictions_and_rewards(least=2))
def test_swapping_both_sides_keeps_and_negating_predictions_mirrors_the_accuracy(data: tuple[Floats, Floats]) -> None:
    predictions, rewards = data
    left, right = np.triu_indices(rewards.size, 1)
    if (rewards == rewards.ravel()[0]).all():
        return
    accuracy = pairwise_accuracy(predictions, rewards, left, right)
    assert pairwise_accuracy(predictions, rewards, right, left) == pytest.approx(accuracy)
    assert pairwise_accuracy(-predictions, rewards, left, right) == pytest.approx(1 - accuracy)

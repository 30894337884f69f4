"""Contrasts from all available pairs: against least squares with a dummy for every interaction, and odd gaps."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, fisher_exact

from orchestrator.statistics.available import Available, available

Cells = tuple[NDArray[np.float64], NDArray[np.bool_]]


@st.composite
def gaps(draw: st.DrawFn, arms: tuple[int, int] = (1, 4)) -> Cells:
    """Values (seeds, combinations, arms) with NaN where nothing is there, and where something is."""
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 6)), draw(st.integers(*arms)))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    there = random.random(shape) > draw(st.sampled_from([0.05, 0.2, 0.4, 0.6]))
    return np.where(there, random.standard_normal(shape), np.nan), there


def dummies(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The design (cells, parameters) with a column for every (s, b), (b, k) and (s, k)."""
    columns = []
    for pair in ((0, 1), (1, 2), (0, 2)):
        for chosen in product(*(range(shape[axis]) for axis in pair)):
            column = np.zeros(shape)
            place: list[slice | int] = [slice(None)] * 3
            for axis, index in zip(pair, chosen, strict=True):
                place[axis] = index
            column[tuple(place)] = 1
            columns.append(column.ravel())
    return np.array(columns).T


def least_squares(values: NDArray[np.float64], there: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What is there, and what ordinary least squares with all dummies expects elsewhere."""
    design, known = dummies(there.shape), there.ravel()
    fitted = design @ np.linalg.lstsq(design[known], values.ravel()[known], rcond=1e-9)[0]
    return np.where(there, values, fitted.reshape(there.shape))


def used(found: Available, array: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.asarray(array[np.ix_(found.seeds, found.combinations)])


def contrasts(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values - values.mean(axis=2, keepdims=True))


@given(gaps())
@settings(max_examples=150)
def test_contrasts_are_those_of_least_squares_with_a_dummy_for_every_interaction(cells: Cells) -> None:
    values, there = cells
    found = available(values, there)
    kept, known = used(found, values), used(found, there) > 0
    assert found.values.shape == kept.shape
    assert np.array_equal(found.values[known], kept[known])
    if kept.size:
        # The design has many solutions: that this one and ours agree shows that contrasts can be estimated.
        assert contrasts(found.values) == pytest.approx(contrasts(least_squares(kept, known)), abs=1e-9)


def can_be_estimated(there: NDArray[np.bool_]) -> bool:
    design = dummies(there.shape)
    _, sizes, rows = np.linalg.svd(design[there.ravel()])
    free = (design @ rows[int((sizes > 1e-9).sum()) :].T).reshape(*there.shape, -1)
    return bool(np.abs(contrasts(free)).max(initial=0.0) < 1e-8)


@pytest.mark.parametrize("luck", range(25))
def test_no_choice_of_seeds_and_combinations_keeps_more_cells(luck: int) -> None:
    random = np.random.default_rng(luck)
    there = random.random((3, 4, random.integers(2, 4))) > 0.4
    found = available(np.zeros(there.shape), there)
    choices = [
        there[np.ix_(seeds, combinations)]
        for seeds in product((False, True), repeat=3)
        for combinations in product((False, True), repeat=4)
    ]
    best = max((int(each.sum()) for each in choices if each.any() and can_be_estimated(each)), default=0)
    assert used(found, there).sum() == best


@given(gaps())
def test_a_constant_that_all_cells_of_a_pair_share_moves_no_contrast(cells: Cells) -> None:
    values, there = cells
    shared = np.random.default_rng(1).standard_normal(there.shape[:2])
    before, after = available(values, there), available(values + 10 * shared[..., np.newaxis], there)
    assert np.array_equal(before.seeds, after.seeds)
    if there.shape[2] > 1:
        assert contrasts(after.values) == pytest.approx(contrasts(before.values), abs=1e-9)


@given(gaps(arms=(3, 3)))
def test_the_differences_among_three_arms_add_up(cells: Cells) -> None:
    found = available(*cells).values
    first, second, third = (found if found.size else np.zeros((1, 1, 3))).mean(axis=1).T
    assert (first - second) + (second - third) == pytest.approx(first - third, abs=1e-9)


@given(gaps())
def test_seeds_and_combinations_may_change_places(cells: Cells) -> None:
    values, there = cells
    found, other = available(values, there), available(values.swapaxes(0, 1), there.swapaxes(0, 1))
    assert used(found, there).sum() == used(other, there.swapaxes(0, 1)).sum()
    # Of parts that are as large as each other, either may be used.
    if np.array_equal(found.seeds, other.combinations) and np.array_equal(found.combinations, other.seeds):
        assert found.values == pytest.approx(other.values.swapaxes(0, 1), abs=1e-9)


def test_a_complete_array_is_not_changed_by_a_bit() -> None:
    values = np.random.default_rng(0).standard_normal((3, 5, 2, 4))
    found = available(values, np.ones((3, 5, 2), np.bool_))
    assert found.values is values
    assert (found.seeds.all(), found.combinations.all()) == (True, True)
    assert (found.cells, found.missing, found.missing_by_arm, found.filled, found.p) == (30, 0, (0, 0), 0, None)


def test_prompts_are_filled_in_as_each_would_be_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    there = random.random((4, 6, 3)) > 0.3
    there[2, 3] = False
    values = np.where(there[..., np.newaxis], random.standard_normal((4, 6, 3, 7)), np.nan)
    before = values.copy()
    whole = available(values, there)
    monkeypatch.setattr("orchestrator.statistics.available._AT_ONCE", 150)
    found = available(values, there)
    assert np.array_equal(values, before, equal_nan=True)
    assert found.values == pytest.approx(whole.values, abs=1e-12)
    for prompt in range(7):
        assert found.values[..., prompt] == pytest.approx(available(values[..., prompt], there).values, abs=1e-9)


def test_where_a_tenth_is_missing_nine_tenths_of_the_pairs_are_not_given_up() -> None:
    random = np.random.default_rng(7)
    truth = random.standard_normal((5, 40, 1)) + random.standard_normal((5, 1, 2)) + random.standard_normal((40, 2))
    there = random.random((5, 40, 2)) > 0.1
    found = available(np.where(there, truth, np.nan), there)
    assert (found.seeds.all(), found.combinations.all()) == (True, True)
    assert found.values == pytest.approx(truth, abs=1e-9)


def test_a_combination_without_pairs_and_a_seed_without_an_arm_are_not_used() -> None:
    there = np.ones((4, 5, 2), np.bool_)
    there[3, :, 1] = False  # the second arm has not begun in the last seed
    there[:, 2, 0] = False  # the first is excluded there
    there[:, 4] = np.array([(True, False), (False, True), (True, False), (True, True)])  # no pair but in the last seed
    found = available(np.zeros(there.shape), there)
    assert found.seeds.tolist() == [True, True, True, False]
    assert found.combinations.tolist() == [True, True, False, True, False]
    assert (found.cells, found.missing, found.missing_by_arm) == (40, 11, (5, 6))


def test_of_parts_that_nothing_ties_together_the_larger_is_used() -> None:
    there = np.zeros((4, 7, 2), np.bool_)
    there[:2, :3], there[2:, 3:] = True, True
    found = available(np.zeros(there.shape), there)
    assert found.seeds.tolist() == [False, False, True, True]
    assert found.combinations.tolist() == [False] * 3 + [True] * 4
    there[0, 6] = True
    assert available(np.zeros(there.shape), there).seeds.all()


@pytest.mark.parametrize("shape", [(3, 4, 2), (1, 1, 1), (0, 3, 2), (2, 0, 2)])
def test_where_nothing_is_there_nothing_is_used(shape: tuple[int, ...]) -> None:
    found = available(np.full(shape, np.nan), np.zeros(shape, np.bool_))
    assert found.values.size == 0
    assert (found.missing, found.cells, found.p) == (np.prod(shape), np.prod(shape), None)


def test_an_arm_without_a_cell_leaves_nothing_to_compare() -> None:
    there = np.ones((3, 4, 2), np.bool_)
    there[:, :, 1] = False
    found = available(np.zeros(there.shape), there)
    assert (found.seeds.any(), found.missing_by_arm) == (False, (0, 12))


def test_a_pair_of_no_cell_does_not_drag_the_level_of_an_arm() -> None:
    hard = 10.0 * np.arange(4)[:, np.newaxis]
    truth = 100 + np.array([0.0, 3.0, 5.0])[:, np.newaxis, np.newaxis] + hard + np.array([1.0, 2.0])
    there = np.ones(truth.shape, np.bool_)
    there[2, 3] = there[0, 0] = False
    found = available(np.where(there, truth, np.nan), there)
    assert found.values.mean(axis=(0, 1)) == pytest.approx(truth.mean(axis=(0, 1)))
    assert found.values == pytest.approx(truth)


def test_the_level_of_a_single_arm_is_that_of_seeds_and_combinations_that_add_up() -> None:
    random = np.random.default_rng(2)
    truth = random.standard_normal((4, 1, 1)) + 10 * random.standard_normal((6, 1))
    there = random.random(truth.shape) > 0.3
    assert there.any(axis=(0, 2)).all()
    found = available(np.where(there, truth, np.nan), there)
    assert found.values == pytest.approx(truth)
    assert (found.values.shape, found.p) == (truth.shape, None)


@pytest.mark.parametrize("arms", [2, 3])
def test_it_is_tested_whether_missing_depends_on_the_arm(arms: int) -> None:
    there = np.ones((5, 10, arms), np.bool_)
    there[:3, :3, 0] = False
    counts = np.array([[9, *[0] * (arms - 1)], [41, *[50] * (arms - 1)]])
    literal = fisher_exact(counts) if arms == 2 else chi2_contingency(counts)
    found = available(np.zeros(there.shape), there)
    assert found.p == pytest.approx(literal.pvalue)
    assert found.p is not None
    assert found.p < 0.01


def test_what_the_sweep_excludes_is_not_missing() -> None:
    there = np.ones((3, 4, 3), np.bool_)
    there[:, 0, 0] = there[0, 1, 1] = False
    meant = there.copy()
    meant[0, 1, 1] = True
    found = available(np.zeros(there.shape), there, meant)
    assert (found.cells, found.missing, found.missing_by_arm) == (33, 1, (0, 1, 0))
    assert (found.combinations.tolist(), found.filled) == ([False, True, True, True], 1)
    meant[:] = False
    meant[:, :, 0] = True
    assert available(np.zeros(there.shape), meant, meant).p is None


def test_a_number_that_is_there_must_be_finite_and_the_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match="not finite"):
        available(np.full((2, 2, 2), np.nan), np.ones((2, 2, 2), np.bool_))
    with pytest.raises(ValueError, match="seeds, combinations, arms"):
        available(np.zeros((2, 2)), np.ones((2, 2, 2), np.bool_))

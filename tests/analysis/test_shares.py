"""Shares of variance: known answers, sums that add up, and statsmodels beside the closed form."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.formula.api import ols
from statsmodels.stats.anova import AnovaRM, anova_lm

from orchestrator.statistics.shares import repeated_measures_f, shares

#: y[a][b][replicate].
KNOWN = np.array([[(1, 2), (3, 5)], [(2, 2), (6, 9)]])


def test_two_axes_with_replicates_have_the_known_shares() -> None:
    found = shares(KNOWN, ("a", "b", "replicate"), residual=("replicate",))
    assert [each.axes for each in found] == [("b",), ("a",), ("replicate",), ("a", "b")]
    assert [each.sum_of_squares for each in found] == pytest.approx([32, 8, 7, 4.5])
    assert [100 * each.share for each in found] == pytest.approx([62.14, 15.53, 13.59, 8.74], abs=0.005)
    assert [each.df for each in found] == [1, 1, 4, 1]
    assert found[0].omega_squared == pytest.approx(0.56808, abs=5e-6)
    assert found[1].omega_squared == pytest.approx(0.11737, abs=5e-6)
    assert found[2].omega_squared is None
    assert found[3].omega_squared == pytest.approx(0.05164, abs=5e-6)


def test_without_a_residual_every_set_of_axes_has_its_share() -> None:
    found = shares(KNOWN, ("a", "b", "replicate"))
    assert {each.axes: each.sum_of_squares for each in found} == pytest.approx(
        {("a",): 8, ("b",): 32, ("replicate",): 4.5, ("a", "b"): 4.5, ("a", "replicate"): 0,
         ("b", "replicate"): 2, ("a", "b", "replicate"): 0.5}
    )  # fmt: skip
    assert {each.omega_squared for each in found} == {None}


def test_the_interaction_of_the_highest_order_may_be_the_residual() -> None:
    values = np.random.default_rng(0).standard_normal((3, 4))
    frame = pd.DataFrame({"a": np.repeat(range(3), 4), "b": np.tile(range(4), 3), "value": values.ravel()})
    literal = anova_lm(ols("value ~ C(a) + C(b)", frame).fit())
    found = {each.axes: each for each in shares(values, ("a", "b"), residual=("a", "b"))}
    assert [found[name].sum_of_squares for name in (("a",), ("b",), ("a", "b"))] == pytest.approx(
        literal["sum_sq"].tolist()
    )
    assert [found[name].df for name in (("a",), ("b",), ("a", "b"))] == literal["df"].tolist()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 10**6), st.sampled_from([0.0, 1e3, -1e-9]))
def test_shares_add_up_to_exactly_one_the_largest_first(shape: list[int], luck: int, level: float) -> None:
    random = np.random.default_rng(luck)
    values = level + random.standard_normal(shape) ** 3
    axes = "abcde"[: len(shape)]
    found = shares(values, axes, residual=axes[: random.integers(0, 2)])
    assert all(0 <= each.share <= 1 for each in found)
    assert [each.share for each in found] == sorted((each.share for each in found), reverse=True)
    if values.size > 1:
        assert math.fsum(each.share for each in found) == 1.0
        assert sum(each.df for each in found) == values.size - 1
    else:
        assert found == []


@pytest.mark.parametrize("value", [0.0, 0.1, -7e30])
def test_where_all_values_are_the_same_up_to_rounding_there_are_no_shares(value: float) -> None:
    values = value * (1 + 1e-15 * np.random.default_rng(0).standard_normal((3, 4, 2)))
    assert shares(values, ("a", "b", "seed")) == []


def test_seven_axes_of_a_large_sweep_have_as_many_shares_as_sets_of_axes() -> None:
    shape = (3, 4, 3, 4, 3, 6, 5)
    values = np.random.default_rng(0).standard_normal(shape) + 10 * np.arange(5)
    found = shares(values, "abcdefg")
    assert values.size == 12_960
    assert (len(found), found[0].axes) == (127, ("g",))


def test_an_axis_that_is_not_there_is_no_residual() -> None:
    with pytest.raises(ValueError, match="seed is none of the axes a, b"):
        shares(np.eye(3), ("a", "b"), residual=("seed",))


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_missing_value_has_no_shares(wrong: float) -> None:
    with pytest.raises(ValueError, match="a finite value at every combination"):
        shares(np.array([[1.0, wrong], [2.0, 3.0]]), ("a", "b"))


@pytest.mark.parametrize("shape", [(2, 2), (5, 3), (4, 6)])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_the_f_of_repeated_measures_is_that_of_statsmodels(shape: tuple[int, int], level: float) -> None:
    random = np.random.default_rng(0)
    values = level + random.standard_normal(shape) + random.standard_normal((shape[0], 1))
    seed, place = (each.ravel() for each in np.indices(shape))
    frame = pd.DataFrame({"value": values.ravel(), "seed": seed, "place": place})
    literal = AnovaRM(frame, "value", "seed", within=["place"]).fit().anova_table["F Value"].iloc[0]
    assert repeated_measures_f(values) == pytest.approx(literal, rel=1e-12)


def test_the_f_of_repeated_measures_of_hundreds_of_seeds_and_values_takes_no_more_memory_than_they_do() -> None:
    values = np.random.default_rng(0).standard_normal((100, 500))
    assert 0.5 < repeated_measures_f(values) < 2

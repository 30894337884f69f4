"""Seeds, prompts and policies as crossed random factors: known answers, slow restatements, odd arrays."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as t_distribution
from scipy.stats import ttest_1samp
from statsmodels.stats.weightstats import ttost_paired

from orchestrator.statistics.crossed import crossed
from orchestrator.statistics.sums_of_squares import sums_of_squares

#: Three seeds by four prompts, of which lme4 1.1-31 with lmerTest 3.1-3 says the same.
KNOWN = np.array([(0.3, 0.5, 0.1, 0.4), (0.6, 0.7, 0.2, 0.8), (0.2, 0.5, 0.0, 0.1)])
TOST = np.array([0.01, -0.02, 0.03, 0, 0.01])


def test_seeds_by_prompts_have_the_interval_of_the_mixed_model() -> None:
    found = crossed(KNOWN, ("seed", "prompt"))
    assert found.components == pytest.approx(
        {("seed",): 0.0327778, ("prompt",): 0.0336111, ("seed", "prompt"): 0.0147222}, abs=5e-8
    )
    assert (found.all.mean, found.all.error, found.all.df) == pytest.approx((0.3666667, 0.1433721, 4.02388), abs=5e-6)
    assert (found.all.low, found.all.high) == pytest.approx((-0.030468, 0.763814), abs=2e-5)
    seeds, prompts = found.fixed["seed"], found.fixed["prompt"]
    assert (seeds.error, seeds.high - seeds.mean, prompts.error) == pytest.approx((0.1102396, 0.474323, 0.0981307))


def test_where_one_factor_is_drawn_anew_the_test_is_the_t_over_its_means() -> None:
    found = crossed(KNOWN, ("seed", "prompt"))
    for name, means in (("seed", KNOWN.mean(axis=1)), ("prompt", KNOWN.mean(axis=0))):
        literal, each = ttest_1samp(means, 0), found.fixed[name]
        ends = literal.confidence_interval(0.95)
        assert each.df == literal.df
        assert (each.p, each.low, each.high) == pytest.approx((literal.pvalue, ends.low, ends.high))
        assert each.p_greater == pytest.approx(ttest_1samp(means, 0, alternative="greater").pvalue)
        assert each.p_less == pytest.approx(ttest_1samp(means, 0, alternative="less").pvalue)


def test_one_factor_alone_is_the_plain_t() -> None:
    found = crossed(TOST, ("seed",))
    assert found.all == found.fixed["seed"]
    assert found.all.p == pytest.approx(ttest_1samp(TOST, 0).pvalue)
    assert found.components == pytest.approx({("seed",): TOST.var(ddof=1)})


def test_equivalence_is_two_one_sided_tests() -> None:
    found = crossed(TOST, ("seed",)).all
    assert found.p_above(-0.05) == pytest.approx(0.0011611, abs=5e-8)
    assert found.p_below(0.05) == pytest.approx(0.0028159, abs=5e-8)
    assert max(found.p_above(-0.05) or 0, found.p_below(0.05) or 0) == pytest.approx(
        ttost_paired(TOST, np.zeros(5), -0.05, 0.05)[0]
    )
    narrower = found.at(0.9)
    assert (narrower.low, narrower.high) == pytest.approx((-0.011319, 0.023319), abs=5e-7)
    assert narrower.at(0.95) == found


def restated(values: np.ndarray) -> tuple[float, float]:
    """Variance of the mean and degrees of freedom of any number of factors, from effects cell by cell."""
    places = range(values.ndim)
    subsets = [each for size in range(1, values.ndim + 1) for each in combinations(places, size)]
    squares, shared = {}, {}
    for subset in subsets:
        total = 0.0
        for cell in product(*map(range, values.shape)):
            effect = 0.0
            for size in range(len(subset) + 1):
                for kept in combinations(subset, size):
                    mean = values[tuple(cell[each] if each in kept else slice(None) for each in places)].mean()
                    effect += (-1) ** (len(subset) - size) * mean
            total += effect**2
        squares[subset] = total / math.prod(values.shape[each] - 1 for each in subset)
        shared[subset] = math.prod(values.shape[each] for each in places if each not in subset)
    component: dict[tuple[int, ...], float] = {}
    for subset in reversed(subsets):
        above = sum(shared[each] * component[each] for each in component if set(subset) < set(each))
        component[subset] = max(squares[subset] - above, 0) / shared[subset]
    variance, spread = 0.0, 0.0
    for subset in subsets:
        expected = sum(shared[each] * component[each] for each in subsets if set(subset) <= set(each))
        variance += (-1) ** (len(subset) + 1) * expected
        spread += expected**2 / math.prod(values.shape[each] - 1 for each in subset)
    return variance / values.size, max(variance**2 / spread, min(values.shape) - 1)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 6), (3, 2, 4), (2, 3, 2, 3)])
@pytest.mark.parametrize("own", [0.0, 1.0])
def test_any_number_of_factors_follows_from_the_expected_mean_squares(shape: tuple[int, ...], own: float) -> None:
    for luck in range(3):
        random = np.random.default_rng(luck)
        values = random.standard_normal(shape)
        for axis, size in enumerate(shape):
            values += own * random.standard_normal([size if each == axis else 1 for each in range(len(shape))])
        found = crossed(values, "abcd"[: len(shape)]).all
        assert (found.error**2, found.df) == pytest.approx(restated(values))


def test_the_variance_of_three_factors_is_right_on_average() -> None:
    random, shape = np.random.default_rng(5), (4, 3, 6)
    spread = {(0,): 0.5, (1,): 0.8, (2,): 0.4, (0, 1): 0.6, (0, 2): 0.3, (1, 2): 0.5, (0, 1, 2): 1.0}
    truth = sum(sd**2 / math.prod(shape[each] for each in subset) for subset, sd in spread.items())
    found = []
    for _ in range(1000):
        values = np.zeros(shape)
        for subset, sd in spread.items():
            values += sd * random.standard_normal([size if each in subset else 1 for each, size in enumerate(shape)])
        found.append(crossed(values, ("seed", "policy", "prompt")).all.error ** 2)
    # Components are not let below zero, so that it is rather too large than too small.
    assert 0.97 < np.mean(found) / truth < 1.12


def test_the_order_of_factors_and_of_their_values_makes_no_difference() -> None:
    values = np.random.default_rng(0).standard_normal((4, 3, 5))
    found = crossed(values, ("seed", "policy", "prompt")).all
    other = crossed(values[::-1].transpose(2, 0, 1), ("prompt", "seed", "policy")).all
    assert (other.low, other.high, other.df) == pytest.approx((found.low, found.high, found.df))


@pytest.mark.parametrize("shape", [(3,), (3, 4), (2, 2, 3)])
def test_without_spread_up_to_rounding_the_interval_is_a_point_and_nothing_is_tested(shape: tuple[int, ...]) -> None:
    names = ("seed", "policy", "prompt")[: len(shape)]
    values = np.full(shape, 0.1) + 1e-16 * np.random.default_rng(0).standard_normal(shape)
    found = crossed(values, names)
    for each in (found.all, *found.fixed.values()):
        assert (each.error, each.df, each.p, each.p_greater, each.p_less) == (0.0, None, None, None, None)
        assert each.low == each.high == each.mean == pytest.approx(0.1)
        assert (each.p_above(0.0), each.p_below(0.5), each.at(0.9)) == (None, None, each)
    assert crossed(np.zeros(shape), names).all.mean == 0.0


def test_differences_of_large_numbers_that_are_nothing_but_rounding_are_no_spread() -> None:
    values = 1e-14 * np.random.default_rng(0).standard_normal((3, 4))
    assert crossed(values, ("seed", "prompt")).all.p is not None
    found = crossed(values, ("seed", "prompt"), scale=1.0).all
    assert (found.mean, found.error, found.p) == (0.0, 0.0, None)


def test_the_same_in_every_seed_is_no_spread_over_seeds_but_one_over_prompts() -> None:
    found = crossed(np.array([[0.1, 0.3, 0.6]] * 4), ("seed", "prompt"))
    assert found.fixed["seed"].p is None
    assert found.fixed["prompt"].p == pytest.approx(ttest_1samp([0.1, 0.3, 0.6], 0).pvalue)
    assert (found.all.error, found.all.df) == pytest.approx((found.fixed["prompt"].error, 2.0))


@pytest.mark.parametrize(
    ("shape", "named"), [((1, 4), "one seed only"), ((3, 1), "one prompt only"), ((0, 3), "no seed")]
)
def test_a_factor_of_one_value_has_no_spread_and_is_named(shape: tuple[int, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        crossed(np.zeros(shape), ("seed", "prompt"))


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_missing_value_is_an_error(wrong: float) -> None:
    with pytest.raises(ValueError, match="a finite value at every combination"):
        crossed(np.array([[1.0, wrong], [0.0, 2.0]]), ("seed", "prompt"))


def test_names_that_do_not_fit_the_array_are_an_error() -> None:
    with pytest.raises(ValueError, match="seed are not the names of 2 axes"):
        crossed(np.zeros((2, 3)), ("seed",))
    with pytest.raises(ValueError, match="not the names of 2 axes"):
        sums_of_squares(np.zeros((2, 3)), ("seed", "seed"))


def test_the_sums_of_squares_of_all_sets_add_up_to_the_total() -> None:
    values = 1e6 + np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    found = sums_of_squares(values, "abcd")
    assert list(found)[:5] == [("a",), ("b",), ("c",), ("d",), ("a", "b")]
    assert math.fsum(found.values()) == pytest.approx(((values - values.mean()) ** 2).sum(), rel=1e-9)


def test_the_p_of_a_family_is_that_of_the_factors_quantiles_weighted_by_their_parts_of_the_variance() -> None:
    found = crossed(KNOWN, ("seed", "prompt"))
    parts = {("seed",): 0.0327778 / 3, ("prompt",): 0.0336111 / 4, ("seed", "prompt"): 0.0147222 / 12}
    shares = np.array(list(parts.values())) / sum(parts.values())
    assert found.all.parts == tuple(
        (pytest.approx(share, rel=1e-4), df) for share, df in zip(shares, (2, 3, 6), strict=True)
    )
    p = found.all.p_above(0.0)
    assert p is not None
    quantile = (shares * t_distribution.isf(p, [2, 3, 6])).sum()
    assert quantile == pytest.approx(found.all.mean / found.all.error, rel=1e-4)
    assert p > (found.all.p_greater or 0)
    assert found.all.p_below(0.0) == pytest.approx(1 - p)
    assert found.all.family_p == pytest.approx(2 * p)
    # Of one factor it is the t itself, however far out.
    seeds = crossed(KNOWN.mean(axis=1), ("seed",)).all
    assert (seeds.p_above(0.0), seeds.p_below(0.0)) == pytest.approx((seeds.p_greater, seeds.p_less))
    assert crossed(KNOWN + 1e9, ("seed", "prompt")).all.p_above(0.0) == pytest.approx(0.0, abs=1e-12)


@given(st.integers(2, 12), st.integers(2, 500), st.floats(-1e6, 1e6), st.floats(1e-9, 1e3), st.floats(1e-9, 1e3))
def test_whatever_the_numbers_are_a_family_gets_a_p_and_the_two_sides_sum_to_one(
    seeds: int, prompts: int, mean: float, of_seeds: float, of_prompts: float
) -> None:
    random = np.random.default_rng(seeds)
    values = mean + of_seeds * random.normal(size=(seeds, 1)) + of_prompts * random.normal(size=(1, prompts))
    found = crossed(values + min(of_seeds, of_prompts) * random.normal(size=(seeds, prompts)), ("seed", "prompt")).all
    above, below = found.p_above(0.0), found.p_below(0.0)
    if found.df is None:
        assert above is below is None
    else:
        assert above is not None
        assert below is not None
        assert 0 <= above <= 1
        assert above + below == pytest.approx(1.0)
        assert (above < 0.5) == (found.mean > 0)

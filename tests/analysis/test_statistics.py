"""Statistics of a results table: known answers, slow restatements, and simulated sweeps whose truth is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from itertools import combinations, product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp, ttest_rel

from orchestrator.analysis.axis_effects import AxisEffect, axis_effects, differ_in_cells
from orchestrator.analysis.comparisons import compare
from orchestrator.analysis.estimates import bootstrap_intervals, estimate, holm, seeds_needed
from orchestrator.analysis.lines import distinct_warnings
from orchestrator.analysis.metric_grid import missing_cells, read_metric_grid
from orchestrator.results.parquet import SCHEMA_VERSION
from orchestrator.sweep.problems import SweepError

pytestmark = pytest.mark.usefixtures("quick_collector")

AXES: dict[str, list[Any]] = {"model": ["bt", "clf", "lgb"], "beta": [0.5, 1.0, 10.0], "seed": [0, 1, 2, 3, 4]}


def table_of(
    value: Callable[[Mapping[str, Any]], float | None],
    axes: Mapping[str, list[Any]] = AXES,
    leave_out: Callable[[Mapping[str, Any]], bool] = lambda cell: False,
) -> pa.Table:
    """A results table with one metric, `gain`; cells without a value have failed, those left out were excluded."""
    rows = []
    for values in product(*axes.values()):
        cell = dict(zip(axes, values, strict=True))
        if not leave_out(cell):
            gain = value(cell)
            rows.append({**cell, "status": "failed" if gain is None else "succeeded", "gain": gain})
    metadata = {"schema_version": str(SCHEMA_VERSION), "axes": json.dumps(axes), "metrics": json.dumps(["gain"])}
    return pa.Table.from_pylist(rows).replace_schema_metadata(metadata)


def noisy(seed: int = 0, scale: float = 1.0) -> Callable[[Mapping[str, Any]], float]:
    random = np.random.default_rng(seed)
    return lambda cell: AXES["model"].index(cell["model"]) + scale * random.standard_normal()


class Simulation:
    """Sweeps of 3 models, 3 betas and some seeds: what a seed's cells share, what it does to each model, and luck."""

    def __init__(self, effects: list[float], seeds: int, luck: int) -> None:
        self.effects, self.random = effects, np.random.default_rng(luck)
        axes = AXES | {"seed": list(range(seeds))}
        self.table = table_of(lambda cell: 0.0, axes)
        self.shape = (3, 3, seeds)

    def draw(self) -> pa.Table:
        models, _, seeds = self.shape
        values = (
            np.reshape(self.effects, (-1, 1, 1))
            + np.array([0.0, 1.0, 3.0])[:, np.newaxis]
            + 5 * self.random.standard_normal((1, 1, seeds))
            + 0.3 * self.random.standard_normal((models, 1, seeds))
            + 0.5 * self.random.standard_normal(self.shape)
        )
        place = self.table.column_names.index("gain")
        return self.table.set_column(place, "gain", pa.array(values.ravel()))


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_intervals_of_simulated_sweeps_cover_the_known_effects_and_holm_keeps_its_promise(seeds: int) -> None:
    truth = {("bt", "clf"): 0.0, ("bt", "lgb"): -0.7, ("clf", "lgb"): -0.7}
    simulation = Simulation([0.0, 0.0, 0.7], seeds, luck=2)
    covered: dict[str, list[bool]] = {"t": [], "bootstrap": []}
    for _ in range(1000):
        for each in compare(simulation.draw(), "model", resamples=0):
            assert each.low is not None
            assert each.high is not None
            covered["t"].append(each.low <= truth[str(each.a), str(each.b)] <= each.high)
    for _ in range(300):
        # At three seeds there is no bootstrap interval.
        for each in compare(simulation.draw(), "model", resamples=999) if seeds == 5 else ():
            assert each.bootstrap_low is not None
            assert each.bootstrap_high is not None
            covered["bootstrap"].append(each.bootstrap_low <= truth[str(each.a), str(each.b)] <= each.bootstrap_high)
    assert 0.93 <= np.mean(covered["t"]) <= 0.97
    if seeds == 5:
        assert 0.93 <= np.mean(covered["bootstrap"]) <= 0.97


def test_where_nothing_differs_a_family_seldom_finds_a_difference() -> None:
    simulation = Simulation([0.0, 0.0, 0.0], 5, luck=3)
    found = [compare(simulation.draw(), "model", within=("beta",), resamples=0) for _ in range(1000)]
    wrong = np.mean([any(each.holm_p is not None and each.holm_p < 0.05 for each in family) for family in found])
    unadjusted = np.mean([any(each.p is not None and each.p < 0.05 for each in family) for family in found])
    assert len(found[0]) == 9
    assert wrong <= 0.05
    assert unadjusted > 0.1


def test_a_comparison_is_the_paired_t_test_of_the_means_within_each_seed() -> None:
    table = table_of(noisy())
    frame = table.to_pandas()
    (found,) = compare(table, "model", ["clf", "bt"])
    means = frame.groupby(["model", "seed"]).gain.mean()
    literal = ttest_rel(means["clf"], means["bt"])
    interval = literal.confidence_interval(0.95)
    difference = means["clf"] - means["bt"]
    assert (found.mean_a, found.mean_b) == pytest.approx((means["clf"].mean(), means["bt"].mean()))
    assert (found.difference, found.p) == pytest.approx((difference.mean(), literal.pvalue))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.effect_size == pytest.approx(difference.mean() / difference.std())
    assert (found.seeds, found.cells, found.warning) == (5, 3, None)
    assert found.holm_p == found.p


def test_within_holds_axes_fixed_and_the_family_is_all_of_the_call() -> None:
    table = table_of(noisy(scale=0.3))
    frame = table.to_pandas()
    found = compare(table, "model", within=["beta"])
    assert [(each.a, each.b, each.at["beta"]) for each in found] == [
        (a, b, beta) for beta in AXES["beta"] for a, b in combinations(AXES["model"], 2)
    ]
    for each in found:
        at = frame[frame.beta == each.at["beta"]].set_index(["model", "seed"]).gain
        assert each.p == pytest.approx(ttest_rel(at[each.a], at[each.b]).pvalue)
    assert [each.holm_p for each in found] == pytest.approx(holm([each.p or 0.0 for each in found]))


def test_what_all_cells_of_a_seed_share_cancels() -> None:
    value, shifted = noisy(), noisy()
    (before,) = compare(table_of(value), "model", ["bt", "clf"])
    (after,) = compare(table_of(lambda cell: shifted(cell) + 100 * cell["seed"]), "model", ["bt", "clf"])
    assert (after.low, after.high) == pytest.approx((before.low, before.high))


def test_missing_cells_leave_all_seeds_with_the_same_combinations_and_a_warning() -> None:
    value = noisy()

    def but_one(cell: Mapping[str, Any]) -> float | None:
        drawn = value(cell)
        return None if cell == {"model": "bt", "beta": 1.0, "seed": 2} else drawn

    axes = AXES | {"beta": [0.5, 0.7, 1.0, 3.0, 5.0, 10.0]}
    lacking = table_of(but_one, axes)
    (found,) = compare(lacking, "model", ["bt", "clf"])
    frame = lacking.to_pandas()
    means = frame[frame.beta != 1.0].groupby(["model", "seed"]).gain.mean()
    assert found.difference == pytest.approx((means["bt"] - means["clf"]).mean())
    assert (found.seeds, found.cells) == (5, 5)
    assert found.warning is not None
    assert "1 cell without a number: 5 of 5 seeds and 5 of 6 combinations" in found.warning
    assert missing_cells(lacking) == ["1 of 90 cells have no result (1 failed)"]


def test_a_seed_that_lacks_almost_everything_is_given_up() -> None:
    value = noisy()
    table = table_of(lambda cell: None if cell["seed"] == 4 and cell["beta"] != 0.5 else value(cell))
    (found,) = compare(table, "model", ["bt", "clf"])
    assert (found.seeds, found.cells) == (4, 3)
    assert found.warning is not None
    assert "4 of 5 seeds and 3 of 3 combinations" in found.warning


def test_where_nothing_can_be_compared_there_are_warnings_and_no_numbers() -> None:
    (found,) = compare(table_of(lambda cell: None if cell["model"] == "bt" else 1.0), "model", ["bt", "clf"])
    assert (found.difference, found.p, found.holm_p, found.seeds) == (None, None, None, 0)
    assert found.warning is not None
    assert found.warning == "there are no results for bt"
    turns = table_of(lambda cell: 1.0 if (cell["model"] == "bt") == (cell["seed"] == 0) else None)
    (apart,) = compare(turns, "model", ["bt", "clf"])
    assert apart.difference is None
    assert apart.warning == "15 cells without a number: no seed has results at bt and clf that agree in all other axes"
    (alone,) = compare(table_of(noisy(), AXES | {"seed": [0]}), "model", ["bt", "clf"], width=1)
    assert alone.difference is not None
    assert (alone.low, alone.p, alone.seeds_needed) == (None, None, None)
    assert alone.warning is not None
    assert "one seed only" in alone.warning
    excluded = table_of(noisy(), leave_out=lambda cell: bool(cell["model"] == "bt" and cell["beta"] == 1.0))
    assert missing_cells(excluded) == ["5 combinations of the axes are not part of the sweep (`exclude`, --only)"]
    told = compare(excluded, "model", ["bt", "clf"])[0]
    assert told.cells == 2
    # What is not in the sweep is no cell that lacks a number.
    assert told.warning == (
        "5 combinations not in the sweep: 5 of 5 seeds and 2 of 3 combinations of the other axes are used"
    )


def test_a_sweep_without_seeds_has_differences_and_no_intervals() -> None:
    axes = {axis: labels for axis, labels in AXES.items() if axis != "seed"}
    (found,) = compare(table_of(lambda cell: len(cell["model"]) * cell["beta"], axes), "model", ["bt", "clf"])
    assert found.difference == pytest.approx(-11.5 / 3)
    assert found.p is None
    (warning,) = missing_cells(table_of(lambda cell: 0.0, axes))
    assert "no axis `seed`" in warning


def test_what_is_asked_wrongly_is_refused_with_the_nearest_name() -> None:
    table = table_of(noisy())
    for problem, arguments in {
        "there is no axis 'modl'; did you mean 'model'": {"axis": "modl"},
        "there is no axis 'beeta'; did you mean 'beta'": {"axis": "model", "within": ["beeta"]},
        "there is no value of model 'cfl'; did you mean 'clf'": {"axis": "model", "values": ["bt", "cfl"]},
        "there is no metric 'gian'; did you mean 'gain'": {"axis": "model", "metrics": ["gian"]},
        "needs two values": {"axis": "model", "values": ["bt"]},
        "there twice": {"axis": "model", "values": ["bt", "bt"]},
        "cannot be held fixed": {"axis": "model", "within": ["model"]},
        "seed: the seeds are the sample": {"axis": "seed"},
    }.items():
        with pytest.raises(SweepError, match=problem):
            compare(table, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 cells are in the table twice"):
        read_metric_grid(pa.concat_tables([table, table.slice(0, 1)]))


def test_the_effect_of_an_axis_stands_against_seed_noise() -> None:
    luck = noisy(scale=0.1)
    table = table_of(lambda cell: luck(cell) + 50 * (cell["seed"] == 1))
    found = {each.axis: each for each in axis_effects(table)}
    model, beta, seed = found["model"], found["beta"], found["seed"]
    assert (model.lowest, model.highest) == ("bt", "lgb")
    assert model.spread == pytest.approx(2, abs=0.2)
    assert model.holm_p is not None
    assert model.holm_p < 0.01
    assert beta.p is not None
    assert beta.p > 0.05
    assert (seed.highest, seed.p) == (1, None)
    assert seed.share is not None
    assert seed.share > 0.99
    # Half a line in place of statsmodels: mean squares of a table of 5 seeds by 3 models.
    by_seed = table.to_pandas().groupby(["seed", "model"]).gain.mean().unstack().to_numpy()
    rest = by_seed - by_seed.mean(0) - by_seed.mean(1, keepdims=True) + by_seed.mean()
    assert model.noise == pytest.approx(math.sqrt((rest**2).sum() / 8))
    assert model.f == pytest.approx(5 * by_seed.mean(0).var(ddof=1) / ((rest**2).sum() / 8))


def test_of_two_values_the_effect_of_the_axis_is_the_paired_t_test() -> None:
    table = table_of(noisy(), AXES | {"model": ["bt", "clf"]})
    (model, *_), (pair,) = axis_effects(table), compare(table, "model")
    assert model.p == pytest.approx(pair.p)


def test_an_axis_that_changes_nothing_or_always_the_same_is_told_without_dividing_by_nothing() -> None:
    nothing = {each.axis: each for each in axis_effects(table_of(lambda cell: float(cell["seed"])))}
    assert (nothing["model"].spread, nothing["model"].f, nothing["model"].p) == (0, None, None)
    assert compare(table_of(lambda cell: float(cell["seed"])), "model")[0].p is None
    always = {each.axis: each for each in axis_effects(table_of(lambda cell: cell["seed"] + cell["beta"]))}
    # That is no matter of missing cells.
    assert not differ_in_cells(always.values())
    assert differ_in_cells([AxisEffect("gain", "beta", warning="5 cells without a number: 1 of 3 are used")])
    # A difference that never varies has no spread to test it by, be it ever so large.
    assert (always["beta"].spread, always["beta"].noise, always["beta"].f, always["beta"].p) == (9.5, 0, None, None)
    assert "the same in every seed" in (always["beta"].warning or "")


def test_a_warning_names_the_axes_that_it_is_about_unless_these_are_all() -> None:
    effects = [AxisEffect("gain", "model", warning="one; both"), AxisEffect("gain", "beta", warning="both")]
    assert distinct_warnings(effects) == ["model: one", "both"]


@pytest.mark.parametrize("size", [1.0, 1e-9, 1e9])
@pytest.mark.parametrize("gap", [0.0, 0.05])
def test_what_is_undefined_is_null_with_a_reason_also_where_rounding_leaves_a_spread(size: float, gap: float) -> None:
    # 0.1 + 0.2 - 0.3 is no 0 for a computer: the differences vary by some 1e-17 of what they are differences of.
    def value(cell: Mapping[str, Any]) -> float:
        luck = 0.1 * (cell["seed"] + 1) / 3 + 0.7 * cell["beta"]
        return size * (luck + gap * (cell["model"] == "clf"))

    (found,) = compare(table_of(value), "model", ["clf", "bt"], width=0.1)
    assert found.difference == pytest.approx(size * gap, rel=1e-9, abs=0)
    undefined = (found.low, found.high, found.bootstrap_low, found.bootstrap_high, found.p, found.holm_p)
    assert undefined == (None,) * 6
    assert (found.effect_size, found.seeds_needed) == (None, None)
    assert "the same in every seed" in (found.warning or "")
    (model, *_) = axis_effects(table_of(value, AXES | {"model": ["bt", "clf"]}))
    assert (model.noise, model.f, model.p) == (0, None, None)
    assert model.spread == pytest.approx(size * gap, rel=1e-9, abs=0)
    if not gap:
        assert (model.lowest, model.highest) == (None, None)


def test_of_values_that_do_not_vary_no_axis_has_a_share() -> None:
    found = axis_effects(table_of(lambda cell: 0.1 + 0.2 if cell["seed"] else 0.3))
    assert [each.share for each in found] == [None, None, None]


def test_all_comparisons_of_a_call_are_from_the_same_cells_so_that_means_can_be_ranked() -> None:
    # lgb lacks the beta at which all are good.
    value = noisy(scale=0.01)
    table = table_of(
        lambda cell: None if (cell["model"], cell["beta"]) == ("lgb", 10.0) else value(cell) + cell["beta"]
    )
    found = {(each.a, each.b): each for each in compare(table, "model")}
    assert {each.cells for each in found.values()} == {2}
    sides = [("bt", found["bt", "clf"].mean_a), ("bt", found["bt", "lgb"].mean_a), ("lgb", found["bt", "lgb"].mean_b)]
    assert sides[0] == sides[1]
    assert found["clf", "lgb"].mean_b == sides[2][1]
    parts = [found[pair].difference or 0 for pair in (("bt", "clf"), ("clf", "lgb"), ("bt", "lgb"))]
    assert parts[0] + parts[1] == pytest.approx(parts[2])
    # Two alone are compared wherever these two are.
    assert compare(table, "model", ["bt", "clf"])[0].cells == 3


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=12).filter(lambda values: np.std(values) > 1e-6))
@settings(deadline=None)
def test_the_tests_of_an_estimate_equal_those_of_scipy(values: list[float]) -> None:
    found = estimate(np.array(values), 0.9)
    assert found.p == pytest.approx(ttest_1samp(values, 0).pvalue, abs=1e-9)
    assert found.p_greater == pytest.approx(ttest_1samp(values, 0, alternative="greater").pvalue, abs=1e-9)
    assert found.p_less == pytest.approx(ttest_1samp(values, 0, alternative="less").pvalue, abs=1e-9)
    interval = ttest_1samp(values, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_without_any_spread_the_tests_are_certain() -> None:
    found = [estimate(np.full(3, mean)) for mean in (0.5, 0.0, -0.5)]
    assert [each.p for each in found] == [0, 1, 0]
    assert [each.p_greater for each in found] == [0, 1, 1]
    assert [each.p_less for each in found] == [1, 1, 0]


def test_the_bootstrap_interval_is_studentized_over_all_resamples() -> None:
    effects = np.array([0.3, 0.1, 0.9, 0.4, 0.2])
    every = np.array(list(product(effects, repeat=5)))
    with np.errstate(divide="ignore"):
        scores = (every.mean(1) - effects.mean()) / (every.std(1, ddof=1) / math.sqrt(5))
    low, high = np.quantile(scores, [0.025, 0.975])
    error = effects.std(ddof=1) / math.sqrt(5)
    lows, highs = bootstrap_intervals(effects[np.newaxis], resamples=99_999)
    assert lows[0] == pytest.approx(effects.mean() - high * error, rel=0.02)
    assert highs[0] == pytest.approx(effects.mean() - low * error, rel=0.02)
    again = bootstrap_intervals(effects[np.newaxis], resamples=99_999)
    assert (lows[0], highs[0]) == (again[0][0], again[1][0])


def test_holm_has_its_known_answer() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni_tests(values: list[float]) -> None:
    literal = [
        max(
            min(1.0, len(group) * min(values[each] for each in group))
            for size in range(1, len(values) + 1)
            for group in combinations(range(len(values)), size)
            if place in group
        )
        for place in range(len(values))
    ]
    assert holm(values) == pytest.approx(literal)


def test_seeds_needed_is_the_first_number_whose_interval_is_narrow_enough() -> None:
    # A t table: 2.776 at 4 degrees of freedom, so five seeds of sd 1 give 2 * 2.776 / sqrt(5) = 2.4833.
    assert (seeds_needed(1.0, 2.4834), seeds_needed(1.0, 2.4832)) == (5, 6)
    assert seeds_needed(1.0, 1e-6) is None
    assert seeds_needed(0.0, 1e-6) == 2
    (found,) = compare(table_of(noisy()), "model", ["bt", "clf"], width=0.5, resamples=0)
    assert found.effect_size is not None
    assert found.difference is not None
    assert found.seeds_needed == seeds_needed(found.difference / found.effect_size, 0.5)

"""Comparisons of values of an axis: literal restatements, and simulated sweeps whose truth is known."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from gain_tables import AXES, Cell, Simulation, noisy, table_of
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp, ttest_rel

from orchestrator.analysis.comparisons import Comparison, check, compare
from orchestrator.analysis.contrast import Weights
from orchestrator.analysis.effect import Sample
from orchestrator.analysis.lines import distinct_notes, notes_of_comparisons
from orchestrator.analysis.metric_grid import missing_cells, read_metric_grid
from orchestrator.statistics.crossed import crossed
from orchestrator.statistics.estimates import adjusted, holm
from orchestrator.statistics.power import Pilot, assurance, seeds_for
from orchestrator.sweep.analysis import Analysis
from orchestrator.sweep.problems import SweepError

pytestmark = pytest.mark.usefixtures("quick_collector")


def only(table: pa.Table, *values: str) -> Comparison:
    (found,) = compare(Sample(table), "model", values)
    return found


def pair_of(table: pa.Table, a: str, b: str, at: dict[str, list[float]] | None = None) -> tuple[float, float, float]:
    """Ends of the interval, and p, of a comparison, without what takes time."""
    weights = {label: float(label == a) - float(label == b) for label in AXES["model"]}
    found = Sample(table).effect("gain", Weights({"model": weights}, at or {})).fixed
    assert found is not None
    assert found.p is not None
    return found.low, found.high, found.p


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_intervals_of_simulated_sweeps_cover_the_known_effects(seeds: int) -> None:
    truth = {("bt", "clf"): 0.0, ("bt", "lgb"): -0.7, ("clf", "lgb"): -0.7}
    simulation = Simulation([0.0, 0.0, 0.7], seeds, luck=2)
    tables = [simulation.draw() for _ in range(1000)]
    ends = [(pair_of(table, *pair), effect) for table in tables for pair, effect in truth.items()]
    assert 0.93 <= np.mean([low <= effect <= high for (low, high, _), effect in ends]) <= 0.97


def test_where_nothing_differs_a_family_seldom_finds_a_difference() -> None:
    simulation = Simulation([0.0, 0.0, 0.0], 5, luck=3)
    families = []
    for table in (simulation.draw() for _ in range(1000)):
        pairs = [(a, b, {"beta": [beta]}) for beta in AXES["beta"] for a, b in combinations(AXES["model"], 2)]
        families.append([pair_of(table, *each)[2] for each in pairs])
    wrong = np.mean([min(holm(family)) < 0.05 for family in families])
    unadjusted = np.mean([min(family) < 0.05 for family in families])
    assert len(families[0]) == 9
    assert wrong <= 0.05
    assert unadjusted > 0.1


def test_a_comparison_is_the_paired_t_test_of_the_means_within_each_seed() -> None:
    table = table_of(noisy())
    frame = table.to_pandas()
    found = only(table, "clf", "bt")
    means = frame.groupby(["model", "seed"]).gain.mean()
    literal = ttest_rel(means["clf"], means["bt"])
    interval = literal.confidence_interval(0.95)
    difference = means["clf"] - means["bt"]
    assert (found.mean_a, found.mean_b) == pytest.approx((means["clf"].mean(), means["bt"].mean()))
    assert (found.difference, found.p) == pytest.approx((difference.mean(), literal.pvalue))
    effect = found.effect
    assert effect.fixed is not None
    assert (effect.fixed.low, effect.fixed.high) == pytest.approx((interval.low, interval.high))
    # Corrected for few seeds: the factor at 4 degrees of freedom is .7979.
    assert found.effect_size == pytest.approx(0.7979 * difference.mean() / difference.std(), rel=1e-4)
    assert (effect.seeds, effect.combinations, effect.cells, effect.missing, effect.notes) == (5, 3, 30, 0, ())
    # No values of single prompts are declared.
    assert (effect.new, effect.bootstrap, effect.prompts) == (None, None, 0)
    assert found.holm_p == found.p
    narrow = compare(Sample(table, confidence=0.5), "model", ["clf", "bt"])[0].effect.fixed
    ends = literal.confidence_interval(0.5)
    assert narrow is not None
    assert (narrow.low, narrow.high) == pytest.approx((ends.low, ends.high))


def test_power_and_the_seeds_for_it_are_those_of_the_difference_whatever_its_sign() -> None:
    table = table_of(noisy(scale=3.0))
    means = table.to_pandas().groupby(["model", "seed"]).gain.mean()
    difference = means["clf"] - means["bt"]
    pilot = Pilot(abs(difference.mean()), 5, difference.var())
    for found in (only(table, "clf", "bt"), only(table, "bt", "clf")):
        assert found.power == pytest.approx(assurance(pilot, 5))
        assert found.seeds_needed == seeds_for(0.8, pilot)


def test_within_holds_axes_fixed_and_the_family_is_all_of_the_call() -> None:
    table = table_of(noisy(scale=0.3))
    frame = table.to_pandas()
    found = compare(Sample(table), "model", within=["beta"])
    assert [(each.a, each.b, each.at["beta"]) for each in found] == [
        (a, b, beta) for beta in AXES["beta"] for a, b in combinations(AXES["model"], 2)
    ]
    for each in found:
        at = frame[frame.beta == each.at["beta"]].set_index(["model", "seed"]).gain
        assert each.p == pytest.approx(ttest_rel(at[each.a], at[each.b]).pvalue)
    assert [each.holm_p for each in found] == pytest.approx(holm([each.p or 0.0 for each in found]))


def test_values_and_metrics_that_are_named_twice_are_compared_once() -> None:
    sample = Sample(table_of(noisy()))
    assert compare(sample, "model", ["bt", "clf", "bt"]) == compare(sample, "model", ["bt", "clf"])


def test_what_all_cells_of_a_seed_share_cancels() -> None:
    value, shifted = noisy(), noisy()
    before = only(table_of(value), "bt", "clf").effect.fixed
    after = only(table_of(lambda cell: shifted(cell) + 100 * cell["seed"]), "bt", "clf").effect.fixed
    assert before is not None
    assert after is not None
    assert (after.low, after.high) == pytest.approx((before.low, before.high))


def test_a_missing_cell_is_filled_in_from_all_pairs_and_gives_up_no_other() -> None:
    value = noisy()

    def but_one(cell: Cell) -> float | None:
        drawn = value(cell)
        return None if cell == {"model": "bt", "beta": 1.0, "seed": 2} else drawn

    axes = AXES | {"beta": [0.5, 0.7, 1.0, 3.0, 5.0, 10.0]}
    lacking = table_of(but_one, axes)
    found = only(lacking, "bt", "clf")
    # Differences d_sb = m_b + a_s by least squares, from those that are there.
    frame = lacking.to_pandas().pivot(index=["seed", "beta"], columns="model", values="gain")
    pairs = (frame.bt - frame.clf).dropna()
    design = np.zeros((len(pairs), 11))
    for row, (seed, beta) in enumerate(pairs.index):
        design[row, [seed, 5 + axes["beta"].index(beta)]] = 1
    fitted = np.linalg.lstsq(design, pairs.to_numpy())[0]
    filled = pairs.unstack()
    assert filled.isna().to_numpy().sum() == 1
    filled = filled.fillna(fitted[2] + fitted[5 + 2])
    by_seed = filled.mean(axis=1)
    assert found.difference == pytest.approx(by_seed.mean())
    assert found.p == pytest.approx(ttest_1samp(by_seed, 0).pvalue)
    effect = found.effect
    assert (effect.seeds, effect.combinations, effect.cells, effect.missing) == (5, 6, 60, 1)
    assert effect.notes == ("1 of 60 cells have no number (1 failed)",)
    assert missing_cells(lacking) == ["1 of 90 cells have no result (1 failed)"]


def test_a_seed_that_lacks_almost_everything_is_not_given_up() -> None:
    value = noisy()
    table = table_of(lambda cell: None if cell["seed"] == 4 and cell["beta"] != 0.5 else value(cell))
    effect = only(table, "bt", "clf").effect
    assert (effect.seeds, effect.combinations, effect.missing) == (5, 3, 4)
    assert effect.notes == ("4 of 30 cells have no number (4 failed)",)
    # One that lacks everything of an arm is.
    lost = table_of(lambda cell: None if cell["seed"] == 4 and cell["model"] == "bt" else value(cell))
    effect = only(lost, "bt", "clf").effect
    assert (effect.seeds, effect.combinations, effect.missing) == (4, 3, 3)
    assert effect.notes[-1] == "left out, as the arms have no pairs there: 1 of 5 draws of what is random"


def test_where_nothing_can_be_compared_there_are_notes_and_no_numbers() -> None:
    found = only(table_of(lambda cell: None if cell["model"] == "bt" else 1.0), "bt", "clf")
    assert (found.difference, found.p, found.holm_p, found.effect.seeds) == (None, None, None, 0)
    assert (found.mean_a, found.mean_b, found.power, found.seeds_needed) == (None,) * 4
    assert found.effect.notes == ("there are no results for bt",)
    # There are results for both, but at no seed or beta for both of them.
    turns = table_of(lambda cell: 1.0 if (cell["model"] == "bt") == (cell["seed"] == 0) else None)
    apart = only(turns, "bt", "clf")
    assert (apart.difference, apart.mean_a, apart.mean_b) == (None, None, None)
    assert apart.effect.notes == (
        "15 of 30 cells have no number (15 failed), more in some arms than in others (12, 3): what is missing is not "
        "missing by chance",
        "left out, as the arms have no pairs there: 3 of 3 values of beta and 5 of 5 draws of what is random",
        "no two cells that differ in nothing else have results",
    )
    alone = only(table_of(noisy(), AXES | {"seed": [0]}), "bt", "clf")
    assert alone.difference is not None
    assert (alone.effect.fixed, alone.p, alone.seeds_needed, alone.effect_size) == (None,) * 4
    assert alone.effect.notes == ("one seed only: there is no interval and no p value",)
    excluded = table_of(noisy(), leave_out=lambda cell: bool(cell["model"] == "bt" and cell["beta"] == 1.0))
    assert missing_cells(excluded) == ["5 combinations of the axes are not part of the sweep (`exclude`, --only)"]
    told = only(excluded, "bt", "clf").effect
    # What is not in the sweep is no cell that lacks a number.
    assert (told.combinations, told.cells, told.missing) == (2, 25, 0)
    assert told.notes == ("left out, as the arms have no pairs there: 1 of 3 values of beta",)


def test_a_sweep_without_seeds_has_differences_and_no_intervals() -> None:
    axes = {axis: labels for axis, labels in AXES.items() if axis != "seed"}
    found = only(table_of(lambda cell: len(cell["model"]) * cell["beta"], axes), "bt", "clf")
    assert found.difference == pytest.approx(-11.5 / 3)
    assert (found.p, found.effect.fixed) == (None, None)
    (warning,) = missing_cells(table_of(lambda cell: 0.0, axes))
    assert "no axis `seed`" in warning


def test_what_is_random_beside_the_seed_widens_the_interval_and_is_named() -> None:
    # Drawn anew are seeds and betas: what clf does at a beta does not average out over seeds.
    luck, extra = np.random.default_rng(3), dict(zip(AXES["beta"], (-2.0, 0.0, 2.0), strict=True))
    table = table_of(lambda cell: luck.standard_normal() + (extra[cell["beta"]] if cell["model"] == "clf" else 0))
    analysis = Analysis.model_validate({"primary": {"metric": "gain"}, "random": {"seed": "seed", "strength": "beta"}})
    sample = Sample(table, analysis)
    (found,) = compare(sample, "model", ["clf", "bt"])
    assert (sample.fixed, sample.new) == ("new seeds and new strengths", None)
    frame = table.to_pandas().pivot(index=["seed", "beta"], columns="model", values="gain")
    differences = (frame.clf - frame.bt).unstack().to_numpy()
    assert found.effect.fixed == crossed(differences, ("seed", "strength")).all
    (seeds,) = compare(Sample(table), "model", ["clf", "bt"])
    assert seeds.effect.fixed is not None
    assert found.effect.fixed is not None
    assert found.effect.fixed.error > 1.5 * seeds.effect.fixed.error
    # Nobody knows a power for that.
    assert (found.power, found.seeds_needed) == (None, None)


def test_what_is_asked_wrongly_is_refused_with_the_nearest_name() -> None:
    table = table_of(noisy())
    for problem, arguments in {
        "there is no axis 'modl'; did you mean 'model'": {"axis": "modl"},
        "there is no axis 'beeta'; did you mean 'beta'": {"axis": "model", "within": ["beeta"]},
        "there is no value of model 'cfl'; did you mean 'clf'": {"axis": "model", "values": ["bt", "cfl"]},
        "there is no metric 'gian'; did you mean 'gain'": {"axis": "model", "metrics": ["gian"]},
        "needs two values": {"axis": "model", "values": ["bt"]},
        "a comparison needs two values": {"axis": "model", "values": ["bt", "bt"]},
        "cannot be held fixed": {"axis": "model", "within": ["model"]},
        "seed: its values are the sample, and cannot be compared": {"axis": "seed"},
        "beta: its values are the sample": {"axis": "model", "within": ["beta"], "random": ["seed", "beta"]},
    }.items():
        with pytest.raises(SweepError, match=problem):
            check(table, **arguments)  # type: ignore[arg-type]
    check(table, "model", ["bt", "clf"], ["gain"], ["beta"])
    with pytest.raises(ValueError, match="1 cells are in the table twice"):
        read_metric_grid(pa.concat_tables([table, table.slice(0, 1)]))


def test_a_note_names_the_differences_that_it_is_about_unless_these_are_all() -> None:
    assert distinct_notes([("model", ("one", "both")), ("beta", ("both",))]) == ["model: one", "both"]
    lacking = table_of(lambda cell: None if cell["model"] == "bt" else noisy(cell["seed"])(cell))
    assert notes_of_comparisons(compare(Sample(lacking), "model"))[0] == (
        "bt - clf, bt - lgb: there are no results for bt"
    )


@pytest.mark.parametrize("size", [1.0, 1e-9, 1e9])
@pytest.mark.parametrize("gap", [0.0, 0.05])
def test_what_is_undefined_is_null_with_a_reason_also_where_rounding_leaves_a_spread(size: float, gap: float) -> None:
    # 0.1 + 0.2 - 0.3 is no 0 for a computer: the differences vary by some 1e-17 of what they are differences of.
    def value(cell: Cell) -> float:
        luck = 0.1 * (cell["seed"] + 1) / 3 + 0.7 * cell["beta"]
        return size * (luck + gap * (cell["model"] == "clf"))

    found = only(table_of(value), "clf", "bt")
    assert found.difference == pytest.approx(size * gap, rel=1e-9, abs=0)
    assert (found.effect.fixed, found.effect.bootstrap, found.p, found.holm_p) == (None,) * 4
    assert (found.effect_size, found.power, found.seeds_needed) == (None,) * 3
    assert found.effect.notes == ("the same for every seed: there is no interval and no p value",)


def test_all_comparisons_of_a_call_are_from_the_same_cells_so_that_means_can_be_ranked() -> None:
    # lgb lacks the beta at which all are good.
    value = noisy(scale=0.01)
    table = table_of(
        lambda cell: None if (cell["model"], cell["beta"]) == ("lgb", 10.0) else value(cell) + cell["beta"]
    )
    found = {(each.a, each.b): each for each in compare(Sample(table), "model")}
    assert {each.effect.combinations for each in found.values()} == {2}
    sides = [("bt", found["bt", "clf"].mean_a), ("bt", found["bt", "lgb"].mean_a), ("lgb", found["bt", "lgb"].mean_b)]
    assert sides[0] == sides[1]
    assert found["clf", "lgb"].mean_b == sides[2][1]
    parts = [found[pair].difference or 0 for pair in (("bt", "clf"), ("clf", "lgb"), ("bt", "lgb"))]
    assert parts[0] + parts[1] == pytest.approx(parts[2])
    for each in found.values():
        assert each.difference == pytest.approx((each.mean_a or 0) - (each.mean_b or 0))
    # Two alone are compared wherever these two are.
    assert only(table, "bt", "clf").effect.combinations == 3


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=12).filter(lambda values: np.std(values) > 1e-6))
def test_the_tests_of_a_mean_over_seeds_equal_those_of_scipy(values: list[float]) -> None:
    found = crossed(np.array(values), ("seed",), 0.9).all
    assert found.p == pytest.approx(ttest_1samp(values, 0).pvalue, abs=1e-9)
    assert found.p_greater == pytest.approx(ttest_1samp(values, 0, alternative="greater").pvalue, abs=1e-9)
    assert found.p_less == pytest.approx(ttest_1samp(values, 0, alternative="less").pvalue, abs=1e-9)
    interval = ttest_1samp(values, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_holm_has_its_known_answer() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert adjusted([None, 0.01, None, 0.04]) == [None, 0.02, None, 0.04]


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

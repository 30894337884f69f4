"""Effects of axes against what the draws do: literal restatements, and what is undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gain_tables import AXES, Cell, noisy, table_of
from scipy.stats import f as f_distribution
from statsmodels.stats.anova import AnovaRM

from orchestrator.analysis.axis_effects import CROSSED, SAME, axis_effects, variance_shares
from orchestrator.analysis.comparisons import compare
from orchestrator.analysis.effect import Sample
from orchestrator.analysis.lines import format_effect, notes_of_effects
from orchestrator.statistics.estimates import holm
from orchestrator.sweep.analysis import Analysis


def test_the_effect_of_an_axis_stands_against_seed_noise() -> None:
    luck = noisy(scale=0.1)
    table = table_of(lambda cell: luck(cell) + 50 * (cell["seed"] == 1))
    found = {each.axis: each for each in axis_effects(Sample(table))}
    assert list(found) == ["model", "beta", "seed"]
    model, beta, seed = found["model"], found["beta"], found["seed"]
    assert (model.lowest, model.highest) == ("bt", "lgb")
    assert model.spread == pytest.approx(2, abs=0.2)
    assert model.holm_p is not None
    assert model.holm_p < 0.01
    assert beta.p is not None
    assert beta.p > 0.05
    # The seeds are the sample: that they differ is no finding.
    assert (seed.lowest, seed.highest, seed.spread, seed.f, seed.p) == (None,) * 5
    assert seed.share is not None
    assert seed.share > 0.99
    assert (model.notes, beta.notes) == ((), ())
    # Half a line in place of statsmodels: mean squares of a table of 5 seeds by 3 models.
    by_seed = table.to_pandas().groupby(["seed", "model"]).gain.mean().unstack().to_numpy()
    rest = by_seed - by_seed.mean(0) - by_seed.mean(1, keepdims=True) + by_seed.mean()
    assert model.noise == pytest.approx(math.sqrt((rest**2).sum() / 8))
    assert model.f == pytest.approx(5 * by_seed.mean(0).var(ddof=1) / ((rest**2).sum() / 8))


def test_f_is_that_of_statsmodels_and_p_is_at_the_lower_bound_of_its_degrees_of_freedom() -> None:
    table = table_of(noisy(scale=2.0))
    found = axis_effects(Sample(table))
    frame = table.to_pandas()
    for each in found[:2]:
        literal = AnovaRM(frame, "gain", "seed", [each.axis], aggregate_func="mean").fit().anova_table.loc[each.axis]
        assert each.f == pytest.approx(literal["F Value"])
        assert each.p == pytest.approx(f_distribution.sf(literal["F Value"], 1, 4))
        assert (each.p or 0) > literal["Pr > F"]
    assert [each.holm_p for each in found[:2]] == pytest.approx(holm([each.p or 0 for each in found[:2]]))


def test_of_two_values_the_effect_of_the_axis_is_the_paired_t_test() -> None:
    sample = Sample(table_of(noisy(), AXES | {"model": ["bt", "clf"]}))
    (model, *_), (pair,) = axis_effects(sample), compare(sample, "model")
    assert model.p == pytest.approx(pair.p)
    assert model.spread == pytest.approx(abs(pair.difference or 0))


def test_shares_of_the_variation_are_those_of_the_sums_of_squares_and_sum_to_one() -> None:
    table = table_of(lambda cell: noisy(int(10 * cell["beta"]))(cell) * cell["beta"] + cell["seed"])
    found = {each.axis: each for each in axis_effects(Sample(table))}
    frame = table.to_pandas()
    total = ((frame.gain - frame.gain.mean()) ** 2).sum()
    for axis, each in found.items():
        means = frame.groupby(axis).gain.transform("mean")
        assert each.share == pytest.approx(((means - frame.gain.mean()) ** 2).sum() / total)
        # Without the others nothing but the axis moves anything: the rest is what it does together with them.
        others = [name for name in AXES if name != axis]
        without = frame.groupby(others).gain.transform("mean")
        assert each.together == pytest.approx(((frame.gain - without) ** 2).sum() / total - (each.share or 0))
    assert math.fsum(part.share for part in variance_shares(Sample(table), "gain")) == 1


def test_while_a_combination_has_no_number_there_are_effects_and_no_shares() -> None:
    value = noisy()
    table = table_of(lambda cell: None if cell == {"model": "bt", "beta": 1.0, "seed": 2} else value(cell))
    found = axis_effects(Sample(table))
    assert {each.share for each in found} == {each.together for each in found} == {None}
    assert [each.p is None for each in found] == [False, False, True]
    assert notes_of_effects(found[:2]) == ["1 of 45 cells have no number (1 failed)"]
    # Means of the effect are those of comparisons.
    means = {each.a: each.mean_a for each in compare(Sample(table), "model")} | {
        each.b: each.mean_b for each in compare(Sample(table), "model")
    }
    assert found[0].spread == pytest.approx(max(filter(None, means.values())) - min(filter(None, means.values())))


def test_an_axis_that_changes_nothing_or_always_the_same_is_told_without_dividing_by_nothing() -> None:
    nothing = {each.axis: each for each in axis_effects(Sample(table_of(lambda cell: float(cell["seed"]))))}
    assert (nothing["model"].spread, nothing["model"].f, nothing["model"].p) == (0, None, None)
    assert (nothing["model"].share, nothing["seed"].share) == (0, 1)
    assert compare(Sample(table_of(lambda cell: float(cell["seed"]))), "model")[0].p is None
    always = {each.axis: each for each in axis_effects(Sample(table_of(lambda cell: cell["seed"] + cell["beta"])))}
    # A difference that never varies has no spread to test it by, be it ever so large.
    assert (always["beta"].spread, always["beta"].noise, always["beta"].f, always["beta"].p) == (9.5, 0, None, None)
    assert always["beta"].notes == (SAME,)


@pytest.mark.parametrize("size", [1.0, 1e-9, 1e9])
@pytest.mark.parametrize("gap", [0.0, 0.05])
def test_a_spread_that_is_nothing_but_rounding_is_none(size: float, gap: float) -> None:
    def value(cell: Cell) -> float:
        luck = 0.1 * (cell["seed"] + 1) / 3 + 0.7 * cell["beta"]
        return size * (luck + gap * (cell["model"] == "clf"))

    (model, *_) = axis_effects(Sample(table_of(value, AXES | {"model": ["bt", "clf"]})))
    assert (model.noise, model.f, model.p) == (0, None, None)
    assert model.spread == pytest.approx(size * gap, rel=1e-9, abs=0)
    if not gap:
        assert (model.lowest, model.highest) == (None, None)


def test_of_values_that_do_not_vary_no_axis_has_a_share() -> None:
    found = axis_effects(Sample(table_of(lambda cell: 0.1 + 0.2 if cell["seed"] else 0.3)))
    assert [each.share for each in found] == [None, None, None]


def test_without_seeds_and_without_results_there_is_what_can_be_said_and_no_more() -> None:
    axes = {axis: labels for axis, labels in AXES.items() if axis != "seed"}
    model, beta = axis_effects(Sample(table_of(lambda cell: len(cell["model"]) * cell["beta"], axes)))
    assert (model.spread, model.noise, model.f, model.p) == (pytest.approx(11.5 / 3), None, None, None)
    assert beta.share == pytest.approx(1 - (model.share or 0) - (model.together or 0))
    pending = axis_effects(Sample(table_of(lambda cell: None)))
    assert {each.spread for each in pending} == {None}
    assert format_effect(pending[0])["spread"] == ""
    # Of one value that has results nothing is said.
    (one, *_) = axis_effects(Sample(table_of(lambda cell: 1.0 if cell["model"] == "clf" else None)))
    assert (one.axis, one.spread) == ("model", None)


def test_where_several_axes_are_random_they_are_last_and_nothing_is_tested_as_if_their_draws_were_independent() -> None:
    analysis = Analysis.model_validate({"primary": {"metric": "gain"}, "random": {"seed": "seed", "model": "model"}})
    table = table_of(noisy())
    beta, model, seed = axis_effects(Sample(table, analysis))
    assert (beta.axis, model.axis, seed.axis) == ("beta", "model", "seed")
    assert (model.spread, model.p, seed.p) == (None, None, None)
    assert beta.spread is not None
    assert (beta.noise, beta.f, beta.p, beta.notes) == (None, None, None, (CROSSED,))
    assert np.isfinite([each.share for each in (beta, model, seed)]).all()

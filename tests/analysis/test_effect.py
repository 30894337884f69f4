"""Effects: both statements of a contrast, for new seeds on these prompts and for new prompts too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

from orchestrator.analysis.contrast import Weights
from orchestrator.analysis.effect import Effect, Sample
from orchestrator.sweep.analysis import Analysis

Reals = NDArray[np.float64]

#: Section A of the reference: 3 seeds by 4 prompts; lme4 with lmerTest agrees to four digits and more.
KNOWN = np.array([(0.3, 0.5, 0.1, 0.4), (0.6, 0.7, 0.2, 0.8), (0.2, 0.5, 0.0, 0.1)])
DIFFERENCE = Weights({"arm": {"a": 1.0, "b": -1.0}})
DECLARED = Analysis.model_validate(
    {"primary": {"metric": "score", "better": "higher"}, "random": {"seed": "seed", "prompt": "evaluate/rows.parquet"}}
)


class Rows:
    """Values of single prompts that are at hand: row of the table -> (prompts,)."""

    def __init__(self, values: Reals, sets: Sequence[int] = ()) -> None:
        self.values, self.sets = values, np.array(sets or [0] * len(values))

    def read(self, metric: str, rows: NDArray[np.int64]) -> tuple[Reals | None, str]:
        """Give them."""
        if len(set(self.sets[rows].tolist())) > 1:
            return None, "different prompts"
        return self.values[rows], ""


def table_of(singles: Reals, axes: dict[str, list[Any]]) -> pa.Table:
    """Cells whose metric is the mean of their prompts: `singles` (cells, prompts), in the order of the axes."""
    rows = []
    for values, each in zip(product(*axes.values()), singles, strict=True):
        there = bool(np.isfinite(each).any())
        found = ("succeeded", float(np.nanmean(each))) if there else ("failed", None)
        rows.append(dict(zip([*axes, "status", "score"], [*values, *found], strict=True)))
    metadata = {"axes": json.dumps(axes), "metrics": json.dumps(["score"])}
    return pa.Table.from_pylist(rows).replace_schema_metadata(metadata)


def sample(singles: Reals, axes: dict[str, list[Any]], declared: Analysis = DECLARED, **kept: Any) -> Sample:
    return Sample(table_of(singles, axes), declared, singles=Rows(singles, **kept))


def paired(differences: Reals, shared: float = 5.0) -> tuple[Reals, dict[str, list[Any]]]:
    """Cells of two arms that differ by `differences` (seeds, prompts), and share much else."""
    common = shared * np.random.default_rng(0).normal(size=differences.shape)
    singles = np.stack([common + differences, common], axis=1).reshape(-1, differences.shape[1])
    return singles, {"seed": list(range(len(differences))), "arm": ["a", "b"]}


def both(found: Effect) -> tuple[Any, Any]:
    assert found.fixed
    assert found.new
    return found.fixed, found.new


def test_the_known_answer_of_three_seeds_and_four_prompts_comes_out_of_a_table_and_its_single_prompts() -> None:
    found = sample(*paired(KNOWN)).effect("score", DIFFERENCE)
    fixed, new = both(found)
    assert found.estimate == pytest.approx(0.3666667, abs=1e-7)
    assert (new.error, new.df) == pytest.approx((0.1433721, 4.02388), abs=1e-5)
    assert new.low == pytest.approx(-0.030468, abs=1e-6)
    assert (new.high - new.mean) / new.error == pytest.approx(2.769959, abs=1e-6)
    assert (fixed.error, fixed.high - fixed.mean) == pytest.approx((0.1102396, 0.474323), abs=1e-6)
    assert (found.seeds, found.prompts, found.cells, found.missing) == (3, 4, 6, 0)
    assert found.interval is new
    literal = ttest_1samp(KNOWN.mean(axis=1), 0)
    assert fixed.p == pytest.approx(literal.pvalue)


def test_a_lead_that_is_due_to_the_prompts_is_clear_on_them_and_not_for_new_ones() -> None:
    random = np.random.default_rng(3)
    # Neither arm is better, but each is on other prompts, and the five seeds agree on these: the false headline.
    differences = random.normal(0, 1, 40)[np.newaxis] + random.normal(0, 0.1, (5, 40))
    differences += 0.3 - differences.mean()
    fixed, new = both(sample(*paired(differences)).effect("score", DIFFERENCE))
    assert fixed.p < 1e-4
    assert fixed.low > 0.2
    assert new.p > 0.05
    assert new.low < 0 < new.high


def test_more_seeds_do_not_make_up_for_few_prompts() -> None:
    random = np.random.default_rng(4)
    of_prompts = random.normal(0, 1, 20)
    errors = []
    for seeds in (5, 500):
        differences = of_prompts[np.newaxis] + random.normal(0, 0.3, (seeds, 20))
        errors.append(both(sample(*paired(differences)).effect("score", DIFFERENCE))[1].error)
    assert errors[1] == pytest.approx(np.sqrt(of_prompts.var(ddof=1) / 20), rel=0.05)
    assert errors[1] > 0.9 * errors[0]


def test_a_missing_cell_costs_its_own_pair_only_and_both_statements_use_the_same_pairs() -> None:
    random = np.random.default_rng(5)
    axes: dict[str, list[Any]] = {"seed": [0, 1, 2], "noise": [1, 2, 3], "arm": ["a", "b"]}
    singles = random.normal(size=(18, 6))
    singles[4] = np.nan
    found = sample(singles, axes).effect("score", DIFFERENCE)
    fixed, new = both(found)
    assert (found.cells, found.missing, found.combinations, found.seeds) == (18, 1, 3, 3)
    # Of two arms the pairs follow d = m_noise + a_seed: the missing one is what least squares expects.
    pairs = singles.reshape(3, 3, 2, 6)
    difference = (pairs[:, :, 0] - pairs[:, :, 1]).mean(axis=2)
    seed, noise = np.divmod(np.flatnonzero(np.isfinite(difference).ravel()), 3)
    design = np.concatenate([np.eye(3)[seed], np.eye(3)[noise]], axis=1)
    fit = np.linalg.lstsq(design, difference.ravel()[np.isfinite(difference).ravel()], rcond=None)[0]
    difference[0, 2] = fit[0] + fit[3 + 2]
    literal = ttest_1samp(difference.mean(axis=1), 0)
    assert (fixed.mean, fixed.p) == pytest.approx((difference.mean(), literal.pvalue))
    assert new.mean == pytest.approx(fixed.mean)


def test_prompts_without_a_value_in_some_cell_are_left_out_of_both_statements_and_counted() -> None:
    singles, axes = paired(KNOWN)
    singles[2, 1] = np.nan
    found = sample(singles, axes).effect("score", DIFFERENCE)
    assert found.prompts == 3
    assert "1 of 4 prompts have no score in some cell and are left out" in found.notes
    assert found.estimate == pytest.approx(np.delete(KNOWN, 1, axis=1).mean())


def test_cells_measured_on_different_prompts_say_nothing_of_new_ones() -> None:
    singles, axes = paired(KNOWN)
    found = sample(singles, axes, sets=[0, 0, 0, 0, 1, 1]).effect("score", DIFFERENCE)
    assert found.fixed
    assert found.new is None
    assert found.interval is found.fixed
    assert found.notes == ("different prompts",)


def test_another_random_axis_makes_the_statement_one_for_new_values_of_it() -> None:
    random = np.random.default_rng(6)
    declared = Analysis.model_validate(
        {"primary": {"metric": "score", "better": "higher"}, "random": {"seed": "seed", "policy": "policy"}}
    )
    axes: dict[str, list[Any]] = {"policy": list("pqrst"), "seed": [0, 1, 2], "arm": ["a", "b"]}
    # Each policy has a difference of its own, on which the seeds agree.
    differences = random.normal(0.5, 1, 5)[:, np.newaxis] + random.normal(0, 0.01, (5, 3))
    singles = np.stack([differences, np.zeros((5, 3))], axis=2).reshape(-1, 1)
    of_seeds = sample(singles, axes, Analysis.model_validate({"primary": {"metric": "score", "better": "higher"}}))
    narrow, wide = of_seeds.effect("score", DIFFERENCE), sample(singles, axes, declared).effect("score", DIFFERENCE)
    assert narrow.fixed
    assert narrow.fixed.error < 0.01
    assert wide.fixed
    assert wide.fixed.error == pytest.approx(differences.mean(axis=1).std(ddof=1) / np.sqrt(5), rel=0.01)
    assert wide.fixed.df == pytest.approx(4, abs=0.1)
    assert sample(singles, axes, declared).fixed == "new seeds and new policies"


def test_what_is_the_same_in_every_seed_has_no_interval_and_says_so() -> None:
    found = sample(*paired(np.full((3, 4), 0.25))).effect("score", DIFFERENCE)
    assert found.interval is None
    assert found.estimate == pytest.approx(0.25)
    assert found.notes == ("the same for every seed: there is no interval and no p value",)


def test_of_one_seed_there_is_a_statement_for_new_prompts_and_this_seed() -> None:
    one = sample(*paired(KNOWN[:1]))
    found = one.effect("score", DIFFERENCE)
    literal = ttest_1samp(KNOWN[0], 0)
    assert found.fixed is None
    assert found.new
    assert (found.new.mean, found.new.p) == pytest.approx((KNOWN[0].mean(), literal.pvalue))
    assert one.new == "new prompts, this seed"
    # How many more seeds would be needed, one seed cannot tell.
    assert found.pilot is None


def test_no_warning_denies_the_intervals_that_are_there() -> None:
    one, table = sample(*paired(KNOWN[:1])), table_of(*paired(KNOWN[:1]))
    # One seed has an interval for new prompts.
    assert one.missing_cells(table) == []
    without = Sample(table)
    assert without.missing_cells(table) == [
        "the sweep has no axis `seed` of two or more values: there are no intervals and p values, which need two"
    ]
    singles, axes = paired(KNOWN)
    folds = table_of(singles, {"fold" if axis == "seed" else axis: labels for axis, labels in axes.items()})
    declared = {"primary": {"metric": "score", "better": "higher"}, "random": {"fold": "fold"}}
    found = Sample(folds, Analysis.model_validate(declared))
    assert found.effect("score", DIFFERENCE).fixed
    assert found.missing_cells(folds) == []

"""Paired comparisons: differences of a metric between two values of an axis, from a results table.

**The seeds are the sample.** A seed is a new draw of annotations and fits, and everything else of a sweep is fixed by
its file. Cells of one seed share pairs, labels' luck and test prompts, so they are not independent of each other: an
effect is first averaged within each seed over all other axes, from cells that differ in nothing but the axis at hand,
and these few numbers, one per seed, are tested (`analysis.estimates`). What all cells of a seed share cancels in the
differences.

All comparisons of a call that differ in the two values only are from the same cells (`analysis.blocks.balanced`), so
that their means can be ranked. What was left out is said in `warning`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
import pyarrow as pa

from orchestrator.analysis.blocks import balanced
from orchestrator.analysis.estimates import (
    BOOTSTRAP_SEEDS,
    RESAMPLES,
    ROUNDING,
    SAME,
    Reals,
    adjusted,
    bootstrap_intervals,
    estimate,
    seeds_needed,
)
from orchestrator.analysis.metric_grid import SEED, read_axes, read_metric_grid
from orchestrator.results.metrics import averaged_metrics, metric_problems
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.texts import nearest
from orchestrator.types import Scalar


@dataclass(frozen=True)
class Comparison:
    """Two values of an axis: metric(a) - metric(b), paired by seed. Numbers that cannot be computed are None."""

    metric: str
    axis: str
    a: Scalar
    b: Scalar
    at: Mapping[str, Scalar]
    """The values of the axes of `within`; the mean runs over all others."""
    seeds: int
    """That were used."""
    cells: int
    """Pairs of cells within each seed."""
    mean_a: float | None = None
    mean_b: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    """Ends of the t interval, not adjusted."""
    bootstrap_low: float | None = None
    bootstrap_high: float | None = None
    """Ends of the studentized bootstrap interval, not adjusted."""
    p: float | None = None
    """Two-sided t test of no difference; None also where it is the same in every seed: there is no spread."""
    holm_p: float | None = None
    """Adjusted over all comparisons of the call."""
    effect_size: float | None = None
    """The difference in standard deviations over seeds of the paired difference (Cohen's d_z)."""
    seeds_needed: int | None = None
    """For an interval of the width that was asked for, see `seeds_needed`."""
    warning: str | None = None


def compare(
    table: pa.Table,
    axis: str,
    values: Sequence[Scalar] = (),
    metrics: Sequence[str] = (),
    within: Sequence[str] = (),
    confidence: float = 0.95,
    width: float | None = None,
    resamples: int = RESAMPLES,
) -> list[Comparison]:
    """Compare every two of the values of an axis, for each metric and each combination of the axes of `within`.

    Args:
        table: results table.
        axis: what is varied.
        values: of the axis; none for all.
        metrics: none for all that can be averaged.
        within: axes that are not averaged over.
        confidence: of the intervals.
        width: of the interval that `seeds_needed` aims at.
        resamples: of the bootstrap; 0 leaves its interval out.

    Raises:
        SweepError: no such axis, value or metric.
    """
    _check(table, axis, values, metrics, within)
    grid = read_metric_grid(table, metrics or averaged_metrics(table))
    labels = grid.labels(axis)
    chosen = list(values or labels)
    places = [labels.index(value) for value in chosen]
    cells = grid.arranged_points(axis, within)[:, places]
    found: list[Comparison] = []
    effects: list[Reals] = []
    for metric in grid.metrics:
        arranged = grid.arranged(metric, axis, within)[:, places]
        for group, at in enumerate(product(*(grid.labels(each) for each in within))):
            kept, warning = balanced(arranged[:, :, group], cells[:, :, group], chosen)
            for a, b in combinations(range(len(chosen)), 2):
                bare = Comparison(
                    metric, axis, chosen[a], chosen[b], dict(zip(within, at, strict=True)), 0, 0, warning=warning
                )
                comparison, effect = _compared(bare, kept[:, [a, b]], confidence, width)
                found.append(comparison)
                effects.append(effect)
    found = _with_bootstrap(found, effects, confidence, resamples) if resamples else found
    return [replace(each, holm_p=p) for each, p in zip(found, adjusted([each.p for each in found]), strict=True)]


def _compared(bare: Comparison, both: Reals, confidence: float, width: float | None) -> tuple[Comparison, Reals]:
    """Fill in the numbers of a comparison from values (seeds, 2, others); nothing where one of the two has no number.

    Returns:
        the comparison, and the differences (seeds,) if they are tested.
    """
    if not both.size or np.isnan(both).any():
        return bare, np.empty(0)
    means = both.mean(axis=2)
    effect: Reals = means[:, 0] - means[:, 1]
    rounding = ROUNDING * float(np.abs(both).max())
    difference = float(effect.mean())
    counted = replace(
        bare,
        seeds=both.shape[0],
        cells=both.shape[2],
        mean_a=float(means[:, 0].mean()),
        mean_b=float(means[:, 1].mean()),
        difference=difference if abs(difference) > rounding else 0.0,
    )
    reason = None
    if len(effect) < 2:
        reason = "one seed only: there is no interval and no p value"
    elif float(np.ptp(effect)) <= rounding:
        reason = SAME
    if reason:
        return replace(counted, warning="; ".join(filter(None, (bare.warning, reason)))), np.empty(0)
    found = estimate(effect, confidence)
    return replace(
        counted,
        low=found.low,
        high=found.high,
        p=found.p,
        effect_size=found.mean / found.sd,
        seeds_needed=None if width is None else seeds_needed(found.sd, width, confidence),
    ), effect


def _with_bootstrap(
    found: Sequence[Comparison], effects: Sequence[Reals], confidence: float, resamples: int
) -> list[Comparison]:
    """Add the bootstrap intervals of those that have seeds enough, for each number of seeds all at once."""
    done = list(found)
    for seeds in sorted({len(each) for each in effects if len(each) >= BOOTSTRAP_SEEDS}):
        places = [place for place, each in enumerate(effects) if len(each) == seeds]
        lows, highs = bootstrap_intervals(np.stack([effects[place] for place in places]), confidence, resamples)
        for place, low, high in zip(places, lows.tolist(), highs.tolist(), strict=True):
            done[place] = replace(done[place], bootstrap_low=low, bootstrap_high=high)
    return done


def _check(table: pa.Table, axis: str, values: Sequence[Scalar], metrics: Sequence[str], within: Sequence[str]) -> None:
    problems = metric_problems(table, metrics)
    found = read_axes(table)
    axes = [each for each in found if each != SEED]
    for name in (axis, *within):
        if name == SEED and name in found:
            problems.append(Problem(name, "", "the seeds are the sample, and cannot be compared or held fixed"))
        elif name not in axes:
            problems.append(Problem(name, "", f"there is no axis {name!r}; {nearest(name, axes)}"))
    labels = found.get(axis, ())
    for value in values:
        if value not in labels:
            problems.append(Problem(str(value), "", f"there is no value of {axis} {value!r}; {nearest(value, labels)}"))
    if problems:
        raise SweepError(problems)
    problem = None
    if len(values or labels) < 2:
        problem = "a comparison needs two values"
    elif len(set(values)) < len(values):
        problem = "a value is there twice"
    elif axis in within:
        problem = "this is what is compared, so it cannot be held fixed as well"
    if problem:
        raise SweepError([Problem(axis, "", problem)])

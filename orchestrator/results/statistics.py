"""What a results table says by statistics: differences between values of an axis, and axes against seed noise.

**The seeds are the sample.** A seed is a new draw of annotations and fits, and everything else of a sweep is fixed by
its file. Cells of one seed share pairs, labels' luck and test prompts, so they are not independent of each other: an
effect is first averaged within each seed over all other axes, from cells that differ in nothing but the axis at hand,
and these few numbers, one per seed, are tested. What all cells of a seed share cancels in the differences.

- Interval and p: Student's t over the seeds, n - 1 degrees of freedom (scipy).
- Bootstrap interval, from `BOOTSTRAP_SEEDS` seeds on: studentized (Efron & Tibshirani 1993, section 12.5), resampled
  by `scipy.stats.bootstrap`. It needs no normal effects, and is about 1.3 times as wide as t at five seeds. The plain
  kinds (percentile, basic, BCa) are not offered. The first and the last end within the smallest and the largest of n
  effects, a range that holds the centre of a symmetric distribution with probability 1 - 2^(1-n) only: 75 % at three
  seeds and 94 % at five. Measured coverage in per cent of nominal 95 % intervals, 4,000 draws each:

      effects       normal               exponential
      seeds            3     5    10        3     5    10
      t             95.0  95.4  95.8     87.9  88.3  89.5
      studentized      -  95.4  95.7        -  92.9  93.4
      percentile    75.2  84.2  91.5     68.4  79.4  85.1
      BCa           72.5  84.2  91.1     66.8  80.6  86.7

  (Effects are means of differences over many cells, hence much nearer to normal than to exponential.)
- Holm (statsmodels): p values are adjusted over all comparisons of one call, which are one family.
- Missing cells: all comparisons of a call that differ in the two values only are from the same cells, those of complete
  blocks (`results.blocks`), so that their means can be ranked. Of these the seeds and the combinations of the
  other axes are used at which no block is missing, so that all seeds are averaged over the same cells. What was left
  out is said in `warning`.
- Differences that are the same in every seed have no spread to divide by: interval, p and effect size are None, and
  `warning` says so. The same up to rounding is the same: a relative spread below 1e-12.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.plan.grid import Mask
from orchestrator.results.blocks import complete_blocks
from orchestrator.results.table import averaged_metrics, reported_metrics
from orchestrator.sweep.problems import Problem, SweepError, nearest
from orchestrator.types import Scalar

Reals = NDArray[np.float64]

#: The axis whose values are the sample.
SEED = "seed"
#: With fewer seeds too many resamples repeat one seed only, and have no spread to divide by: at three a ninth of them.
BOOTSTRAP_SEEDS = 5
#: The quantiles of so many resamples are good to a tenth of a percent of coverage.
RESAMPLES = 9_999
#: Seeds needed are looked for up to here.
MOST_SEEDS = 10_000
#: Relatively smaller differences are those of rounding.
_EXACT = 1e-12
_SAME = "where a difference is the same in every seed there is no spread to tell an interval, p or effect size from"


@dataclass(frozen=True)
class Grid:
    """Metrics as arrays with one dimension per axis."""

    axes: Mapping[str, tuple[Scalar, ...]]
    """Axis -> its values that are in the table, in the order of the sweep file."""
    metrics: Mapping[str, Reals]
    """Metric -> values, of shape (len of each axis, …); NaN where a cell is missing, unfinished or lacks the number."""
    points: Mask
    """Which combinations of values are cells of the table, of the same shape."""

    def labels(self, axis: str) -> tuple[Scalar, ...]:
        """The values of an axis; none where there is no such axis."""
        return self.axes.get(axis, ())

    def arranged(self, metric: str, axis: str, within: Sequence[str] = ()) -> Reals:
        """A metric as (seeds, values of the axis, combinations of `within`, combinations of all other axes).

        A sweep without an axis `seed` has one.
        """
        return self._arranged(self.metrics[metric], axis, within)

    def arranged_points(self, axis: str, within: Sequence[str] = ()) -> Mask:
        """Which combinations are cells, arranged alike."""
        return self._arranged(self.points, axis, within)

    def _arranged(self, values: NDArray[Any], axis: str, within: Sequence[str]) -> NDArray[Any]:
        rest = [each for each in self.axes if each not in {SEED, axis, *within}]
        order = list(self.axes)
        if SEED not in self.axes:
            values, order = values[np.newaxis], [SEED, *order]
        values = values.transpose([order.index(each) for each in (SEED, axis, *within, *rest)])
        groups = math.prod(len(self.axes[each]) for each in within)
        return values.reshape(*values.shape[:2], groups, -1)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its t tests."""

    seeds: int
    mean: float
    sd: float
    """Sample standard deviation over the seeds."""
    low: float
    high: float
    """Ends of the two-sided interval."""
    p: float
    """Of "the mean is 0", two-sided."""
    p_greater: float
    """Of "the mean is not positive"."""
    p_less: float
    """Of "the mean is not negative"."""


@dataclass(frozen=True)
class Comparison:
    """Two values of an axis: metric(a) - metric(b), paired by seed. Numbers are None where they cannot be told."""

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


@dataclass(frozen=True)
class AxisEffect:
    """How much an axis moves a metric, against how much the seeds do. Numbers are None where they cannot be told."""

    metric: str
    axis: str
    lowest: Scalar | None = None
    highest: Scalar | None = None
    """The values with the smallest and largest mean."""
    spread: float | None = None
    """The largest mean of a value minus the smallest, the mean running over everything else."""
    noise: float | None = None
    """Standard deviation over seeds of such a mean, after taking out what all cells of a seed share."""
    share: float | None = None
    """Of the variation between all cells (eta squared): sum of squares of the axis over the total."""
    f: float | None = None
    """F of the repeated-measures analysis of variance (statsmodels' AnovaRM): seeds are the subjects."""
    p: float | None = None
    """Of "the axis makes no difference", with the lower-bound correction of Geisser and Greenhouse (1958); None also
    where it makes the same in every seed: there is no spread."""
    holm_p: float | None = None
    """Adjusted over all axes and metrics of the call."""
    warning: str | None = None


def read_axes(table: pa.Table) -> dict[str, tuple[Scalar, ...]]:
    """Axis -> its values that are in a results table (which may be a selection), in the order of the sweep file."""
    found = json.loads(table.schema.metadata[b"axes"])
    there = {axis: set(table[axis].to_pylist()) for axis in found}
    return {axis: tuple(label for label in labels if label in there[axis]) for axis, labels in found.items()}


def read_grid(table: pa.Table, metrics: Sequence[str] = ()) -> Grid:
    """The succeeded cells of a results table as a grid.

    Raises:
        ValueError: a cell is in the table twice.
    """
    axes = read_axes(table)
    positions = {axis: {label: place for place, label in enumerate(labels)} for axis, labels in axes.items()}
    places = [np.array([positions[axis][label] for label in table[axis].to_pylist()], np.intp) for axis in axes]
    shape = tuple(len(labels) for labels in axes.values())
    where = np.ravel_multi_index(places, shape) if len(table) else np.empty(0, np.intp)
    doubles = len(where) - len(np.unique(where))
    if doubles:
        raise ValueError(f"{doubles:,} cells are in the table twice")
    succeeded = np.array([status == "succeeded" for status in table["status"].to_pylist()], np.bool_)
    filled: dict[str, Reals] = {}
    for name in metrics or reported_metrics(table):
        column = np.array(table[name].to_pylist(), np.float64)  # null becomes NaN
        column[~np.isfinite(column)] = np.nan
        values = np.full(math.prod(shape), np.nan)
        values[where[succeeded]] = column[succeeded]
        filled[name] = values.reshape(shape)
    cells = np.zeros(math.prod(shape), np.bool_)
    cells[where] = True
    return Grid(axes, filled, cells.reshape(shape))


def estimate(effects: Reals, confidence: float = 0.95) -> Estimate:
    """Mean of `effects` (seeds,), its t interval, and its t tests against 0.

    Without any spread the interval is a point, and the tests are certain.

    Raises:
        ValueError: fewer than two seeds.
    """
    # scipy.stats takes a second to import; these are the functions that it calls.
    from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]

    if len(effects) < 2:
        raise ValueError(f"a spread needs two seeds or more, not {len(effects)}")
    seeds, mean, sd = len(effects), float(effects.mean()), float(effects.std(ddof=1))
    error = sd / math.sqrt(seeds)
    if error == 0:
        return Estimate(seeds, mean, sd, mean, mean, float(mean == 0), float(mean <= 0), float(mean >= 0))
    half = float(stdtrit(seeds - 1, (1 + confidence) / 2)) * error
    greater, less = (float(stdtr(seeds - 1, sign * mean / error)) for sign in (-1, 1))
    return Estimate(seeds, mean, sd, mean - half, mean + half, min(1.0, 2 * min(greater, less)), greater, less)


def bootstrap_intervals(effects: Reals, confidence: float = 0.95, resamples: int = RESAMPLES) -> tuple[Reals, Reals]:
    """Ends of the studentized bootstrap intervals of the means of `effects` (comparisons, seeds).

    The same input gives the same ends: the resamples are drawn from a fixed seed.
    """
    from scipy.stats import bootstrap  # type: ignore[import-untyped]

    mean = effects.mean(axis=-1)
    error = effects.std(axis=-1, ddof=1) / math.sqrt(effects.shape[-1])

    def studentized(numbers: Reals, centres: Reals, axis: int = -1) -> Reals:
        """`centres` repeats each mean, so that scipy resamples it along: any draw of it is the mean."""
        spread = numbers.std(axis=axis, ddof=1) / math.sqrt(numbers.shape[axis])
        with np.errstate(divide="ignore", invalid="ignore"):
            scores: Reals = (numbers.mean(axis=axis) - centres.mean(axis=axis)) / spread
        return np.clip(np.nan_to_num(scores, nan=0.0), -1e9, 1e9)

    centres = np.repeat(mean[:, np.newaxis], effects.shape[-1], axis=1)
    found = bootstrap(
        (effects, centres), studentized, axis=-1, paired=True, vectorized=True, method="percentile",
        confidence_level=confidence, n_resamples=resamples, batch=max(1, 2**22 // effects.size),
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return mean - found.high * error, mean - found.low * error


def holm(values: Sequence[float]) -> list[float]:
    """p values adjusted for their number (Holm 1979, step-down)."""
    if not values:
        return []
    from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]

    adjusted: list[float] = multipletests(list(values), method="holm")[1].tolist()
    return adjusted


def seeds_needed(sd: float, width: float, confidence: float = 0.95) -> int | None:
    """The smallest number of seeds whose t interval is at most `width` wide, from its low to its high end.

    `sd` is the standard deviation over seeds of what is measured; taken from few seeds it is itself uncertain, and so
    is the answer. None: more than `MOST_SEEDS`.
    """
    from scipy.special import stdtrit

    counts = np.arange(2, MOST_SEEDS + 1)
    widths = 2 * stdtrit(counts - 1, (1 + confidence) / 2) * sd / np.sqrt(counts)
    enough = np.flatnonzero(widths <= width)
    return int(counts[enough[0]]) if len(enough) else None


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
    """Every two of the values of an axis, for each metric and each combination of the axes of `within`.

    Args:
        table: results table.
        axis: what is varied.
        values: of the axis; none for all.
        metrics: none for all reported ones.
        within: axes that are not averaged over.
        confidence: of the intervals.
        width: of the interval that `seeds_needed` aims at.
        resamples: of the bootstrap; 0 leaves its interval out.

    Raises:
        SweepError: no such axis, value or metric.
    """
    grid = read_grid(table, _known_metrics(table, metrics))
    _check_axes(grid, axis, values, within)
    labels = grid.labels(axis)
    chosen = list(values or labels)
    places = [labels.index(value) for value in chosen]
    cells = grid.arranged_points(axis, within)[:, places]
    found: list[Comparison] = []
    effects: list[Reals] = []
    for metric in grid.metrics:
        arranged = grid.arranged(metric, axis, within)[:, places]
        for group, at in enumerate(product(*(grid.labels(each) for each in within))):
            kept, warning = _complete(arranged[:, :, group], cells[:, :, group], chosen)
            for a, b in combinations(range(len(chosen)), 2):
                bare = Comparison(
                    metric, axis, chosen[a], chosen[b], dict(zip(within, at, strict=True)), 0, 0, warning=warning
                )
                comparison, effect = _compared(bare, kept[:, [a, b]], confidence, width)
                found.append(comparison)
                effects.append(effect)
    found = _with_bootstrap(found, effects, confidence, resamples) if resamples else found
    return [replace(each, holm_p=p) for each, p in zip(found, _adjusted([each.p for each in found]), strict=True)]


def _compared(bare: Comparison, both: Reals, confidence: float, width: float | None) -> tuple[Comparison, Reals]:
    """The comparison with its numbers, from values (seeds, 2, others); and the differences (seeds,) if they are tested.

    Nothing is told where one of the two has no number.
    """
    if not both.size or np.isnan(both).any():
        return bare, np.empty(0)
    means = both.mean(axis=2)
    effect: Reals = means[:, 0] - means[:, 1]
    rounding = _EXACT * float(np.abs(both).max())
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
        reason = "one seed only: there is no spread to tell an interval from"
    elif float(np.ptp(effect)) <= rounding:
        reason = _SAME
    if reason:
        return replace(counted, warning="; ".join(filter(None, (bare.warning, reason)))), np.empty(0)
    told = estimate(effect, confidence)
    return replace(
        counted,
        low=told.low,
        high=told.high,
        p=told.p,
        effect_size=told.mean / told.sd,
        seeds_needed=None if width is None else seeds_needed(told.sd, width, confidence),
    ), effect


def _with_bootstrap(
    found: Sequence[Comparison], effects: Sequence[Reals], confidence: float, resamples: int
) -> list[Comparison]:
    """With the bootstrap intervals of those that have seeds enough, all of one number of seeds at once."""
    done = list(found)
    for seeds in sorted({len(each) for each in effects if len(each) >= BOOTSTRAP_SEEDS}):
        places = [place for place, each in enumerate(effects) if len(each) == seeds]
        lows, highs = bootstrap_intervals(np.stack([effects[place] for place in places]), confidence, resamples)
        for place, low, high in zip(places, lows.tolist(), highs.tolist(), strict=True):
            done[place] = replace(done[place], bootstrap_low=low, bootstrap_high=high)
    return done


def axis_effects(table: pa.Table, metrics: Sequence[str] = ()) -> list[AxisEffect]:
    """The effect of each axis of two or more values on each metric, against seed noise; the axis `seed` last.

    Raises:
        SweepError: no such metric.
    """
    grid = read_grid(table, _known_metrics(table, metrics))
    axes = [axis for axis in grid.axes if axis != SEED and len(grid.labels(axis)) > 1]
    found = [
        _axis_effect(grid, metric, axis)
        for metric in grid.metrics
        for axis in [*axes, *([SEED] if len(grid.labels(SEED)) > 1 else [])]
    ]
    return [replace(each, holm_p=p) for each, p in zip(found, _adjusted([each.p for each in found]), strict=True)]


def _axis_effect(grid: Grid, metric: str, axis: str) -> AxisEffect:
    labels = grid.labels(axis)
    if axis == SEED:
        # Every other axis is averaged over; the seeds take the place of the values.
        place, shape = list(grid.axes).index(SEED), (1, len(labels), -1)
        values = np.moveaxis(grid.metrics[metric], place, 0).reshape(shape)
        cells = np.moveaxis(grid.points, place, 0).reshape(shape)
    else:
        values, cells = grid.arranged(metric, axis)[:, :, 0], grid.arranged_points(axis)[:, :, 0]
    kept, warning = _complete(values, cells, labels)
    alive = [level for level in range(len(labels)) if kept.size and not np.isnan(kept[:, level]).any()]
    if len(alive) < 2:
        return AxisEffect(metric, axis, warning=warning)
    kept, labels = kept[:, alive], tuple(labels[level] for level in alive)
    by_seed = kept.mean(axis=2)
    means = by_seed.mean(axis=0)
    rounding = _EXACT * float(np.abs(kept).max())
    spread = float(np.ptp(means))
    total = float(((kept - kept.mean()) ** 2).sum())
    between = kept.shape[0] * kept.shape[2] * float(((means - means.mean()) ** 2).sum())
    effect = AxisEffect(
        metric,
        axis,
        labels[int(means.argmin())],
        labels[int(means.argmax())],
        spread,
        share=min(between / total, 1.0) if float(np.ptp(kept)) > rounding else None,
        warning=warning,
    )
    if spread <= rounding:
        effect = replace(effect, lowest=None, highest=None, spread=0.0)
    seeds, levels = by_seed.shape
    if seeds < 2:
        return effect
    differences = by_seed - by_seed[:, :1]
    if float(np.ptp(differences, axis=0).max()) <= rounding:
        return replace(effect, noise=0.0, warning="; ".join(filter(None, (warning, _SAME))))
    residuals = by_seed - means - by_seed.mean(axis=1, keepdims=True) + means.mean()
    noise = math.sqrt(float((residuals**2).sum()) / ((seeds - 1) * (levels - 1)))
    f, p = _repeated_measures(by_seed)
    return replace(effect, noise=noise, f=f, p=p)


def _repeated_measures(by_seed: Reals) -> tuple[float, float]:
    """F and p of values (seeds, values of the axis) that do not differ in the same way in every seed.

    Differences between some values may scatter more over the seeds than others (no sphericity), so p is taken at 1 and
    seeds - 1 degrees of freedom, the lower bound: never too small, and that of the paired t test for two values.
    """
    import pandas as pd
    from scipy.stats import f as f_distribution
    from statsmodels.stats.anova import AnovaRM  # type: ignore[import-untyped]

    seed, level = (each.ravel() for each in np.indices(by_seed.shape))
    frame = pd.DataFrame({"value": by_seed.ravel(), "seed": seed, "level": level})
    f = float(AnovaRM(frame, "value", "seed", within=["level"]).fit().anova_table["F Value"].iloc[0])
    return f, float(f_distribution.sf(f, 1, len(by_seed) - 1))


def missing_cells(table: pa.Table) -> list[str]:
    """Warnings about cells of the grid without a result."""
    axes = read_axes(table)
    states = Counter(table["status"].to_pylist())
    unfinished = {status: count for status, count in states.most_common() if status != "succeeded"}
    warnings = []
    if unfinished:
        spelled = ", ".join(f"{count:,} {status}" for status, count in unfinished.items())
        warnings.append(f"{sum(unfinished.values()):,} of {table.num_rows:,} cells have no result ({spelled})")
    absent = math.prod(map(len, axes.values())) - table.num_rows
    if absent:
        warnings.append(f"{absent:,} combinations of the axes are not part of the sweep (`exclude`, --only)")
    if len(axes.get(SEED, ())) < 2:
        several = len(json.loads(table.schema.metadata[b"axes"]).get(SEED, ())) > 1
        lack = "these cells are of one seed only" if several else "the sweep has no axis `seed` of two or more values"
        warnings.append(f"{lack}: there is no spread to tell intervals from")
    return warnings


def _complete(values: Reals, cells: Mask, labels: Sequence[Scalar]) -> tuple[Reals, str | None]:
    """Of values (seeds, levels, others) the seeds and others at which no block is incomplete, for the most cells.

    Seeds are given up in order of how much they lack, as long as that keeps more cells. Levels without any number stay,
    as NaN. Returns also what to warn of.
    """
    there = np.isfinite(values)
    if there.all():
        return values, None
    known: Mask = np.logical_or.reduce(there, axis=(0, 2))
    seed, level, other = (each.ravel() for each in np.indices(values.shape))
    kept = complete_blocks(there.ravel(), level, seed * values.shape[2] + other).kept
    complete: Mask = np.logical_or.reduce(kept.reshape(values.shape), axis=1)
    order = np.argsort(-complete.sum(axis=1), kind="stable")
    best, others = order, np.logical_and.reduce(complete, axis=0)
    for count in range(len(order) - 1, 0, -1):
        fewer = np.sort(order[:count])
        common = np.logical_and.reduce(complete[fewer], axis=0)
        if count * common.sum() > len(best) * others.sum():
            best, others = fewer, common
    lacking = [str(label) for label, found in zip(labels, known, strict=True) if not found]
    warnings = [f"no number at all of {', '.join(lacking)}"] if lacking else []
    missing = int((cells & ~there)[:, known].sum())
    absent = int((~cells)[:, known].sum())
    gaps = [_count(missing, "cell without a number", "cells without a number")] if missing else []
    gaps += [_count(absent, "combination not in the sweep", "combinations not in the sweep")] if absent else []
    if known.any() and not others.any():
        together = " and ".join(str(label) for label, found in zip(labels, known, strict=True) if found)
        warnings.append(f"{', '.join(gaps)}: no seed has results at {together} that agree in all other axes")
    elif gaps:
        seeds = f"{len(best)} of {len(order)} seeds and " if len(order) > 1 else ""
        used = f"{int(others.sum()):,} of {len(others):,} combinations of the other axes are used"
        warnings.append(f"{', '.join(gaps)}: {seeds}{used}")
    chosen: Reals = values[np.sort(best)][:, :, others]
    return chosen, "; ".join(warnings)


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _adjusted(values: Sequence[float | None]) -> list[float | None]:
    """Holm over those that are there."""
    adjusted = iter(holm([value for value in values if value is not None]))
    return [None if value is None else next(adjusted) for value in values]


def _known_metrics(table: pa.Table, metrics: Sequence[str]) -> list[str]:
    known, averaged = reported_metrics(table), averaged_metrics(table)
    _refuse([("metric", name, known) for name in metrics if name not in known])
    never = [name for name in metrics if name not in averaged]
    if never:
        message = "is a p value or the end of an interval, of which no mean is taken"
        raise SweepError([Problem(name, "", message) for name in never])
    return list(metrics) or averaged


def _check_axes(grid: Grid, axis: str, values: Sequence[Scalar], within: Sequence[str]) -> None:
    axes = [each for each in grid.axes if each != SEED]
    _refuse([("axis", name, axes) for name in (axis, *within) if name not in axes])
    _refuse([(f"value of {axis}", value, grid.labels(axis)) for value in values if value not in grid.labels(axis)])
    problem = None
    if len(values or grid.labels(axis)) < 2:
        problem = "a comparison needs two values"
    elif len(set(values)) < len(values):
        problem = "a value is there twice"
    elif axis in within:
        problem = "this is what is compared, so it cannot be held fixed as well"
    if problem:
        raise SweepError([Problem(axis, "", problem)])


def _refuse(unknown: Sequence[tuple[str, Scalar, Sequence[Scalar]]]) -> None:
    if unknown:
        hints = [(name, f"there is no {kind} {name!r}; {nearest(name, known)}") for kind, name, known in unknown]
        raise SweepError([Problem(str(name), "", hint) for name, hint in hints])

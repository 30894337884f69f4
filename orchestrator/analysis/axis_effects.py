"""Effects of axes: how much each axis of a sweep moves a metric, against how much the seeds do (analysis of variance).

As in `analysis.comparisons`, the seeds are the sample, and means are over complete blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from orchestrator.analysis.blocks import balanced
from orchestrator.analysis.estimates import ROUNDING, SAME, Reals, adjusted
from orchestrator.analysis.metric_grid import SEED, MetricGrid, read_metric_grid
from orchestrator.analysis.shares import repeated_measures_f
from orchestrator.results.metrics import averaged_metrics, metric_problems
from orchestrator.sweep.problems import SweepError
from orchestrator.types import Scalar


@dataclass(frozen=True)
class AxisEffect:
    """How much an axis moves a metric, against how much the seeds do. Numbers that cannot be computed are None."""

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
    """F of the repeated-measures analysis of variance: seeds are the subjects."""
    p: float | None = None
    """Of "the axis makes no difference", with the lower-bound correction of Geisser and Greenhouse (1958); None also
    where it makes the same in every seed: there is no spread."""
    holm_p: float | None = None
    """Adjusted over all axes and metrics of the call."""
    warning: str | None = None


def axis_effects(table: pa.Table, metrics: Sequence[str] = ()) -> list[AxisEffect]:
    """Measure the effect of each axis of two or more values on each metric against seed noise; the axis `seed` is last.

    Raises:
        SweepError: no such metric.
    """
    if problems := metric_problems(table, metrics):
        raise SweepError(problems)
    grid = read_metric_grid(table, metrics or averaged_metrics(table))
    axes = [axis for axis in grid.axes if axis != SEED and len(grid.labels(axis)) > 1]
    found = [
        _axis_effect(grid, metric, axis)
        for metric in grid.metrics
        for axis in [*axes, *([SEED] if len(grid.labels(SEED)) > 1 else [])]
    ]
    return [replace(each, holm_p=p) for each, p in zip(found, adjusted([each.p for each in found]), strict=True)]


def differ_in_cells(effects: Iterable[AxisEffect]) -> bool:
    """Return whether cells are missing, so that the effects are not all of the same cells."""
    return any(set((each.warning or "").split("; ")) - {"", SAME} for each in effects)


def _axis_effect(grid: MetricGrid, metric: str, axis: str) -> AxisEffect:
    labels = grid.labels(axis)
    if axis == SEED:
        # Every other axis is averaged over; the seeds take the place of the values.
        place, shape = list(grid.axes).index(SEED), (1, len(labels), -1)
        values = np.moveaxis(grid.metrics[metric], place, 0).reshape(shape)
        cells = np.moveaxis(grid.points, place, 0).reshape(shape)
    else:
        values, cells = grid.arranged(metric, axis)[:, :, 0], grid.arranged_points(axis)[:, :, 0]
    kept, warning = balanced(values, cells, labels)
    alive = [level for level in range(len(labels)) if kept.size and not np.isnan(kept[:, level]).any()]
    if len(alive) < 2:
        return AxisEffect(metric, axis, warning=warning)
    kept, labels = kept[:, alive], tuple(labels[level] for level in alive)
    by_seed = kept.mean(axis=2)
    means = by_seed.mean(axis=0)
    rounding = ROUNDING * float(np.abs(kept).max())
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
        return replace(effect, noise=0.0, warning="; ".join(filter(None, (warning, SAME))))
    residuals = by_seed - means - by_seed.mean(axis=1, keepdims=True) + means.mean()
    noise = math.sqrt(float((residuals**2).sum()) / ((seeds - 1) * (levels - 1)))
    f, p = _repeated_measures(by_seed)
    return replace(effect, noise=noise, f=f, p=p)


def _repeated_measures(by_seed: Reals) -> tuple[float, float]:
    """Compute F and p of values (seeds, values of the axis) that do not differ in the same way in every seed.

    Differences between some values may scatter more over the seeds than others (no sphericity), so p is taken at 1 and
    seeds - 1 degrees of freedom, the lower bound: never too small, and that of the paired t test for two values.
    """
    from scipy.special import fdtrc  # type: ignore[import-untyped]

    f = repeated_measures_f(by_seed)
    return f, float(fdtrc(1, len(by_seed) - 1, f))

"""Effects of axes: how much each axis of a sweep moves a metric, against how much the draws of what is random do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from types import MappingProxyType

import numpy as np

from orchestrator.analysis.effect import Sample
from orchestrator.statistics.estimates import ROUNDING, Reals, adjusted
from orchestrator.statistics.shares import Share, repeated_measures_f, shares
from orchestrator.types import Scalar

#: Warns that there is no spread.
SAME = "what an axis makes is the same in every draw: there is no F and no p value"
#: Warns that draws are no sample of independent ones.
CROSSED = "several axes are random and crossed: there is no F and no p value; differences have both (AXIS=V1,V2)"


@dataclass(frozen=True)
class AxisEffect:
    """How much an axis moves a metric. Numbers that cannot be computed are None."""

    metric: str
    axis: str
    at: Mapping[str, Scalar] = field(default_factory=dict)
    """The values of axes that are held fixed; the mean runs over all others."""
    lowest: Scalar | None = None
    highest: Scalar | None = None
    """The values with the smallest and largest mean."""
    spread: float | None = None
    """The largest mean of a value minus the smallest, the mean running over everything else."""
    noise: float | None = None
    """Standard deviation over seeds of such a mean, after taking out what all cells of a seed share."""
    share: float | None = None
    """Of the variation between all cells, what the axis does by itself; None while cells are missing."""
    together: float | None = None
    """Of the variation between all cells, what the axis does only together with others (`statistics.shares`)."""
    f: float | None = None
    """F of the repeated-measures analysis of variance: seeds are the subjects."""
    p: float | None = None
    """Of "the axis makes no difference", with the lower-bound correction of Geisser and Greenhouse (1958)."""
    holm_p: float | None = None
    """Adjusted over all axes and metrics of the call."""
    notes: tuple[str, ...] = ()


def axis_effects(sample: Sample, metrics: Sequence[str] = ()) -> list[AxisEffect]:
    """Measure the effect of each axis of two or more values on each metric; the random ones are last.

    Axes that are never averaged over have no effect of their own: those of the others are measured at each of their
    values.
    """
    grid = sample.grid
    axes = [axis for axis in grid.axes if len(grid.labels(axis)) > 1 and axis not in sample.apart]
    found = []
    for metric in metrics or grid.metrics:
        for labels in product(*(grid.labels(axis) for axis in sample.apart)):
            at = dict(zip(sample.apart, labels, strict=True))
            parts = variance_shares(sample, metric, at)
            for axis in sorted(axes, key=lambda axis: axis in sample.random):
                bare = AxisEffect(metric, axis, at)
                each = bare if axis in sample.random else _axis_effect(sample, bare)
                if parts:
                    alone = math.fsum(part.share for part in parts if part.axes == (axis,))
                    together = math.fsum(part.share for part in parts if axis in part.axes and len(part.axes) > 1)
                    each = replace(each, share=alone, together=together)
                found.append(each)
    return [replace(each, holm_p=p) for each, p in zip(found, adjusted([each.p for each in found]), strict=True)]


def variance_shares(sample: Sample, metric: str, at: Mapping[str, Scalar] = MappingProxyType({})) -> list[Share]:
    """Split the variation of a metric between cells among the axes and their interactions, the largest first.

    Args:
        sample: the results.
        metric: one of its metrics.
        at: only cells with these values.

    Returns:
        shares that sum to 1; nothing while a combination of the axes has no number, or where none varies.
    """
    axes = sample.grid.axes
    place = tuple(axes[axis].index(at[axis]) if axis in at else slice(None) for axis in axes)
    values: Reals = sample.grid.metrics[metric][place]
    if not np.isfinite(values).all():
        return []
    return shares(values, [axis for axis in axes if axis not in at])


def _axis_effect(sample: Sample, bare: AxisEffect) -> AxisEffect:
    axis = bare.axis
    where = {each: [label] for each, label in bare.at.items()}
    found = sample.filled(bare.metric, axis, sample.grid.labels(axis), where)
    effect = replace(bare, notes=found.notes)
    if not found.values.size or len(found.labels) < 2:
        return effect
    by_seed = found.values.mean(axis=1)
    means = by_seed.mean(axis=0)
    rounding = ROUNDING * float(np.abs(found.values).max())
    spread = float(np.ptp(means))
    if spread > rounding:
        lowest, highest = found.labels[int(means.argmin())], found.labels[int(means.argmax())]
        effect = replace(effect, lowest=lowest, highest=highest, spread=spread)
    else:
        effect = replace(effect, spread=0.0)
    seeds, levels = by_seed.shape
    if seeds < 2:
        return effect
    if len(sample.random) > 1:
        return replace(effect, notes=(*found.notes, CROSSED))
    if float(np.ptp(by_seed - by_seed[:, :1], axis=0).max()) <= rounding:
        return replace(effect, noise=0.0, notes=(*found.notes, SAME))
    residuals = by_seed - means - by_seed.mean(axis=1, keepdims=True) + means.mean()
    noise = math.sqrt(float((residuals**2).sum()) / ((seeds - 1) * (levels - 1)))
    f = repeated_measures_f(by_seed)
    # Differences between some values may scatter more over the seeds than others (no sphericity), so p is taken at 1
    # and seeds - 1 degrees of freedom, the lower bound: never too small, and that of the t test for two values.
    from scipy.special import fdtrc  # type: ignore[import-untyped]

    return replace(effect, noise=noise, f=f, p=float(fdtrc(1, seeds - 1, f)))

"""Sums of squares of a complete array: how much of its variation belongs to each set of its axes.

An array is the sum of effects, one for each set of axes: the grand mean, the main effects, and interactions of ever
higher order. Each is what averaging over all other axes leaves, minus the effects of smaller sets. As every combination
is there once, the effects are orthogonal, and their sums of squares add up to that of the centred array.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from orchestrator.statistics.estimates import Reals

#: A set of axes, in the order of the array.
Axes = tuple[str, ...]


def sums_of_squares(values: Reals, axes: Sequence[str]) -> dict[Axes, float]:
    """Compute the sum of squares of the effect of every non-empty set of axes, smaller sets first, in one more copy.

    Args:
        values: of any number of axes, one value per combination.
        axes: their names.

    Raises:
        ValueError: the names are not as many as the axes, or a value is missing or infinite.
    """
    work = np.array(values, np.float64, order="C")
    if work.ndim != len(axes) or len(set(axes)) != len(axes):
        raise ValueError(f"{', '.join(axes)} are not the names of {work.ndim} axes")
    centre = float(work.mean()) if work.size else math.nan
    if not math.isfinite(centre):
        raise ValueError("an analysis of variance needs a finite value at every combination")
    work -= centre
    found = dict(_effects(work, tuple(axes), ()))
    return {subset: found[subset] for size in range(1, work.ndim + 1) for subset in combinations(axes, size)}


def degrees_of_freedom(values: Reals, axes: Sequence[str], subset: Axes) -> int:
    """Return how many numbers of the effect of a set of axes are free."""
    return math.prod(values.shape[axes.index(axis)] - 1 for axis in subset)


def _effects(work: Reals, axes: Axes, centred: Axes) -> Iterator[tuple[Axes, float]]:
    """Yield set of axes -> sum of squares; `work` is overwritten. Axes before these are averaged over or centred."""
    place = work.ndim - len(axes)
    if not axes:
        yield centred, float(np.einsum("i,i->", work.ravel(), work.ravel()))
        return
    mean = work.mean(axis=place, keepdims=True)
    count = work.shape[place]
    # `work` is centred in place below, so its mean goes first, and is used up by then.
    averaged = list(_effects(mean.copy(), axes[1:], centred))
    work -= mean
    yield from ((subset, square * count) for subset, square in averaged)
    yield from _effects(work, axes[1:], (*centred, axes[0]))

"""Contrasts: differences and slopes of a metric, as one number for each value of what is random.

A contrast is a product of weights, one set for each axis: plus and minus one for two values that are compared, centred
weights for a slope, equal weights for every axis that is averaged over. It is computed from all pairs that are there
(`statistics.available`), and balanced over the other axes: each of their combinations counts the same, however many of
its cells are missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from orchestrator.analysis.metric_grid import MetricGrid
from orchestrator.statistics.estimates import Reals
from orchestrator.sweep.analysis import Contrast
from orchestrator.types import Scalar


@dataclass(frozen=True)
class Weights:
    """A contrast of cells: what is weighted, and which cells count."""

    arms: Mapping[str, Mapping[Scalar, float]]
    """Axis that is contrasted -> the weights of its values, which sum to 0."""
    at: Mapping[str, Sequence[Scalar]] = field(default_factory=dict)
    """Axis -> its values that count; all of those of other axes do."""

    def labels(self, grid: MetricGrid, axis: str) -> list[Scalar]:
        """Return the values of an axis that count."""
        if axis in self.arms:
            return list(self.arms[axis])
        return grid.chosen(axis, self.at)


@dataclass(frozen=True)
class Arranged:
    """The cells of a contrast, arranged for `statistics.available`."""

    values: Reals
    """(units, combinations of the averaged axes, arms); NaN where there is no number."""
    rows: np.ndarray
    """Of the same shape: the rows of the table that they are from; -1 where there is no such cell."""
    weights: Reals
    """(arms,)"""
    units: tuple[int, ...]
    """The number of values of each random axis; their product is the number of units."""
    averaged: tuple[str, ...]
    """The axes of the combinations that have two values or more."""


def weights_of(
    contrast: Contrast, pair: tuple[Scalar, Scalar] | None, grid: MetricGrid, at: Mapping[str, Sequence[Scalar]]
) -> Weights:
    """Return the weights of a contrast of the grammar.

    Args:
        contrast: what is declared.
        pair: the two values that the outermost comparison is of; None for a slope.
        grid: whose values of the axes there are.
        at: axis -> its values that count.
    """
    arms: dict[str, Mapping[Scalar, float]] = {}
    for layer in contrast.layers:
        if layer.slope is not None:
            arms[layer.axis] = slope_weights(grid.chosen(layer.axis, at), layer.log)
        else:
            first, second = pair if pair and layer is contrast else layer.values
            arms[layer.axis] = {first: 1.0, second: -1.0}
    return Weights(arms, {axis: labels for axis, labels in at.items() if axis not in arms})


def format_difference(axis: str, *values: Scalar) -> str:
    """Name a difference: "clf_mlp - bt_mlp", "beta 0.5 - 1"; names speak for themselves, numbers do not."""
    told = " - ".join(map(str, values))
    return told if all(isinstance(value, str) for value in values) else f"{axis} {told}"


def slope_weights(labels: Sequence[Scalar], log: bool) -> dict[Scalar, float]:
    """Return the weights of a least-squares slope: per unit, or per doubling where `log`."""
    x = np.array([math.log2(float(label)) if log else float(label) for label in labels])
    centred = x - x.mean()
    squares = float((centred**2).sum())
    return dict(zip(labels, (centred / squares).tolist(), strict=True)) if squares else {}


def arrange(grid: MetricGrid, metric: str, weights: Weights, random: Sequence[str]) -> Arranged:
    """Arrange the cells of a contrast.

    Args:
        grid: metrics by coordinates.
        metric: one of its metrics.
        weights: the contrast.
        random: the axes whose values are the sample, the seed first; one that the grid lacks has one value.
    """
    there = [axis for axis in random if axis in grid.axes]
    arms = [axis for axis in grid.axes if axis in weights.arms]
    others = [axis for axis in grid.axes if axis not in there and axis not in arms]
    chosen = {axis: weights.labels(grid, axis) for axis in grid.axes}
    places = [[grid.axes[axis].index(label) for label in chosen[axis]] for axis in grid.axes]
    order = [list(grid.axes).index(axis) for axis in (*there, *others, *arms)]
    shape = tuple(math.prod(len(chosen[axis]) for axis in axes) for axes in (there, others, arms))
    place = np.ix_(*places)
    values: Reals = grid.metrics[metric][place].transpose(order).reshape(shape)
    rows = grid.rows[place].transpose(order).reshape(shape)
    of_arms: Reals = np.array([math.prod(each) for each in product(*(weights.arms[axis].values() for axis in arms))])
    return Arranged(
        values,
        rows,
        of_arms,
        tuple(len(chosen[axis]) for axis in there) or (1,),
        tuple(axis for axis in others if len(chosen[axis]) > 1),
    )

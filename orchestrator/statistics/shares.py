"""Shares of variance: what part of the variation of a metric belongs to each axis, and to each set of axes together.

The functional analysis of variance of a complete array (`statistics.sums_of_squares`). The shares add up to 1, so that
an axis which only matters at some values of another is not taken for one that does nothing. Unlike eta squared, which
is the share itself, omega squared takes off what the residual alone would put there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.statistics.estimates import ROUNDING, Reals
from orchestrator.statistics.sums_of_squares import Axes, degrees_of_freedom, sums_of_squares


@dataclass(frozen=True)
class Share:
    """The part of a set of axes in the variation of an array: of one its effect, of more their interaction."""

    axes: Axes
    sum_of_squares: float
    df: int
    share: float
    """Of the total sum of squares (eta squared)."""
    omega_squared: float | None = None
    """The share less that of chance, at least 0; None without a residual, and for the residual itself."""


def shares(values: Reals, axes: Sequence[str], residual: Sequence[str] = ()) -> list[Share]:
    """Split the variation of a complete array among all sets of its axes, the largest share first.

    Args:
        values: one for each combination.
        axes: names of the axes; those of one value have no share.
        residual: axes whose every effect and interaction is chance, such as a replicate, taken together as one share;
            all axes for the interaction of the highest order alone. None when left out.

    Returns:
        shares of which `math.fsum` is 1; nothing where all values are the same up to rounding.

    Raises:
        ValueError: the names do not fit, or a value is missing.
    """
    if strange := set(residual) - set(axes):
        raise ValueError(f"{', '.join(sorted(strange))} is none of the axes {', '.join(axes)}")
    found = sums_of_squares(values, axes)
    if np.ptp(values) <= ROUNDING * float(np.abs(values).max()):
        return []
    freedom = {subset: df for subset in found if (df := degrees_of_freedom(values, axes, subset))}
    chance = [subset for subset in freedom if residual and set(residual) <= set(subset)]
    rest, rest_df = math.fsum(found[subset] for subset in chance), sum(freedom[subset] for subset in chance)
    total = math.fsum(found[subset] for subset in freedom)

    def omega_squared(square: float, df: int) -> float | None:
        if not rest_df:
            return None
        mean_square = rest / rest_df
        return max(square - df * mean_square, 0.0) / (total + mean_square)

    split = [
        Share(subset, found[subset], df, found[subset] / total, omega_squared(found[subset], df))
        for subset, df in freedom.items()
        if subset not in chance
    ]
    if rest_df:
        split.append(Share(tuple(axis for axis in axes if axis in residual), rest, rest_df, rest / total))
    split.sort(key=lambda each: -each.share)
    # The largest takes the rounding, so that they add up.
    largest = math.fsum([1.0, *(-each.share for each in split[1:])])
    return [Share(split[0].axes, split[0].sum_of_squares, split[0].df, largest, split[0].omega_squared), *split[1:]]


def repeated_measures_f(by_seed: Reals) -> float:
    """Compute F of values (seeds, values of an axis): the axis against its interaction with the seeds.

    The same as statsmodels' AnovaRM, which takes gigabytes for a few hundred of each. The differences between values of
    the axis must not be the same in all seeds: there would be nothing to divide by.
    """
    square = sums_of_squares(by_seed, ("seed", "axis"))
    return square["axis",] / square["seed", "axis"] * (len(by_seed) - 1)

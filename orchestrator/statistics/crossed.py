"""Inference on a mean whose factors are crossed random samples: seeds, test prompts, policies, data sets.

A contrast has one value for every combination of seed and prompt. Over the seeds alone its mean says something of new
seeds *on these prompts*; of new seeds and new prompts it says less, and no number of seeds makes up for few prompts.
With d_sp = mean + a_s + b_p + e_sp, the mean squares A of the seeds, B of the prompts, E of the rest, and A and B
raised to at least E, the variance of the mean is (A + B - E) / (S P), with Satterthwaite's degrees of freedom (1946)

    (A + B - E)^2 / (A^2 / (S - 1) + B^2 / (P - 1) + E^2 / ((S - 1) (P - 1))).

lme4 with lmerTest finds the same by REML. For more factors: the fully crossed random model, one value per combination.
Its components are estimated from the expected mean squares, from the highest order down, and never below zero; a raised
mean square is the one that these components expect, and the mean squares of sets of one, two, three … factors enter
with signs + - + …. Subtracted mean squares can take the degrees of freedom below those of the smallest factor (.6 of a
2 by 4 array); they are not let below: measured coverage stays above the nominal one, at a third of the width.

Where no factor has an effect of its own, the interval is wide rather than wrong: 99 to 100 % coverage at nominal 95 %.
With two seeds it covers about 93 % (`tests/calibration/results.md`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.statistics.estimates import ROUNDING, Reals
from orchestrator.statistics.sums_of_squares import Axes, degrees_of_freedom, sums_of_squares

#: The smallest p value.
_LEAST = 1e-300


@dataclass(frozen=True)
class Interval:
    """A mean, its standard error, its t interval and its t tests.

    Without any spread (up to rounding) the interval is a point, and there is nothing to divide by: degrees of freedom
    and p values are None.
    """

    mean: float
    error: float
    """Standard error of the mean."""
    df: float | None
    """Degrees of freedom of the standard error."""
    low: float
    high: float
    """Ends of the two-sided interval."""
    p: float | None
    """Of "the mean is 0", two-sided."""
    p_greater: float | None
    """Of "the mean is not positive"."""
    p_less: float | None
    """Of "the mean is not negative"."""
    parts: tuple[tuple[float, float], ...] = ()
    """Parts of the variance that come from several factors: share, degrees of freedom."""

    def at(self, confidence: float) -> Interval:
        """Return the same with the interval of another confidence."""
        return replace(interval(self.mean, self.error, self.df, confidence), parts=self.parts)

    def p_above(self, threshold: float) -> float | None:
        """Return the one-sided p value of "the mean is not above the threshold"; None without spread.

        The larger of this at -margin and `p_below` at +margin is that of "not equivalent" (two one-sided tests). Where
        several factors are random, it is the larger one of Satterthwaite's and that of Cochran and Cox (1950), whose
        quantile is the mean of those of the factors, weighted by their parts of the variance. Either has a far tail,
        which Holm's correction looks at, that is too thin somewhere (`tests/calibration/results.md`).
        """
        return self._upper_tail(self.mean - threshold)

    def p_below(self, threshold: float) -> float | None:
        """Return the one-sided p value of "the mean is not below the threshold"; None without spread."""
        return self._upper_tail(threshold - self.mean)

    @property
    def family_p(self) -> float | None:
        """The two-sided p value of "the mean is 0" for a family of tests; see `p_above`."""
        above, below = self.p_above(0.0), self.p_below(0.0)
        return None if above is None or below is None else min(1.0, 2 * min(above, below))

    def _upper_tail(self, excess: float) -> float | None:
        from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]

        if self.df is None:
            return None
        t = excess / self.error
        if len(self.parts) < 2:
            return float(stdtr(self.df, -t))
        from scipy.optimize import brentq  # type: ignore[import-untyped]

        shares, freedom = (np.array(each) for each in zip(*self.parts, strict=True))
        tails = np.maximum(stdtr(freedom, -abs(t)), _LEAST)
        # The quantile at the smallest of the factors' own p values is not below t, that at the largest is not above.
        low, high = math.log(tails.min()) - 1e-9, math.log(tails.max()) + 1e-9

        def beyond(log: float) -> float:
            return -float(shares @ stdtrit(freedom, math.exp(log))) - abs(t)

        # Up to rounding; and what is smaller than any p value that is told is that.
        if beyond(low) <= 0 or beyond(high) >= 0:
            p = math.exp(low if beyond(low) <= 0 else high)
        else:
            p = math.exp(brentq(beyond, low, high))
        p = max(p, float(stdtr(self.df, -abs(t))))
        return p if t > 0 else 1 - p


@dataclass(frozen=True)
class Crossed:
    """What is known of a mean, for each choice of what a replication would draw anew."""

    fixed: Mapping[str, Interval]
    """Factor -> interval where only that factor is drawn anew: the t over its means."""
    all: Interval
    """Where every factor is drawn anew."""
    components: Mapping[Axes, float]
    """Set of factors -> the variance that its effect or interaction has, at least 0."""


def crossed(values: Reals, names: Sequence[str], confidence: float = 0.95, scale: float = 0.0) -> Crossed:
    """Estimate the mean of `values`, every axis of which is a random factor.

    Args:
        values: a contrast, one value for each combination: (seeds,), (seeds, prompts), (seeds, policies, prompts), ….
        names: of the factors.
        confidence: of the intervals.
        scale: the largest absolute value of what the contrast was taken of, so that its rounding is known.

    Raises:
        ValueError: a factor has one value only, a value is missing, or there are not as many names as axes.
    """
    names = tuple(names)
    for name, size in zip(names, values.shape, strict=False):
        if size < 2:
            raise ValueError(f"{'no' if size == 0 else 'one'} {name} only: a spread over {name} needs two or more")
    squares = sums_of_squares(values, names)
    freedom = {subset: degrees_of_freedom(values, names, subset) for subset in squares}
    found = {subset: square / freedom[subset] for subset, square in squares.items()}
    weight = {subset: values.size // _size(values, names, subset) for subset in squares}
    components, raised = _components(found, weight)
    # Of the variances of the mean, this is the sum of each component over the number of draws that it is averaged over.
    total = math.fsum(weight[subset] * component for subset, component in components.items())
    rounding = ROUNDING * max(scale, -float(values.min()), float(values.max()))
    mean = float(values.mean(dtype=np.float64))
    mean = mean if abs(mean) > rounding else 0.0

    def estimated(mean_square: float, df: float) -> Interval:
        error = math.sqrt(mean_square / values.size)
        return interval(mean, error, df, confidence) if error > rounding else interval(mean, 0.0, None, confidence)

    fixed = {name: estimated(found[name,], freedom[name,]) for name in names}
    if len(names) == 1:
        return Crossed(fixed, fixed[names[0]], components)
    least = min(values.shape) - 1.0
    satterthwaite = 1 / math.fsum((raised[each] / total) ** 2 / freedom[each] for each in raised) if total else least
    whole = estimated(total, max(satterthwaite, least))
    if whole.df is not None:
        shares = ((weight[each] * component / total, freedom[each]) for each, component in components.items())
        whole = replace(whole, parts=tuple((share, df) for share, df in shares if share))
    return Crossed(fixed, whole, components)


def interval(mean: float, error: float, df: float | None, confidence: float = 0.95) -> Interval:
    """Return the t interval and the t tests of a mean; without degrees of freedom a point without tests."""
    from scipy.special import stdtr, stdtrit

    if df is None:
        return Interval(mean, error, None, mean, mean, None, None, None)
    half = float(stdtrit(df, (1 + confidence) / 2)) * error
    greater, less = (float(stdtr(df, sign * mean / error)) for sign in (-1, 1))
    return Interval(mean, error, df, mean - half, mean + half, min(1.0, 2 * min(greater, less)), greater, less)


def _components(found: Mapping[Axes, float], weight: Mapping[Axes, int]) -> tuple[dict[Axes, float], dict[Axes, float]]:
    """Return the variance components, and the mean squares that they expect.

    Args:
        found: set of factors -> mean square; smaller sets come first.
        weight: set of factors -> how many values share one of its effects.
    """
    components: dict[Axes, float] = {}
    raised: dict[Axes, float] = {}
    for subset in reversed(list(found)):
        above = math.fsum(weight[each] * components[each] for each in components if set(subset) < set(each))
        components[subset] = max(found[subset] - above, 0.0) / weight[subset]
        raised[subset] = max(found[subset], above)
    return {subset: components[subset] for subset in found}, raised


def _size(values: Reals, names: Axes, subset: Axes) -> int:
    return math.prod(values.shape[names.index(name)] for name in subset)

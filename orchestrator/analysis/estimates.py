"""Estimates from a few effects, one per seed: mean, intervals, p values, and how many seeds are needed.

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
- Holm (statsmodels): p values are adjusted over all lines of one call, which are one family.
- Effects that are the same in every seed have no spread to divide by: interval, p and effect size are None, and a
  warning says so. The same up to rounding is the same: a relative spread below `ROUNDING`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

#: With fewer seeds too many resamples repeat one seed only, and have no spread to divide by: at three a ninth of them.
BOOTSTRAP_SEEDS = 5
#: The quantiles of so many resamples are good to a tenth of a percent of coverage.
RESAMPLES = 9_999
#: Seeds needed are looked for up to here.
MOST_SEEDS = 10_000
#: Relatively smaller differences are those of rounding.
ROUNDING = 1e-12
#: Warns that there is no spread.
SAME = "a difference that is the same in every seed has no interval, p value or effect size"


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, its interval and its t tests."""

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


def estimate(effects: Reals, confidence: float = 0.95) -> Estimate:
    """Estimate the mean of `effects` (seeds,) with its t interval, and test it against 0.

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
    """Compute the studentized bootstrap intervals of the means of `effects` (comparisons, seeds).

    The same input gives the same ends: the resamples are drawn from a fixed seed.

    Returns:
        (comparisons,) lower and (comparisons,) upper ends.
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


def seeds_needed(sd: float, width: float, confidence: float = 0.95) -> int | None:
    """Return the smallest number of seeds whose t interval is at most `width` wide; None above `MOST_SEEDS`.

    Args:
        sd: standard deviation over seeds of what is measured; from few seeds it is uncertain, and so is the answer.
        width: from the lower to the upper end of the interval.
        confidence: of the interval.
    """
    from scipy.special import stdtrit

    counts = np.arange(2, MOST_SEEDS + 1)
    widths = 2 * stdtrit(counts - 1, (1 + confidence) / 2) * sd / np.sqrt(counts)
    enough = np.flatnonzero(widths <= width)
    return int(counts[enough[0]]) if len(enough) else None


def holm(values: Sequence[float]) -> list[float]:
    """Adjust p values for their number (Holm 1979, step-down)."""
    if not values:
        return []
    from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]

    adjusted: list[float] = multipletests(list(values), method="holm")[1].tolist()
    return adjusted


def adjusted(values: Sequence[float | None]) -> list[float | None]:
    """Adjust those p values that are there by Holm; None stays None."""
    found = iter(holm([value for value in values if value is not None]))
    return [None if value is None else next(found) for value in values]

"""The product-weight bootstrap of a mean whose factors are crossed random samples (Owen & Eckles 2012).

Every seed and every prompt gets a random weight, a value the product of its weights, and a draw is the weighted mean:
resampling whole seeds and whole prompts, in other words, and it needs no model of the values. The weights are Poisson
with mean 1; draws in which all of a factor are 0 (5 % of three seeds) are drawn again. No bootstrap of a crossed array
is exact (McCullagh 2000): the interaction counts about three times, and few seeds are too few to resample. So it is
shown beside the interval of `statistics.crossed`, not instead (`tests/calibration/results.md`).
"""

from __future__ import annotations

import numpy as np

from orchestrator.statistics.estimates import ROUNDING, Reals

#: The ends of a 95 % interval are known to 1.5 % of its width (one standard error).
DRAWS = 2_000
#: So many weights of one factor are drawn at a time.
_AT_ONCE = 2**20


def product_bootstrap(values: Reals, confidence: float = 0.95, draws: int = DRAWS) -> tuple[float, float]:
    """Compute the percentile interval of the mean of `values`, every axis of which is a random factor.

    The same input gives the same ends: the weights are drawn from a fixed seed.

    Args:
        values: one for each combination, such as (seeds, prompts).
        confidence: of the interval.
        draws: how many.

    Returns:
        the lower and the upper end; both the mean where there is no spread.

    Raises:
        ValueError: a factor has one value only, or a value is missing.
    """
    if min(values.shape, default=0) < 2:
        raise ValueError(f"a bootstrap needs two or more values of every factor, not {values.shape}")
    centre = float(values.mean(dtype=np.float64))
    if not np.isfinite(centre):
        raise ValueError("a bootstrap needs a finite value at every combination")
    if np.ptp(values) <= ROUNDING * float(np.abs(values).max()):
        return centre, centre
    random = np.random.default_rng(0)
    # The longest factor is averaged over first, so that no array is larger than its weights.
    ordered = np.transpose(values, np.argsort([-size for size in values.shape], kind="stable")) - centre
    batch = max(1, _AT_ONCE // max(values.shape))
    means = np.concatenate([_weighted(ordered, min(batch, draws - done), random) for done in range(0, draws, batch)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return centre + low, centre + high


def _weighted(values: Reals, draws: int, random: np.random.Generator) -> Reals:
    """Draw weighted means (draws,)."""
    rest: Reals = values[np.newaxis]
    for size in values.shape:
        weights = random.poisson(1.0, (draws, size)).astype(np.float64)
        while (empty := ~weights.any(axis=1)).any():
            weights[empty] = random.poisson(1.0, (int(empty.sum()), size))
        weights /= weights.sum(axis=1, keepdims=True)
        # Not by BLAS, whose sums may depend on the number of its threads.
        rest = (
            np.einsum("ds,es...->d...", weights, rest) if len(rest) == 1 else np.einsum("ds,ds...->d...", weights, rest)
        )
    return rest

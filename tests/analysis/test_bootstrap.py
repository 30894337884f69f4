"""The product-weight bootstrap: against the array of draws that it never builds, and against what is known of it."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import norm, poisson

from orchestrator.statistics.bootstrap import product_bootstrap

VALUES = np.random.default_rng(3).standard_normal((4, 30)) + np.random.default_rng(4).standard_normal((4, 1))


def test_a_draw_weighs_each_value_by_the_product_of_its_weights() -> None:
    random = np.random.default_rng(0)

    def drawn(size: int) -> np.ndarray:
        found = random.poisson(1.0, (2000, size))
        while (empty := ~found.any(axis=1)).any():
            found[empty] = random.poisson(1.0, (empty.sum(), size))
        return found

    prompts, seeds = drawn(30), drawn(4)
    weights = seeds[:, :, np.newaxis] * prompts[:, np.newaxis, :]
    means = (weights * VALUES).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))
    assert product_bootstrap(VALUES) == pytest.approx(np.quantile(means, [0.025, 0.975]))
    assert product_bootstrap(VALUES, 0.8) == pytest.approx(np.quantile(means, [0.1, 0.9]))


@pytest.mark.parametrize("shape", [(20,), (5, 400), (4, 3, 50)])
def test_the_interval_is_as_wide_as_the_weights_make_it(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    values = sum(
        random.standard_normal([size if each == axis else 1 for each in range(len(shape))])
        for axis, size in enumerate(shape)
    )
    # Given their sum N the weights of n values are multinomial: a sample variance over n counts (n - 1) E[1 / N] of
    # what it does in the standard error of a mean.
    variance = 0.0
    for axis, size in enumerate(shape):
        means = values.mean(axis=tuple(each for each in range(len(shape)) if each != axis))
        sums = np.arange(1, 10 * size + 100)
        inverse = (poisson.pmf(sums, size) / sums).sum() / (1 - poisson.pmf(0, size))
        variance += means.var(ddof=1) / size * (size - 1) * inverse
    low, high = product_bootstrap(values, draws=20_000)
    assert high - low == pytest.approx(2 * norm.isf(0.025) * math.sqrt(variance), rel=0.07)


def test_the_order_of_the_factors_makes_no_difference() -> None:
    assert product_bootstrap(VALUES.T.copy()) == pytest.approx(product_bootstrap(VALUES))


def test_the_same_input_gives_the_same_bytes_in_another_process() -> None:
    code = (
        "import numpy as np; from orchestrator.statistics.bootstrap import product_bootstrap; "
        "print(product_bootstrap(np.random.default_rng(0).standard_normal((3, 3000))))"
    )
    found = product_bootstrap(np.random.default_rng(0).standard_normal((3, 3000)))
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert other.stdout == f"{found}\n"


def test_a_constant_moves_the_ends_by_itself() -> None:
    low, high = product_bootstrap(VALUES)
    assert product_bootstrap(VALUES + 5) == pytest.approx((low + 5, high + 5))


def test_without_spread_both_ends_are_the_mean() -> None:
    assert product_bootstrap(np.full((3, 4), 0.1)) == (pytest.approx(0.1), pytest.approx(0.1))
    assert product_bootstrap(np.zeros(5)) == (0.0, 0.0)


@pytest.mark.parametrize("shape", [(1, 4), (3, 1), (0, 2), ()])
def test_a_factor_of_one_value_cannot_be_resampled(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="two or more values of every factor"):
        product_bootstrap(np.zeros(shape))


def test_a_missing_value_cannot_be_resampled() -> None:
    with pytest.raises(ValueError, match="a finite value at every combination"):
        product_bootstrap(np.array([1.0, math.nan]))

"""Power, assurance and effect sizes: known answers, and simulations of experiments that nobody will run."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from orchestrator.statistics.power import Pilot, assurance, effect_size, most_assurance, plain_power, seeds_for

#: Five seeds whose mean is one standard deviation.
LUCKY = Pilot(0.05, 5, 0.05**2)
PROMPTS = Pilot(0.05, 5, 0.05**2, prompts=200, prompt=0.05, rest=0.3)
RUNS = 40_000


@pytest.mark.parametrize(("seeds", "known"), [(5, 0.40), (10, 0.64), (20, 0.78), (40, 0.86)])
def test_assurance_is_what_is_known_of_five_lucky_seeds(seeds: int, known: float) -> None:
    assert assurance(LUCKY, seeds) == pytest.approx(known, abs=0.01)


def test_assurance_tends_to_the_probability_that_the_claim_is_true() -> None:
    assert most_assurance(LUCKY) == pytest.approx(0.9555, abs=0.001)
    assert most_assurance(LUCKY, above=0.02) == pytest.approx(stdtr(4, 0.03 / 0.05 * math.sqrt(5)), abs=0.002)
    assert most_assurance(Pilot(-0.05, 5, 0.05**2)) == pytest.approx(1 - 0.9555, abs=0.001)


def test_seeds_for_a_power_are_the_fewest_and_none_where_no_number_is_enough() -> None:
    seeds = seeds_for(0.8, LUCKY)
    assert seeds is not None
    assert assurance(LUCKY, seeds - 1) < 0.8 <= assurance(LUCKY, seeds)
    assert seeds_for(0.96, LUCKY) is None
    assert seeds_for(0.9, PROMPTS) is None
    assert seeds_for(0.0, LUCKY) == 2


def simulated(pilot: Pilot, seeds: int, above: float, below: float, alpha: float) -> float:
    """Worlds that the pilot leaves open, an experiment in each, and its tests as they are in `statistics.crossed`."""
    random = np.random.default_rng(0)

    def drawn(mean_square: NDArray[np.float64] | float, df: int) -> NDArray[np.float64]:
        return mean_square * random.chisquare(df, RUNS) / df

    old, prompts, p = pilot.seeds - 1, pilot.prompts - 1, pilot.prompts
    if p == 1:
        variance = pilot.seed * old / random.chisquare(old, RUNS)
        mean = pilot.mean + np.sqrt(variance / pilot.seeds) * random.standard_normal(RUNS)
        found = mean + np.sqrt(variance / seeds) * random.standard_normal(RUNS)
        error, df = np.sqrt(drawn(1.0, seeds - 1) * variance / seeds), np.full(RUNS, seeds - 1.0)
    else:
        e = pilot.rest * old * prompts / random.chisquare(old * prompts, RUNS)
        a = np.maximum((pilot.rest + p * pilot.seed) * old / random.chisquare(old, RUNS), e)
        b = np.maximum((pilot.rest + pilot.seeds * pilot.prompt) * prompts / random.chisquare(prompts, RUNS), e)
        mean = pilot.mean + np.sqrt((a + b - e) / (pilot.seeds * p)) * random.standard_normal(RUNS)
        b = e + (b - e) / pilot.seeds * seeds
        found = mean + np.sqrt((a + b - e) / (seeds * p)) * random.standard_normal(RUNS)
        e = drawn(e, (seeds - 1) * prompts)
        a, b = np.maximum(drawn(a, seeds - 1), e), np.maximum(drawn(b, prompts), e)
        total = a + b - e
        df = total**2 / (a**2 / (seeds - 1) + b**2 / prompts + e**2 / ((seeds - 1) * prompts))
        error = np.sqrt(total / (seeds * p))
    half = stdtrit(df, 1 - alpha) * error
    return float(np.mean((found - half > above) & (found + half < below)))


@pytest.mark.parametrize("pilot", [LUCKY, PROMPTS])
@pytest.mark.parametrize("seeds", [3, 10, 40])
@pytest.mark.parametrize(
    ("above", "below", "alpha"), [(0.0, math.inf, 0.025), (-0.02, math.inf, 0.05), (-0.1, 0.1, 0.05)]
)
def test_assurance_is_the_share_of_simulated_experiments_that_show_the_claim(
    pilot: Pilot, seeds: int, above: float, below: float, alpha: float
) -> None:
    literal = simulated(pilot, seeds, above, below, alpha)
    assert assurance(pilot, seeds, above, below, alpha) == pytest.approx(literal, abs=0.03 if seeds == 3 else 0.01)


def test_no_number_of_seeds_makes_up_for_few_prompts() -> None:
    certain = Pilot(0.05, 5, 0.01**2)
    assert most_assurance(certain) > 0.999
    assert most_assurance(Pilot(0.05, 5, 0.01**2, prompts=20, prompt=0.05, rest=0.1)) < 0.3


@pytest.mark.parametrize(
    ("size", "eighty", "ninety"),
    [(0.25, 128, 171), (0.5, 34, 44), (0.8, 15, 19), (1, 10, 13), (1.5, 6, 7), (2, 5, 5), (-1, 10, 13)],
)
def test_plain_power_is_that_of_the_noncentral_t(size: float, eighty: int, ninety: int) -> None:
    for power, seeds in ((0.8, eighty), (0.9, ninety)):
        assert plain_power(size, seeds - 1) < power <= plain_power(size, seeds)


def test_without_an_effect_the_power_is_the_error_of_the_test() -> None:
    assert plain_power(0.0, 5) == pytest.approx(0.05)
    assert plain_power(0.0, 9, alpha=0.01) == pytest.approx(0.01)


def test_an_effect_size_is_corrected_for_few_seeds() -> None:
    assert effect_size(1.0, 1.0, 4) == pytest.approx(0.7979, abs=5e-5)
    assert effect_size(-2.0, 0.5, 9) == pytest.approx(-4 * 0.9139, abs=5e-4)
    assert effect_size(1.0, 1.0, 1e6) == pytest.approx(1.0, abs=1e-5)


def test_there_is_no_effect_size_without_spread_up_to_rounding() -> None:
    assert effect_size(0.1, 1e-17, 4) is None
    assert effect_size(0.0, 0.0, 4) is None
    assert effect_size(0.0, 0.1, 4) == 0.0
    assert effect_size(1.0, 1.0, 1) is None


@pytest.mark.parametrize(
    ("pilot", "named"),
    [
        ((0.1, 1, 0.2), "two seeds or more"),
        ((0.1, 5, 0.0), "without any spread"),
        ((0.1, 5, -0.1), "without any spread"),
        ((0.1, 5, 0.1, 1, 0.2), "one prompt has no variance"),
    ],
)
def test_a_pilot_that_says_nothing_is_an_error(pilot: tuple[float, int, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Pilot(*pilot)


def test_one_seed_has_no_power() -> None:
    with pytest.raises(ValueError, match="two seeds or more"):
        assurance(LUCKY, 1)
    with pytest.raises(ValueError, match="two seeds or more"):
        plain_power(1.0, 1)

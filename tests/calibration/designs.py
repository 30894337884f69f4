"""Simulated sweeps whose truth is known, and what our intervals say of them.

A sweep has seeds, six combinations of averaged axes, four arms and test prompts; two arms are compared on the mean over
combinations, and all pairs of arms are one family of six claims, none of which is true. Effects of an arm in a seed,
at a seed and combination, and on a prompt are drawn; so are what cells of one seed and combination share (large, and
cancelled by pairing), what an arm does at a combination (the same in all sweeps of a design) and noise of each answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics.available import available
from orchestrator.statistics.bootstrap import product_bootstrap
from orchestrator.statistics.crossed import Interval, crossed

Reals = NDArray[np.float64]
COMBINATIONS, ARMS, PROMPTS = 6, 4, 200
PAIRS = list(combinations(range(ARMS), 2))
#: Variances: of an arm in a seed, of an arm in a seed at a combination, of an answer.
SEED, CELL, ANSWER = 0.01, 0.01, 1.5
#: What the arms do at each combination, with the same mean for all.
FIXED = np.random.default_rng(0).standard_normal((COMBINATIONS, ARMS, 1))
FIXED -= FIXED.mean(axis=0)
#: Turns the effects of every second arm around, so that differences of skewed effects are skewed as well.
SIGNS = np.resize([1.0, -1.0], (ARMS, 1))


def _normal(random: np.random.Generator, shape: tuple[int, ...]) -> Reals:
    return random.standard_normal(shape)


def _t2(random: np.random.Generator, shape: tuple[int, ...]) -> Reals:
    """With the quartiles of the normal distribution; there is no variance."""
    return random.standard_t(2, shape) * 0.826


def _exponential(random: np.random.Generator, shape: tuple[int, ...]) -> Reals:
    return random.standard_exponential(shape) - 1


@dataclass(frozen=True)
class Design:
    """How sweeps are drawn."""

    name: str
    prompt: float = 1.0
    """Variance of the mean that comes of prompts, relative to what comes of seeds."""
    interaction: float = 0.0
    """The same of the interactions of seeds and prompts."""
    seed: float = 1.0
    """Factor of the variances of seeds."""
    effect: Callable[[np.random.Generator, tuple[int, ...]], Reals] = _normal
    uneven: float = 1.0
    """Ratio of the standard deviations of cells between the most and the least noisy combination."""
    missing: float = 0.0
    """Probability that a cell has no result."""
    by_outcome: bool = False
    """Whether the cells of the first arm that did badly have no result."""
    covered: bool = True
    """Whether the interval for new seeds and prompts is meant to cover, from three seeds on."""

    def draw(self, random: np.random.Generator, seeds: int, prompts: int) -> tuple[Reals, NDArray[np.bool_]]:
        """Return values (seeds, combinations, arms, prompts), and which cells are there."""
        shape = (seeds, COMBINATIONS, ARMS)
        deviation = np.geomspace(1, self.uneven, COMBINATIONS)
        cell = CELL * deviation**2 / np.mean(deviation**2)
        of_seeds = (SEED + CELL / COMBINATIONS) / seeds  # variance of the mean, at factor 1
        in_seed = np.sqrt(self.seed * SEED) * self.effect(random, (seeds, 1, ARMS, 1)) * SIGNS
        in_cell = np.sqrt(self.seed * cell)[:, np.newaxis, np.newaxis] * self.effect(random, (*shape, 1)) * SIGNS
        on_prompt = np.sqrt(self.prompt * prompts * of_seeds) * self.effect(random, (ARMS, prompts)) * SIGNS
        values = np.sqrt(ANSWER) * random.standard_normal((*shape, prompts))
        values += FIXED + in_seed + in_cell + on_prompt
        values += 5 * random.standard_normal((seeds, COMBINATIONS, 1, 1)) + random.standard_normal(prompts)
        if self.interaction:
            both = np.sqrt(self.interaction * seeds * prompts * of_seeds)
            values += both * random.standard_normal((seeds, 1, ARMS, prompts))
        there = random.random(shape) >= self.missing
        if self.by_outcome:
            there[:, :, 0] &= in_cell[:, :, 0, 0] > -0.5 * np.sqrt(cell)
        return values, there


DESIGNS = (
    Design("these prompts only: no effects of prompts", prompt=0.0),
    Design("prompts as much as seeds"),
    Design("prompts four times as much", prompt=4.0),
    Design("t2-distributed effects", effect=_t2),
    Design("skewed effects (exponential)", effect=_exponential),
    Design("combinations of unequal noise, 1 to 30", uneven=30.0),
    Design("interactions of seeds and prompts, as much as each", interaction=1.0),
    Design("10 % missing at random", missing=0.1),
    Design("20 % missing at random", missing=0.2),
    Design("30 % missing at random", missing=0.3),
    Design("neither seeds nor prompts have an effect", prompt=0.0, seed=0.0),
    Design("cells of one arm missing that did badly", by_outcome=True, covered=False),
)


@dataclass
class Found:
    """What some intervals of one kind did."""

    covered: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    wrong: list[bool] = field(default_factory=list)
    """Whether a family of null claims had one that holds, after Holm."""

    def add(self, family: Sequence[Interval]) -> None:
        """Add the interval of the first claim, and what Holm makes of all."""
        self.covered.append(family[0].low <= 0 <= family[0].high)
        self.widths.append(family[0].high - family[0].low)
        # Holm rejects something where he rejects the smallest.
        # Only what Satterthwaite's p is small for can have a small one of the heavier tail.
        found = [each.family_p for each in family if each.p is not None and each.p < 0.05]
        self.wrong.append(min((p for p in found if p is not None), default=1.0) * len(family) < 0.05)


@dataclass
class Row:
    """What the intervals of one design and number of seeds did."""

    design: Design
    seeds: int
    sweeps: int
    kinds: dict[str, Found]
    errors: list[float]
    """Of the estimates."""
    none: int
    """Sweeps in which nothing could be compared."""

    @property
    def oracle(self) -> float:
        """Width of the interval of whoever knows how the estimate is distributed: it covers 95 % of these sweeps."""
        return 2 * float(np.quantile(np.abs(self.errors), 0.95))


def simulate(design: Design, seeds: int, sweeps: int, prompts: int = PROMPTS, draws: int = 0, luck: int = 0) -> Row:
    """Draw sweeps and look at the intervals of the first pair of arms, and at the families of all pairs.

    Args:
        design: how they are drawn.
        seeds: of each sweep.
        sweeps: how many.
        prompts: of each.
        draws: of the bootstrap, 0 for none.
        luck: seeds the random numbers.
    """
    random = np.random.default_rng([luck, seeds, *design.name.encode()])
    kinds = {"seeds": Found(), "crossed": Found(), **({"bootstrap": Found()} if draws else {})}
    row = Row(design, seeds, sweeps, kinds, [], 0)
    for _ in range(sweeps):
        values, there = design.draw(random, seeds, prompts)
        found = available(values, there)
        if found.seeds.sum() < 2:
            row.none += 1
            continue
        # What is true of the combinations that are used is taken off, so that no claim of a family is true.
        means = (found.values - FIXED[found.combinations]).mean(axis=1)
        claims = [crossed(means[:, a] - means[:, b], ("seed", "prompt")) for a, b in PAIRS]
        row.errors.append(claims[0].all.mean)
        kinds["seeds"].add([each.fixed["seed"] for each in claims])
        kinds["crossed"].add([each.all for each in claims])
        if draws:
            low, high = product_bootstrap(means[:, 0] - means[:, 1], draws=draws)
            kinds["bootstrap"].covered.append(low <= 0 <= high)
            kinds["bootstrap"].widths.append(high - low)
    return row

"""Contrasts from all available pairs: cells without a number are filled in by least squares.

A cell is one of a seed s, a combination b of the axes that are averaged over, and an arm k, the value that is compared.
Cells of one (s, b) form a pair, or a group of more. The model has all interactions of two of the three,

    y_sbk = g_sb + m_bk + a_sk,

so whatever the cells of a pair share, whatever an arm does at a combination, and whatever it does in a seed is free;
of two arms the differences then follow d_sb = m_b + a_s. Least squares of what is there fills what is missing, and
balanced means over the filled array give the least-squares contrasts. A complete array is not changed.

What cannot be estimated is not used:
- a combination at which some arm is tied to the others by no pair of the used seeds, and a seed in which some arm is
  tied to the others at no used combination (no arm is given up: that is for whoever asks for it, and an arm with
  hardly any cell takes the combinations of all others with it);
- where seeds and combinations fall into parts whose contrasts nothing ties together: all but the part of most cells
  (the first of those).

*Levels.* A pair of no cell at all has no level of its own. It gets the one that an additive model of seeds and
combinations expects, fitted to the means over arms of all other pairs, so that the mean of an arm is not drawn to 0 or
to the easier half of the combinations.

That cells are missing at random is assumed, not known: whether they are missing more often in some arms is tested.

(In terms of projections: with R the centring along all three axes, the missing entries solve R_mm y_m = -(R y_0)_m with
y_0 zero there. Here g and m are eliminated from the normal equations instead, which leaves one small system in a.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from orchestrator.plan.grid import Mask
from orchestrator.statistics.estimates import Reals

#: Relatively smaller eigenvalues are those of rounding: a single pair that ties two halves of 100 x 2,000 has 4e-5.
_SINGULAR = 1e-9
#: So many numbers are worked on at a time.
_AT_ONCE = 2**21


@dataclass(frozen=True)
class Available:
    """An array without gaps, and what was missing from it."""

    values: Reals
    """(used seeds, used combinations, arms) or (…, arms, prompts): missing cells are filled in."""
    seeds: Mask
    """Which seeds are used (S,)."""
    combinations: Mask
    """Which combinations are used (B,)."""
    cells: int
    """That are meant to be there."""
    missing: int
    """Of these, whether used or not."""
    missing_by_arm: tuple[int, ...]
    filled: int
    """Cells of `values` that are not measured."""
    p: float | None
    """Of "missing does not depend on the arm": Fisher's exact test of two arms, chi squared of more; None where nothing
    or everything is missing. Cells that fail together for one reason make it too small."""


def available(values: Reals, there: Mask, meant: Mask | None = None) -> Available:
    """Fill in the missing cells of an array by least squares, and leave out what cannot be estimated.

    Args:
        values: (seeds, combinations, arms), or (seeds, combinations, arms, prompts).
        there: which cells have a number (seeds, combinations, arms); values of others are not looked at.
        meant: which are cells of the sweep, of the same shape; all when left out. Only they can count as missing.

    Raises:
        ValueError: a number that is there is not finite, or the shapes do not fit.
    """
    if there.ndim != 3 or values.shape[:3] != there.shape or values.ndim not in (3, 4):
        raise ValueError(f"values {values.shape} are not those of cells {there.shape} (seeds, combinations, arms)")
    if not np.isfinite(values)[there].all():
        raise ValueError("a cell that has a number has one that is not finite")
    counted = np.ones_like(there) if meant is None else meant | there
    by_arm = (counted & ~there).sum(axis=(0, 1))
    seeds, combinations = _estimable(there)
    known = there[np.ix_(seeds, combinations)]
    kept = values
    if not there.all():
        kept = values[np.ix_(seeds, combinations)].astype(np.float64, copy=False)
        if not known.all():
            _fill(kept, known)
    return Available(
        kept,
        seeds,
        combinations,
        int(counted.sum()),
        int(by_arm.sum()),
        tuple(by_arm.tolist()),
        int((~known).sum()),
        _depends_on_arm(by_arm, counted.sum(axis=(0, 1))),
    )


def _depends_on_arm(missing: Reals, cells: Reals) -> float | None:
    from scipy.stats import chi2_contingency, fisher_exact  # type: ignore[import-untyped]

    table = np.stack([missing, cells - missing])[:, cells > 0]
    if table.shape[1] < 2 or not table.sum(axis=1).all():
        return None
    return float((fisher_exact if table.shape[1] == 2 else chi2_contingency)(table)[1])


def _estimable(there: Mask) -> tuple[Mask, Mask]:
    """Return which seeds and which combinations are used."""
    used = [np.ones(size, np.bool_) for size in there.shape[:2]]
    if there.all():
        return used[0], used[1]
    # Of a single arm the level is estimated, its difference from a constant.
    tied = np.concatenate([there, np.ones_like(there)], axis=2) if there.shape[2] == 1 else there
    while True:
        part = tied[np.ix_(*used)]
        if not part.size:
            return np.zeros_like(used[0]), np.zeros_like(used[1])
        fine = [_ties_arms(part.swapaxes(0, 1)), _ties_arms(part)]
        if all(each.all() for each in fine):
            break
        for mask, each in zip(used, fine, strict=True):
            mask[np.flatnonzero(mask)[~each]] = False
    shorter = int(part.shape[0] > part.shape[1])
    parts = _parts(part.swapaxes(0, shorter))
    if len(parts) > 1:
        choices = []
        for each in parts:
            within = [mask.copy() for mask in used]
            within[shorter][np.flatnonzero(used[shorter])[~each]] = False
            for mask, kept in zip(within, _estimable(tied[np.ix_(*within)]), strict=True):
                mask[np.flatnonzero(mask)[~kept]] = False
            choices.append(within)
        used = max(choices, key=lambda within: int(tied[np.ix_(*within)].sum()))
    return used[0], used[1]


def _ties_arms(there: Mask) -> Mask:
    """Return at which combinations (B,) the pairs of the seeds (S, B, arms) tie every arm to every other."""
    # The graph of arms that share pairs is connected if only one eigenvalue of its Laplacian is 0.
    tied: Mask = np.linalg.eigvalsh(_within_pairs(there))[:, 1] > _SINGULAR
    return tied


def _parts(there: Mask) -> list[Mask]:
    """Split the seeds into parts within which contrasts between arms are known relative to each other."""
    seeds, _, arms = there.shape
    system = _System(there)
    free = system.vectors[:, ~system.positive].reshape(seeds, arms, -1)
    # What may be added to a_sk without a change of what is fitted; that is all the same for seeds of one part.
    free = free - free.mean(axis=1, keepdims=True)
    parts, left = [], np.ones(seeds, np.bool_)
    while left.any():
        parts.append(left & (np.abs(free - free[left.argmax()]).max(axis=(1, 2), initial=0.0) < 1e-6))
        left &= ~parts[-1]
    return parts


def _within_pairs(there: Mask) -> Reals:
    """Return for each combination the matrix (B, arms, arms) of the sum over seeds of centring within pairs."""
    known = there.astype(np.float64)
    pairs = np.maximum(known.sum(axis=2, keepdims=True), 1)
    graph: Reals = -np.matmul((known / pairs).transpose(1, 2, 0), known.transpose(1, 0, 2))
    diagonal = np.arange(there.shape[2])
    graph[:, diagonal, diagonal] += known.sum(axis=0)
    return graph


class _System:
    """The normal equations of a_sk (seeds, arms), from which g_sb and m_bk are eliminated."""

    def __init__(self, there: Mask) -> None:
        self.known = there.astype(np.float64)
        self.pairs = np.maximum(self.known.sum(axis=2, keepdims=True), 1)
        seeds, combinations, arms = there.shape
        # Laplacians of connected graphs: all eigenvalues but the first are positive.
        values, vectors = np.linalg.eigh(_within_pairs(there))
        self.root = vectors[:, :, 1:] / np.sqrt(values[:, np.newaxis, 1:])
        """Square roots of the pseudo-inverses (combinations, arms, arms - 1)."""
        matrix = np.zeros((seeds * arms, seeds * arms))
        by_seed = _within_pairs(there.swapaxes(0, 1))
        for seed in range(seeds):
            block = slice(seed * arms, (seed + 1) * arms)
            matrix[block, block] = by_seed[seed]
        step = max(1, _AT_ONCE // (seeds * arms * arms))
        for first in range(0, combinations, step):
            part = slice(first, first + step)
            spread = self.centred(self.root[np.newaxis, part], part)
            rows = spread.transpose(0, 2, 1, 3).reshape(seeds * arms, -1)
            matrix -= rows @ rows.T
        self.eigenvalues, self.vectors = np.linalg.eigh(matrix)
        self.positive = self.eigenvalues > _SINGULAR * max(float(self.eigenvalues[-1]), 1.0)

    def centred(self, values: Reals, part: slice = slice(None)) -> Reals:
        """Centre values (seeds or 1, combinations, arms, …) within what is there of each pair; 0 where nothing is."""
        known = self.known[:, part, :, np.newaxis]
        inside = known * values
        centred: Reals = inside - known * (inside.sum(axis=2, keepdims=True) / self.pairs[:, part, :, np.newaxis])
        return centred

    def solved(self, values: Reals) -> tuple[Reals, Reals]:
        """Return m (combinations, arms, prompts) and a (seeds, arms, prompts) of values that are 0 where missing."""
        seeds, _, arms, prompts = values.shape
        inside = self.centred(values)
        at = self._eliminated(inside.sum(axis=0))
        right = inside.sum(axis=1) - self.centred(at[np.newaxis]).sum(axis=1)
        vectors = self.vectors[:, self.positive]
        scaled = vectors.T @ right.reshape(seeds * arms, prompts) / self.eigenvalues[self.positive, np.newaxis]
        of_seed = (vectors @ scaled).reshape(seeds, arms, prompts)
        of_combination = at - self._eliminated(self.centred(of_seed[:, np.newaxis]).sum(axis=0))
        return of_combination, of_seed

    def _eliminated(self, sums: Reals) -> Reals:
        found: Reals = self.root @ (self.root.transpose(0, 2, 1) @ sums)
        return found


def _fill(values: Reals, there: Mask) -> None:
    """Overwrite the missing cells of values (seeds, combinations, arms[, prompts]), all of which can be estimated."""
    if there.shape[2] == 1:
        # The level of a single arm is its difference from an arm that is 0 everywhere.
        both = np.concatenate([values, np.zeros_like(values)], axis=2)
        _fill(both, np.concatenate([there, np.ones_like(there)], axis=2))
        values[...] = both[:, :, :1]
        return
    if there.shape[0] > there.shape[1]:
        values, there = values.swapaxes(0, 1), there.swapaxes(0, 1)
    system = _System(there)
    known = there[..., np.newaxis]
    pairs: Mask = np.logical_or.reduce(there, axis=2)
    for part in _chunks(values):
        measured = np.where(known, part, 0.0)
        of_combination, of_seed = system.solved(measured)
        effects = of_combination + of_seed[:, np.newaxis]
        rest = np.where(known, measured - effects, 0.0).sum(axis=2, keepdims=True) / system.pairs[..., np.newaxis]
        fitted = np.where(known, measured, rest + effects)
        if not pairs.all():
            levels = fitted.mean(axis=2, keepdims=True)
            _fill(levels, pairs[..., np.newaxis])
            contrasts = effects - effects.mean(axis=2, keepdims=True)
            fitted = np.where(pairs[..., np.newaxis, np.newaxis], fitted, levels + contrasts)
        part[...] = fitted


def _chunks(values: Reals) -> Iterator[Reals]:
    """Yield views (seeds, combinations, arms, prompts) of some prompts each."""
    prompts = values.reshape(*values.shape[:3], -1)
    step = max(1, _AT_ONCE // max(1, int(np.prod(values.shape[:3]))))
    for first in range(0, prompts.shape[3], step):
        yield prompts[..., first : first + step]

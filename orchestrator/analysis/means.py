"""Balanced means: what every table, figure, square and group of runs says of several arms.

An *arm* is a value, or combination of values, that is compared. Its mean is over all combinations of the other axes,
each counting the same, and over the draws of what is random, the seed; where cells are missing they are filled in by
least squares from the pairs that are there (`statistics.available`), so that means of two arms differ by the contrast
of all pairs that both have, and not by which of their cells have finished.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.plan.grid import Mask
from orchestrator.statistics.available import Available, available
from orchestrator.statistics.estimates import Reals
from orchestrator.types import Scalar

#: Numbers that tell apart what cells have in common.
Codes = NDArray[np.int64]
#: Below this p it is said that missing cells depend on what is compared.
_DEPENDS = 0.01


@dataclass(frozen=True)
class Means:
    """Means of some arms that can be compared with each other."""

    mean: Reals
    """(arms,); NaN where there is none."""
    sd: Reals
    """(arms,), sample standard deviation of the arm's mean over draws, or over combinations where nothing is random;
    NaN where there is one value only."""
    cells: Codes
    """(arms,), how many cells with a number are used."""
    draws: int
    """How many draws are used."""
    notes: tuple[str, ...]
    """What is missing and not used, in sentences without full stop."""


def balanced_means(
    values: Reals,
    arm: Codes,
    combination: Codes,
    draw: Codes | None,
    statuses: NDArray[np.str_] | None = None,
    over: str = "the other axes",
) -> Means:
    """Take the balanced means of arms.

    Args:
        values: of cells, NaN where a cell has no number (cells,).
        arm: of each cell, from 0 on.
        combination: of the other axes, of each cell.
        draw: of what is random, of each cell; None where nothing is.
        statuses: of cells; without them it is not said why numbers are missing.
        over: the other axes, in words.

    Raises:
        ValueError: two cells have the same arm, combination and draw.
    """
    arms = int(arm.max(initial=-1)) + 1
    drawn = np.zeros(len(arm), np.int64) if draw is None else draw
    (combinations, draws), codes = zip(*(_counted(each) for each in (combination, drawn)), strict=True)
    where = codes[1], codes[0], arm
    table = np.full((draws, combinations, arms), np.nan)
    meant = np.zeros(table.shape, np.bool_)
    table[where], meant[where] = values, True
    if doubles := len(values) - int(meant.sum()):
        raise ValueError(f"{doubles:,} of {len(values):,} cells are where another one is")
    there = np.isfinite(table)
    known: Mask = np.logical_or.reduce(there, axis=(0, 1))
    nothing = np.full(arms, np.nan)
    if not known.any():
        return Means(nothing, nothing, np.zeros(arms, np.int64), 0, ())
    found = available(table[:, :, known], there[:, :, known], meant[:, :, known])
    wrong = [] if statuses is None else statuses[np.isnan(values) & known[arm]].tolist()
    notes = gaps(found, wrong, over)
    mean, sd, cells = nothing.copy(), nothing.copy(), np.zeros(arms, np.int64)
    if found.values.size:
        of_draws = found.values.mean(axis=1)
        mean[known] = of_draws.mean(axis=0)
        spread = found.values[0] if draw is None else of_draws
        if len(spread) > 1:
            sd[known] = spread.std(axis=0, ddof=1)
        used = there[np.ix_(found.seeds, found.combinations)][:, :, known]
        cells[known] = used.sum(axis=(0, 1))
    return Means(mean, sd, cells, len(found.values), tuple(notes))


def gaps(found: Available, statuses: Iterable[str], over: str) -> list[str]:
    """Say how many cells have no number, whether that depends on the arm, and what could not be used.

    Args:
        found: cells that were filled in.
        statuses: of the missing ones; one that succeeded has no number because it is undefined.
        over: what the combinations are of, in words.
    """
    said = []
    if found.missing:
        counts = Counter("undefined" if each == "succeeded" else each for each in statuses)
        why = ", ".join(f"{count:,} {status}" for status, count in counts.most_common())
        missing = f"{found.missing:,} of {found.cells:,} cells have no number" + (f" ({why})" if why else "")
        if found.p is not None and found.p < _DEPENDS:
            shares = ", ".join(f"{count:,}" for count in found.missing_by_arm)
            missing += f", more in some arms than in others ({shares}): what is missing is not missing by chance"
        said.append(missing)
    left = []
    if not found.combinations.all():
        several = "combinations" if "×" in over else "values"
        left.append(f"{int((~found.combinations).sum()):,} of {len(found.combinations):,} {several} of {over}")
    if not found.seeds.all():
        left.append(f"{int((~found.seeds).sum()):,} of {len(found.seeds):,} draws of what is random")
    return [*said, *([f"left out, as the arms have no pairs there: {' and '.join(left)}"] if left else [])]


def label_codes(column: pa.ChunkedArray, labels: Sequence[Scalar]) -> Codes:
    """Return for each cell the position of its value among the labels of an axis."""
    position = {label: place for place, label in enumerate(labels)}
    return np.array([position[label] for label in column.to_pylist()], np.int64)


def combine_codes(cells: int, axes: Iterable[tuple[Codes, int]]) -> Codes:
    """Return for each cell the number of its combination of labels; the last axis runs fastest.

    Args:
        cells: how many there are.
        axes: positions of labels (cells,), and the number of labels.
    """
    combined = np.zeros(cells, np.int64)
    for codes, labels in axes:
        combined = combined * labels + codes
    return combined


def _counted(codes: Codes) -> tuple[int, Codes]:
    """Number codes from 0 on in their order; return how many there are, and the numbers."""
    distinct, numbers = np.unique(codes, return_inverse=True)
    return len(distinct), numbers.astype(np.int64)

"""Which cells may be averaged so that their means can be compared: those of complete blocks.

Where values of some axes are compared (the rows of a table, the curves of a figure, the squares of a grid), a *block*
is a combination of all other axes, `seed` included. It is complete where every compared value has a succeeded cell with
a number of the metric at hand. Means over complete blocks are of cells that differ in nothing but what is compared;
means over whatever has finished also differ in what has.

A value of which no cell has the number is not compared. A combination that the sweep excludes is no cell and not
missing, but its block is incomplete all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.analysis.estimates import Reals
from orchestrator.plan.grid import Mask
from orchestrator.types import Scalar

#: Numbers that tell apart what cells have in common.
Codes = NDArray[np.int64]

#: What may be wrong with a cell of an incomplete block, the worst first.
_WRONG = {"failed": "failed", "blocked": "is blocked", "running": "is running", "pending": "is pending",
          "succeeded": "has no number"}  # fmt: skip
_ABSENT = "is not in the sweep (`exclude`, --only)"


@dataclass(frozen=True)
class Blocks:
    """The complete blocks among some cells."""

    kept: Mask
    """Which of the cells have a number and lie in a complete block."""
    total: int
    complete: int
    why: Mapping[str, int]
    """What is wrong with a cell -> how many blocks are left out for it, each counted for the worst."""

    def left_out(self, compared: Sequence[str]) -> str | None:
        """Say what was left out and why, as a sentence without its subject; None where nothing was.

        Args:
            compared: the axes whose values are compared.
        """
        if self.complete == self.total:
            return None
        because = ", ".join(f"{wrong} ({count:,})" for wrong, count in self.why.items())
        meant = f"cells that agree in all but {', '.join(compared)}" if compared else "cells"
        if not self.complete:
            return f"none of {self.total:,} blocks ({meant}) is complete, because a cell {because}"
        left = f"{self.total - self.complete:,} left out because a cell {because}"
        return f"from {self.complete:,} of {self.total:,} blocks ({meant}); {left}"


def complete_blocks(
    numbers: Mask,
    compared: Codes,
    block: Codes,
    statuses: NDArray[np.str_] | None = None,
    within: Codes | None = None,
) -> Blocks:
    """Find the complete blocks among cells; each cell is one position in these arrays (cells,).

    Args:
        numbers: whether the cell succeeded with a number of the metric.
        compared: which of the compared values, or combinations of values, it has.
        block: which combination of all other axes.
        statuses: of the cells; without them it is not said why blocks are incomplete.
        within: its group, where values are compared only within groups.
    """
    group = np.zeros(len(numbers), np.int64) if within is None else within
    value, group_of_value = _numbered(group, compared)
    place, group_of_place = _numbered(group, block)
    alive = _marked(group[numbers], int(group.max(initial=-1)) + 1)
    known = _marked(value[numbers], len(group_of_value))
    # Where no value has a number, nothing is compared, and everything is missing.
    meant = known[value] | ~alive[group]
    needed = np.bincount(group_of_value[known], minlength=len(alive))[group_of_place]
    counted = _marked(place[meant], len(group_of_place))
    complete = counted & alive[group_of_place] & (np.bincount(place[numbers], minlength=len(needed)) == needed)
    why: dict[str, int] = {}
    if statuses is not None:
        unexplained = counted & ~complete
        for status, wrong in _WRONG.items():
            found = unexplained & _marked(place[meant & ~numbers & (statuses == status)], len(needed))
            if found.any():
                why[wrong] = int(found.sum())
            unexplained &= ~found
        if unexplained.any():
            why[_ABSENT] = int(unexplained.sum())
    return Blocks(numbers & complete[place], int(counted.sum()), int(complete.sum()), why)


def balanced(values: Reals, cells: Mask, labels: Sequence[Scalar]) -> tuple[Reals, str | None]:
    """Choose the seeds and the combinations of other axes at which no block is incomplete: as many cells as can be.

    All seeds are then averaged over the same combinations. Seeds are given up in order of how much they lack, as long
    as that keeps more cells.

    Args:
        values: (seeds, levels, others); NaN where a cell has no number.
        cells: which of them are cells of the sweep, of the same shape.
        labels: (levels,), the values that are compared.

    Returns:
        the values at the chosen seeds and others, with NaN at levels without any number, and what was left out.
    """
    there = np.isfinite(values)
    if there.all():
        return values, None
    known: Mask = np.logical_or.reduce(there, axis=(0, 2))
    seed, level, other = (each.ravel() for each in np.indices(values.shape))
    kept = complete_blocks(there.ravel(), level, seed * values.shape[2] + other).kept
    complete: Mask = np.logical_or.reduce(kept.reshape(values.shape), axis=1)
    order = np.argsort(-complete.sum(axis=1), kind="stable")
    best, others = order, np.logical_and.reduce(complete, axis=0)
    for count in range(len(order) - 1, 0, -1):
        fewer = np.sort(order[:count])
        common = np.logical_and.reduce(complete[fewer], axis=0)
        if count * common.sum() > len(best) * others.sum():
            best, others = fewer, common
    lacking = [str(label) for label, found in zip(labels, known, strict=True) if not found]
    warnings = [f"there are no results for {', '.join(lacking)}"] if lacking else []
    missing = int((cells & ~there)[:, known].sum())
    absent = int((~cells)[:, known].sum())
    gaps = [_count(missing, "cell without a number", "cells without a number")] if missing else []
    gaps += [_count(absent, "combination not in the sweep", "combinations not in the sweep")] if absent else []
    if known.any() and not others.any():
        together = " and ".join(str(label) for label, found in zip(labels, known, strict=True) if found)
        warnings.append(f"{', '.join(gaps)}: no seed has results at {together} that agree in all other axes")
    elif gaps:
        seeds = f"{len(best)} of {len(order)} seeds and " if len(order) > 1 else ""
        used = f"{int(others.sum()):,} of {len(others):,} combinations of the other axes are used"
        warnings.append(f"{', '.join(gaps)}: {seeds}{used}")
    chosen: Reals = values[np.sort(best)][:, :, others]
    return chosen, "; ".join(warnings)


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


def _numbered(group: Codes, code: Codes) -> tuple[Codes, Codes]:
    """Numbers from 0 on for the pairs of group and code, and the group of each number."""
    width = int(code.max(initial=0)) + 1
    pairs, numbers = np.unique(group * width + code, return_inverse=True)
    return numbers.astype(np.int64), pairs // width


def _marked(places: Codes, count: int) -> Mask:
    marked: Mask = np.zeros(count, np.bool_)
    marked[places] = True
    return marked


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"

"""Which cells may be averaged so that their means can be compared: those of complete blocks.

Where values of some axes are compared (the rows of a table, the curves of a figure, the squares of a grid), a *block*
is a combination of all other axes, `seed` included. It is complete where every compared value has a succeeded cell with
a number of the metric at hand. Means over complete blocks are of cells that differ in nothing but what is compared;
means over whatever has finished also differ in what has.

A value of which no cell has the number is not compared. A combination that the sweep excludes is no cell and not
missing, but its block is incomplete all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.plan.grid import Mask

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

    def told(self, compared: Sequence[str]) -> str | None:
        """What was left out and why, as a sentence without its subject; None where nothing was.

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
    """The complete blocks among cells, of which each is told by one position in these arrays (cells,).

    Args:
        numbers: whether the cell succeeded with a number of the metric.
        compared: which of the compared values, or combinations of values, it has.
        block: which combination of all other axes.
        statuses: of the cells; without them nothing is said of why blocks are incomplete.
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


def _numbered(group: Codes, code: Codes) -> tuple[Codes, Codes]:
    """Numbers from 0 on for the pairs of group and code, and the group of each number."""
    width = int(code.max(initial=0)) + 1
    pairs, numbers = np.unique(group * width + code, return_inverse=True)
    return numbers.astype(np.int64), pairs // width


def _marked(places: Codes, count: int) -> Mask:
    marked: Mask = np.zeros(count, np.bool_)
    marked[places] = True
    return marked

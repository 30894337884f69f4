"""Pairs of responses: those that annotations compare, and random ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Flat rows of responses: prompt * responses + response.
Rows = NDArray[np.int64]


class Pairs(NamedTuple):
    """The responses that n annotations compare, as flat rows."""

    winner: Rows
    """(n,)"""
    loser: Rows
    """(n,)"""

    @property
    def rows(self) -> Rows:
        """All winners, then all losers (2n,)."""
        return np.concatenate(self)

    @property
    def wins(self) -> NDArray[np.bool_]:
        """Whether each of `rows` is a winner (2n,): the labels of a classifier."""
        return np.repeat([True, False], len(self.winner))


def two_different(random: np.random.Generator, count: int, size: int) -> tuple[Rows, Rows]:
    """Draw pairs (size,) and (size,) of different integers in [0, `count`), all such pairs being equally likely."""
    one = random.integers(count, size=size)
    other = random.integers(count - 1, size=size)
    return one, other + (other >= one)

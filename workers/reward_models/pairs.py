"""Pairs of responses: those that annotations compare, and random ones."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.tables import ANNOTATIONS

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


def read_pairs(annotations: Path) -> Pairs:
    """Read the winners and losers of an `annotations` artifact.

    Raises:
        FileNotFoundError: the folder has no `annotations.parquet`.
        ValueError: the table has other columns, or no rows; names the file.
    """
    table = ANNOTATIONS.read(annotations)
    if table.num_rows == 0:
        raise ValueError(f"{ANNOTATIONS.path(annotations)}: no annotations")
    # to_numpy would import pandas, of which a fit needs nothing: 0.3 s and 27 MB of its process.
    winner, loser = (np.from_dlpack(table[name].combine_chunks()) for name in ("winner", "loser"))
    return Pairs(np.asarray(winner, np.int64), np.asarray(loser, np.int64))


def two_different(random: np.random.Generator, count: int, size: int) -> tuple[Rows, Rows]:
    """Draw pairs (size,) and (size,) of different integers in [0, `count`), all such pairs being equally likely."""
    one = random.integers(count, size=size)
    other = random.integers(count - 1, size=size)
    return one, other + (other >= one)

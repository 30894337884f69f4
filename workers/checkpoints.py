"""Checkpoints: what a long step has made so far, kept so that a later attempt at it goes on from there.

A stage with `checkpoints=True` in its table (`workers.stage.Stage`) is given a `Checkpoints` as the argument of that
name. It asks now and then whether one is `due`, and gives it what it needs to go on; the next attempt finds that again.
The result of a step does not depend on whether it was interrupted, but for rounding where batches fall elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: What the rows of an array are kept as.
_ROWS = "rows"


class Checkpoints:
    """The checkpoints of one step. This class keeps none: it stands in wherever a stage is called by hand."""

    def found(self) -> Mapping[str, Path]:
        """Return the sound checkpoints of earlier attempts, in the order of their names: name -> its folder."""
        return {}

    def due(self) -> bool:
        """Tell whether it is time for another one: after some minutes, and when it costs little in comparison."""
        return False

    def keep(self, name: str, write: Callable[[Path], None]) -> bool:
        """Keep a checkpoint, and return whether it is kept; where that fails, the step goes on without.

        Args:
            name: letters and digits, another for each.
            write: writes its files into a folder.
        """
        return False

    def drop(self, name: str) -> None:
        """Delete a checkpoint that a later one makes needless."""


#: For a stage that is called by hand.
NONE = Checkpoints()


def keep_arrays(checkpoints: Checkpoints, what: str, place: int, arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Keep arrays as one checkpoint, and return whether it is kept.

    Args:
        checkpoints: those of the step.
        what: what it is a part of; letters.
        place: where the part begins, which orders and names it.
        arrays: name -> values of any type but objects.
    """

    def write(folder: Path) -> None:
        for name, values in arrays.items():
            np.save(folder / f"{name}.npy", values)

    return checkpoints.keep(f"{what}{place:012d}", write)


def found_arrays(checkpoints: Checkpoints, what: str) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the arrays of each checkpoint of `what`, in their order."""
    for name, folder in checkpoints.found().items():
        if name.startswith(what) and name.removeprefix(what).isdecimal():
            yield {path.stem: np.load(path) for path in folder.glob("*.npy")}


def keep_rows(checkpoints: Checkpoints, rows: NDArray[Any], start: int, end: int) -> int:
    """Keep the rows from `start` to `end` of an array, and return from where on rows are not kept now."""
    arrays = {"rows": rows[start:end], "start": np.array(start)}
    return end if keep_arrays(checkpoints, _ROWS, start, arrays) else start


def restore_rows(checkpoints: Checkpoints, into: Callable[[NDArray[Any]], NDArray[Any]]) -> int:
    """Put rows that were kept back into their array, and return how many are there, from the first on.

    Args:
        checkpoints: those of the step.
        into: returns the array of all rows, given some of them.
    """
    done = 0
    for arrays in found_arrays(checkpoints, _ROWS):
        rows = arrays["rows"]
        if arrays["start"] != done:
            # One before it is gone, or was kept by another process, up to another row.
            break
        into(rows)[done : done + len(rows)] = rows
        done += len(rows)
    if done:
        print(f"the step goes on from row {done:,}, which an earlier attempt had reached", flush=True)
    return done

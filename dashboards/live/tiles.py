"""The grid of the live page: squares of cells by two axes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from dashboards.live.watch import SHOWN, Look
from orchestrator.analysis.blocks import Blocks, Codes, combine_codes, complete_blocks

#: Columns of the table that people may colour by, beside the metrics.
MEASURES = ("seconds", "attempts")


def default_axes(look: Look) -> tuple[str, str]:
    """Choose columns and rows of the grid: the axes of the sweep's own summary, else those with most values."""
    labels = {axis: len(look.session.spec.labels(axis)) for axis in look.axes}
    asked = [axis for axis in look.session.spec.summary.by if axis in labels]
    others = sorted((axis for axis in labels if axis not in asked), key=lambda axis: (axis == "seed", -labels[axis]))
    first, second = [*asked, *others, look.axes[0]][:2]
    return (first, second) if labels[first] >= labels[second] else (second, first)


def tiles(cells: pd.DataFrame, columns: str, rows: str, measure: str | None) -> pd.DataFrame:
    """Make the squares of the grid: what the cells with one value of each of two axes have in common.

    Args:
        cells: of `Look.cells`, perhaps filtered.
        columns: an axis.
        rows: an axis, perhaps the same.
        measure: a metric, or one of MEASURES; None for none.

    Returns:
        one row per square that has cells: `column` and `row` (positions of labels), `x` and `y` (labels), `cells`, one
        column per status with its count, and with a measure `n`, `mean` and `sd` (sample) over the cells of complete
        blocks (`blocks`), so that squares can be compared.
    """
    frame = pd.DataFrame({"column": cells[columns].cat.codes, "row": cells[rows].cat.codes})
    for status in SHOWN:
        frame[status] = (cells["status"] == status).astype(np.int64)
    keys = ["column", "row"]
    found = frame.groupby(keys, sort=True)[list(SHOWN)].sum()
    found["cells"] = found.sum(axis=1)
    if measure is not None:
        frame["value"] = cells[measure].where(blocks(cells, columns, rows, measure).kept).astype(np.float64)
        of_squares = frame.groupby(keys, sort=True)["value"]
        found["n"], found["mean"], found["sd"] = of_squares.count(), of_squares.mean(), of_squares.std()
    found = found.reset_index()
    for position, label, axis in (("column", "x", columns), ("row", "y", rows)):
        found[label] = np.asarray(cells[axis].cat.categories, object)[found[position]]
    return found


def blocks(cells: pd.DataFrame, columns: str, rows: str, measure: str) -> Blocks:
    """Find the cells that the means of a measure are taken of: those of complete blocks of the squares by two axes."""

    def combined(axes: Iterable[str]) -> Codes:
        categories = [cells[axis].cat for axis in axes]
        return combine_codes(
            len(cells), [(np.asarray(each.codes, np.int64), len(each.categories)) for each in categories]
        )

    compared = combined(dict.fromkeys((columns, rows)))
    block = combined(name for name in cells.attrs["axes"] if name not in (columns, rows))
    there = (cells["status"] == "succeeded").to_numpy() & np.isfinite(cells[measure].to_numpy(np.float64))
    return complete_blocks(there, compared, block, cells["status"].to_numpy(str))

"""The grid of the live page: squares of cells by two axes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from dashboards.live.watch import SHOWN, Look
from orchestrator.analysis.means import Codes, Means, balanced_means, combine_codes

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
        column per status with its count, and with a measure `n`, `mean` and `sd` (sample), which are balanced
        (`square_means`), so that squares can be compared.
    """
    frame = pd.DataFrame({"column": cells[columns].cat.codes, "row": cells[rows].cat.codes})
    for status in SHOWN:
        frame[status] = (cells["status"] == status).astype(np.int64)
    keys = ["column", "row"]
    found = frame.groupby(keys, sort=True)[list(SHOWN)].sum()
    found["cells"] = found.sum(axis=1)
    if measure is not None:
        means = square_means(cells, columns, rows, measure)
        of_squares = found.index.get_level_values(0) * len(cells[rows].cat.categories) + found.index.get_level_values(1)
        found["n"], found["mean"], found["sd"] = (each[of_squares] for each in (means.cells, means.mean, means.sd))
    found = found.reset_index()
    for position, label, axis in (("column", "x", columns), ("row", "y", rows)):
        found[label] = np.asarray(cells[axis].cat.categories, object)[found[position]]
    return found


def square_means(cells: pd.DataFrame, columns: str, rows: str, measure: str) -> Means:
    """Take the balanced means of a measure in the squares by two axes, so that squares can be compared.

    Returns:
        means, the arms being the positions of columns times the number of rows, plus those of rows.
    """

    def combined(axes: Iterable[str]) -> Codes:
        categories = [cells[axis].cat for axis in axes]
        return combine_codes(
            len(cells), [(np.asarray(each.codes, np.int64), len(each.categories)) for each in categories]
        )

    random = cells.attrs["random"]
    others = [name for name in cells.attrs["axes"] if name not in (columns, rows)]
    drawn = [name for name in others if name in random]
    return balanced_means(
        cells[measure].where(cells["status"] == "succeeded").to_numpy(np.float64),
        combined((columns, rows)),
        combined(name for name in others if name not in random),
        combined(drawn) if drawn else None,
        cells["status"].to_numpy(str),
        " × ".join(name for name in others if name not in random) or "the other axes",
    )

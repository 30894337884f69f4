"""A results table as arrays, so that cells which differ in one axis lie beside each other."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.analysis.means import combine_codes, label_codes
from orchestrator.results.metrics import reported_metrics
from orchestrator.statistics.estimates import Reals
from orchestrator.types import Scalar

#: The axis whose values are the sample.
SEED = "seed"


@dataclass(frozen=True)
class MetricGrid:
    """The metrics of a sweep as arrays with one dimension per axis."""

    axes: Mapping[str, tuple[Scalar, ...]]
    """Axis -> its values that are in the table, in the order of the sweep file."""
    metrics: Mapping[str, Reals]
    """Metric -> values, of shape (len of each axis, …); NaN where a cell is missing, unfinished or lacks the number."""
    rows: NDArray[np.int64]
    """Row of the table at each combination of values, of the same shape; -1 where it is no cell of the table."""

    def labels(self, axis: str) -> tuple[Scalar, ...]:
        """Return the values of an axis; none where there is no such axis."""
        return self.axes.get(axis, ())

    def chosen(self, axis: str, at: Mapping[str, Sequence[Scalar]]) -> list[Scalar]:
        """Return the values of an axis that count: all, or those that `at` names."""
        return [label for label in self.labels(axis) if axis not in at or label in at[axis]]


def read_axes(table: pa.Table) -> dict[str, tuple[Scalar, ...]]:
    """Return for each axis its values that are in some rows of a results table, in the order of the sweep file."""
    found = json.loads(table.schema.metadata[b"axes"])
    there = {axis: set(table[axis].to_pylist()) for axis in found}
    return {axis: tuple(label for label in labels if label in there[axis]) for axis, labels in found.items()}


def read_metric_grid(table: pa.Table, metrics: Sequence[str] = ()) -> MetricGrid:
    """Arrange the succeeded cells of a results table by their coordinates.

    Args:
        table: results table, or some rows of it.
        metrics: none for all reported ones.

    Raises:
        ValueError: a cell is in the table twice.
    """
    axes = read_axes(table)
    shape = tuple(len(labels) for labels in axes.values())
    coded = ((label_codes(table[axis], labels), len(labels)) for axis, labels in axes.items())
    places = combine_codes(table.num_rows, coded)
    doubles = len(places) - len(np.unique(places))
    if doubles:
        raise ValueError(f"{doubles:,} cells are in the table twice")
    succeeded = np.array([status == "succeeded" for status in table["status"].to_pylist()], np.bool_)
    filled: dict[str, Reals] = {}
    for name in metrics or reported_metrics(table):
        column = np.array(table[name].to_pylist(), np.float64)  # null becomes NaN
        column[~np.isfinite(column)] = np.nan
        values = np.full(math.prod(shape), np.nan)
        values[places[succeeded]] = column[succeeded]
        filled[name] = values.reshape(shape)
    rows = np.full(math.prod(shape), -1, np.int64)
    rows[places] = np.arange(table.num_rows)
    return MetricGrid(axes, filled, rows.reshape(shape))


def missing_cells(table: pa.Table, random: Sequence[str] = (SEED,), singles: bool = False) -> list[str]:
    """Return warnings about the cells that the axes span and that have no result.

    Args:
        table: results table, or some rows of it.
        random: the axes whose values are the sample, whether the table has them or not.
        singles: whether there may be values of single prompts, so that one draw has intervals, too.
    """
    axes = read_axes(table)
    states = Counter(table["status"].to_pylist())
    unfinished = {status: count for status, count in states.most_common() if status != "succeeded"}
    warnings = []
    if unfinished:
        counts = ", ".join(f"{count:,} {status}" for status, count in unfinished.items())
        warnings.append(f"{sum(unfinished.values()):,} of {table.num_rows:,} cells have no result ({counts})")
    absent = math.prod(map(len, axes.values())) - table.num_rows
    if absent:
        warnings.append(f"{absent:,} combinations of the axes are not part of the sweep (`exclude`, --only)")
    if not singles and all(len(axes.get(axis, ())) < 2 for axis in random):
        spanned, names = json.loads(table.schema.metadata[b"axes"]), " × ".join(random)
        several = any(len(spanned.get(axis, ())) > 1 for axis in random)
        lack = (
            f"these cells are of one {names} only"
            if several
            else f"the sweep has no axis `{names}` of two or more values"
        )
        warnings.append(f"{lack}: there are no intervals and p values, which need two")
    return warnings

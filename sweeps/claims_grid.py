"""The results of a finished sweep as a grid whose seeds are the sample: what `claims.py` tests the claims on."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from orchestrator.analysis.estimates import Reals
from orchestrator.analysis.metric_grid import MetricGrid, read_metric_grid
from orchestrator.results.metrics import reported_metrics
from orchestrator.types import Scalar as Label

#: What claims speak of.
METRICS = ("flip_rate", "improvement", "pairwise_accuracy")


class UnfitTableError(ValueError):
    """Claims cannot be tested on this table; the message says why and what to do."""


class NotTestableError(Exception):
    """The sweep does not vary what the hypothesis speaks of."""


@dataclass(frozen=True)
class Grid(MetricGrid):
    """A finished sweep: the metrics that claims speak of, without a gap."""

    def require(self, axis: str, labels: Sequence[Label]) -> None:
        """Check that an axis has these values.

        Raises:
            NotTestableError: one of them is missing.
        """
        missing = [label for label in labels if label not in self.labels(axis)]
        if missing:
            raise NotTestableError(f"the sweep has no {axis} = {', '.join(map(str, missing))}")

    def cells(self, metric: str, at: Mapping[str, Sequence[Label]]) -> Reals:
        """A metric (seeds, …) of the cells with these values, the other axes in order; axes of one value disappear.

        Raises:
            NotTestableError: no such metric, axis or value.
        """
        if metric not in self.metrics:
            raise NotTestableError(f"the table has no metric {metric!r}")
        values = np.moveaxis(self.metrics[metric], list(self.axes).index("seed"), 0)
        dimension = 1
        for axis in (each for each in self.axes if each != "seed"):
            if axis in at:
                self.require(axis, at[axis])
                places = [self.axes[axis].index(label) for label in at[axis]]
                values = np.take(values, places[0] if len(places) == 1 else places, axis=dimension)
                dimension += len(places) != 1
            else:
                dimension += 1
        for axis in at:
            self.require(axis, at[axis])
        return values

    def difference(
        self, metric: str, axis: str, better: Label, worse: Label, at: Mapping[str, Sequence[Label]]
    ) -> Reals:
        """metric(better) - metric(worse) of cells that agree in everything else: (seeds, …).

        Raises:
            NotTestableError: no such metric, axis or value.
        """
        return self.cells(metric, {**at, axis: [better]}) - self.cells(metric, {**at, axis: [worse]})


def read_grid(table: pa.Table) -> Grid:
    """The cells of a results table as a grid.

    Raises:
        UnfitTableError: a cell is unfinished, missing, there twice, or lacks a number; or there are not two seeds.
    """
    axes = json.loads(table.schema.metadata[b"axes"])
    states = Counter(table["status"].to_pylist())
    unfinished = {state: count for state, count in states.most_common() if state != "succeeded"}
    if unfinished:
        spelled = ", ".join(f"{count:,} {state}" for state, count in unfinished.items())
        raise UnfitTableError(
            f"{sum(unfinished.values()):,} of {table.num_rows:,} cells are not finished ({spelled}): claims are tested"
            " on whole grids only; finish them with `sweep run`"
        )
    if len(axes.get("seed", ())) < 2:
        raise UnfitTableError("the sweep has no axis `seed` of two or more values: without it there is no spread")
    # Others may rightly be empty: a LightGBM model has no epochs.
    try:
        grid = read_metric_grid(table, [name for name in reported_metrics(table) if name in METRICS])
    except ValueError as error:
        raise UnfitTableError(str(error)) from error
    size = math.prod(map(len, axes.values()))
    if table.num_rows < size:
        raise UnfitTableError(
            f"{size - table.num_rows:,} of the {size:,} cells that the axes span are missing:"
            " claims are tested on whole grids only; run the sweep without `exclude`, and do not filter its table"
        )
    for name, values in grid.metrics.items():
        if np.isnan(values).any():
            raise UnfitTableError(f"metric {name!r} has no finite number in {np.isnan(values).sum():,} cells")
    return Grid(grid.axes, grid.metrics, grid.points)


def numbers(grid: Grid, axis: str) -> list[int | float]:
    """The values of an axis of numbers.

    Raises:
        NotTestableError: there is no such axis, or its values are names.
    """
    found = [label for label in grid.labels(axis) if isinstance(label, (int, float))]
    if not found or len(found) < len(grid.labels(axis)):
        raise NotTestableError(f"the sweep has no axis {axis!r} of numbers")
    return found


def per_seed(values: Reals) -> Reals:
    """Mean over everything but the seeds: (seeds, …) -> (seeds,)."""
    means: Reals = values.reshape(len(values), -1).mean(axis=1)
    return means

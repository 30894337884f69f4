"""Results tables of one metric, `gain`, as tests of statistics need them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.results.parquet import SCHEMA_VERSION

AXES: dict[str, list[Any]] = {"model": ["bt", "clf", "lgb"], "beta": [0.5, 1.0, 10.0], "seed": [0, 1, 2, 3, 4]}
Cell = Mapping[str, Any]


def table_of(
    value: Callable[[Cell], float | None],
    axes: Mapping[str, list[Any]] = AXES,
    leave_out: Callable[[Cell], bool] = lambda cell: False,
) -> pa.Table:
    """A results table with one metric, `gain`; cells without a value have failed, those left out were excluded."""
    rows = []
    for values in product(*axes.values()):
        cell = dict(zip(axes, values, strict=True))
        if not leave_out(cell):
            gain = value(cell)
            rows.append({**cell, "status": "failed" if gain is None else "succeeded", "gain": gain})
    metadata = {"schema_version": str(SCHEMA_VERSION), "axes": json.dumps(axes), "metrics": json.dumps(["gain"])}
    return pa.Table.from_pylist(rows).replace_schema_metadata(metadata)


def noisy(seed: int = 0, scale: float = 1.0) -> Callable[[Cell], float]:
    random = np.random.default_rng(seed)
    return lambda cell: AXES["model"].index(cell["model"]) + scale * random.standard_normal()


class Simulation:
    """Sweeps of 3 models, 3 betas and some seeds: what a seed's cells share, what it does to each model, and luck."""

    def __init__(self, effects: list[float], seeds: int, luck: int) -> None:
        self.effects, self.random = effects, np.random.default_rng(luck)
        axes = AXES | {"seed": list(range(seeds))}
        self.table = table_of(lambda cell: 0.0, axes)
        self.shape = (3, 3, seeds)

    def draw(self) -> pa.Table:
        models, _, seeds = self.shape
        values = (
            np.reshape(self.effects, (-1, 1, 1))
            + np.array([0.0, 1.0, 3.0])[:, np.newaxis]
            + 5 * self.random.standard_normal((1, 1, seeds))
            + 0.3 * self.random.standard_normal((models, 1, seeds))
            + 0.5 * self.random.standard_normal(self.shape)
        )
        place = self.table.column_names.index("gain")
        return self.table.set_column(place, "gain", pa.array(values.ravel()))

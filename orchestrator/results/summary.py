"""Small tables from a results table: mean ± spread over seeds, or what SQL asks for."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from orchestrator.plan.grid import Mask
from orchestrator.plan.select import spell_coords
from orchestrator.results.blocks import Blocks, Codes, complete_blocks
from orchestrator.results.table import averaged_metrics, reported_metrics
from orchestrator.sweep.problems import Problem, SweepError, nearest
from orchestrator.sweep.spec import SweepSpec
from orchestrator.types import Scalar

#: So many combinations without a result are named.
_NAMED = 4

#: A query reads the tables that it is given: no file, no network, no variable of this program, and it writes nothing.
_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "lock_configuration": "true",
}


def summarise(
    table: pa.Table,
    spec: SweepSpec,
    by: tuple[str, ...] | None = None,
    metrics: tuple[str, ...] = (),
    within: tuple[str, ...] = (),
) -> pa.Table:
    """Mean and standard deviation of metrics over seeds, for each combination of some axes.

    Only complete blocks count (`results.blocks`), so that means can be compared. Within a seed, the cells of a
    combination are averaged first; `<metric>_mean` is the mean of these over the seeds and `<metric>_sd` their sample
    standard deviation (null for one seed). A sweep without an axis `seed` takes the spread over its cells. `cells` says
    from how many cells the mean of a metric is, and `seeds` from how many seeds, for the metric with most of them;
    `left_out` tells what is not in it. Sums are exact (`math.fsum`): the same cells in any order give the same bits.

    Args:
        table: results table.
        spec: of its sweep.
        by: axes whose values are compared, none for one row; when left out, those of the sweep file's summary.
        metrics: none for those of the sweep file's summary, or else all that can be averaged.
        within: axes whose values are not compared with each other; they come first in the rows.

    Raises:
        SweepError: no such axis or metric, or a metric of which no mean is taken.
    """
    if by is None:
        by = spec.summary.by or tuple(axis for axis in spec.axes if axis != "seed")[-2:]
    metrics = metrics or spec.summary.metrics or tuple(averaged_metrics(table))
    _check(table, spec, (*within, *by), metrics)
    axes, others = (*within, *by), tuple(axis for axis in spec.axes if axis not in (*within, *by))
    positions = {axis: _positions(table, spec, axis) for axis in spec.axes}
    row, block, group = (_combined(positions, spec, names) for names in (axes, others, within))
    unit = positions["seed"] if "seed" in others else np.arange(len(row))
    statuses = np.array(table["status"].to_pylist(), np.str_)
    succeeded = statuses == "succeeded"
    shown, firsts = np.unique(row[succeeded], return_index=True)
    columns: dict[str, pa.Array] = {axis: table[axis].filter(pa.array(succeeded)).take(firsts) for axis in axes}
    found: dict[bytes, Blocks] = {}
    told: dict[str, list[str]] = {}
    cells, seeds = np.zeros(len(shown), np.int64), np.zeros(len(shown), np.int64)
    means: dict[str, pa.Array] = {}
    # A sweep without metrics still has cells to count.
    for name in metrics or ("",):
        values = np.array(table[name].to_pylist(), np.float64) if name else np.zeros(len(row))  # null becomes NaN
        there = succeeded & np.isfinite(values)
        if there.tobytes() not in found:
            found[there.tobytes()] = complete_blocks(there, row, block, statuses, group)
        blocks = found[there.tobytes()]
        if sentence := blocks.told(by):
            told.setdefault(sentence, []).append(name)
        kept = np.flatnonzero(blocks.kept)
        mean, sd, counts, units = _moments(values[kept], np.searchsorted(shown, row[kept]), unit[kept], len(shown))
        if name:
            means |= {f"{name}_mean": pa.array(mean, pa.float64()), f"{name}_sd": pa.array(sd, pa.float64())}
        cells, seeds = np.maximum(cells, counts), np.maximum(seeds, units)
    columns |= {"cells": pa.array(cells), **({"seeds": pa.array(seeds)} if "seed" in others else {}), **means}
    notes = [
        sentence if len(names) >= len(metrics) else f"{', '.join(names)}: {sentence}"
        for sentence, names in told.items()
    ]
    absent = np.setdiff1d(row, shown)
    if len(absent):
        named = [_coords(table, axes, int(np.flatnonzero(row == each)[0])) for each in absent[:_NAMED]]
        more = f" and {len(absent) - _NAMED:,} more" if len(absent) > _NAMED else ""
        notes.append(f"no cell has succeeded at {'; '.join(map(spell_coords, named))}{more}")
    rest = _combined(positions, spec, tuple(axis for axis in others if axis != "seed"))
    if "seed" in others and any(_uneven(each.kept, unit, group, rest) for each in found.values()):
        notes.append("the seeds are not averaged over the same blocks, so ± is not from the seeds alone")
    return pa.table(columns).replace_schema_metadata({"left_out": json.dumps(notes)})


def left_out(summary: pa.Table) -> list[str]:
    """What is not in the means of a summary, in sentences without full stop; none where everything is in them."""
    notes: list[str] = json.loads((summary.schema.metadata or {}).get(b"left_out", b"[]"))
    return notes


def spread_of(summary: pa.Table) -> str:
    """What the ± of a summary is."""
    if "seeds" in summary.column_names:
        return "mean ± sd over seeds; the cells of a seed are averaged first"
    return "mean ± sd over cells"


def _check(table: pa.Table, spec: SweepSpec, axes: Sequence[str], metrics: Sequence[str]) -> None:
    known, averaged = reported_metrics(table), averaged_metrics(table)
    problems = [
        *(
            Problem("--by", "", f"there is no axis {axis!r}; {nearest(axis, spec.axes)}")
            for axis in axes
            if axis not in spec.axes
        ),
        *(Problem("--metrics", "", _unknown(name, known)) for name in metrics if name not in averaged),
    ]
    if problems:
        raise SweepError(problems)


def _unknown(name: str, known: Sequence[str]) -> str:
    if name in known:
        return f"{name!r} is a p value or the end of an interval, of which no mean is taken; --cells shows it"
    return f"there is no metric {name!r}; {nearest(name, known)}"


def _positions(table: pa.Table, spec: SweepSpec, axis: str) -> Codes:
    """Of each row the position of its value among those of an axis, in the order of the sweep file."""
    position = {label: place for place, label in enumerate(spec.labels(axis))}
    return np.array([position[label] for label in table[axis].to_pylist()], np.int64)


def _combined(positions: dict[str, Codes], spec: SweepSpec, axes: Sequence[str]) -> Codes:
    """One number per combination of axes, in the order of the sweep file."""
    code = np.zeros(len(next(iter(positions.values()))), np.int64)
    for axis in axes:
        code = code * len(spec.axes[axis]) + positions[axis]
    return code


def _coords(table: pa.Table, axes: Sequence[str], row: int) -> dict[str, Scalar]:
    return {axis: table[axis][row].as_py() for axis in axes}


def _moments(
    values: np.ndarray, row: Codes, unit: Codes, rows: int
) -> tuple[list[float | None], list[float | None], Codes, Codes]:
    """Of each row mean and sample standard deviation over its units' means, its number of values, and of units."""
    order = np.lexsort((unit, row))
    values, row, unit = values[order], row[order], unit[order]
    begins = np.flatnonzero(np.diff(row, prepend=-1) | np.diff(unit, prepend=-1))
    by_unit: list[list[float]] = [[] for _ in range(rows)]
    for number, each in zip(row[begins].tolist(), np.split(values, begins[1:]), strict=False):
        by_unit[number].append(math.fsum(each) / len(each))
    means = [math.fsum(each) / len(each) if each else None for each in by_unit]
    spreads = [
        math.sqrt(math.fsum((one - mean) ** 2 for one in each) / (len(each) - 1))
        if mean is not None and each[1:]
        else None
        for each, mean in zip(by_unit, means, strict=True)
    ]
    counts = np.bincount(row, minlength=rows).astype(np.int64)
    return means, spreads, counts, np.array([len(each) for each in by_unit], np.int64)


def _uneven(kept: Mask, seed: Codes, group: Codes, rest: Codes) -> bool:
    """Whether some seed of a group lacks a combination of the other axes that another one has."""
    for each in np.unique(group[kept]):
        mine = kept & (group == each)
        pairs = len(np.unique(np.stack([seed[mine], rest[mine]]), axis=1).T)
        if pairs < len(np.unique(seed[mine])) * len(np.unique(rest[mine])):
            return True
    return False


def query(table: pa.Table, sql: str) -> pa.Table:
    """What DuckDB answers to SQL about the table `results`, which is all that it can read.

    Raises:
        SweepError: it is no SQL, speaks of what is not there, or would read or write a file.
    """
    import duckdb

    with duckdb.connect(config=_CLOSED) as connection:
        # `register` would import pandas, only to see that this is none of its tables.
        connection.from_arrow(table).create_view("results")
        try:
            # Some mistakes show only where rows are made.
            answer = connection.sql(sql)
            found: pa.Table | None = None if answer is None else answer.to_arrow_table()
        except duckdb.PermissionException as error:
            message = (
                f"{error}; a query reads the table `results` and nothing else: --output FILE writes the answer, and "
                "for more, open results.parquet in DuckDB itself"
            )
            raise SweepError([Problem("--sql", "", message)]) from error
        except duckdb.Error as error:
            raise SweepError([Problem("--sql", "", str(error))]) from error
    if found is None:
        raise SweepError([Problem("--sql", "", "asks for no rows; begin with `select`")])
    return found


def spread(mean: float | None, sd: float | None) -> str:
    """One value of a summary as people read it: mean ± sd, empty where there is none."""
    if mean is None:
        return ""
    return _short(mean) if sd is None else f"{_short(mean)} ± {_short(sd)}"


def _short(value: float) -> str:
    """Three decimals; three significant digits of what these would make nothing of."""
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.01 else f"{value:.3g}"


def for_people(summary: pa.Table) -> pa.Table:
    """A summary with one column of text per metric, `mean ± sd`."""
    columns = {name: summary[name] for name in summary.column_names if not name.endswith(("_mean", "_sd"))}
    for mean in (name for name in summary.column_names if name.endswith("_mean")):
        metric = mean.removesuffix("_mean")
        pairs = zip(summary[mean].to_pylist(), summary[f"{metric}_sd"].to_pylist(), strict=True)
        columns[metric] = pa.array([spread(*pair) for pair in pairs], pa.string())
    return pa.table(columns).replace_schema_metadata(summary.schema.metadata)

"""The summary of a results table: means ± standard deviations over seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from orchestrator.analysis.means import Codes, balanced_means, combine_codes, label_codes
from orchestrator.analysis.metric_grid import SEED
from orchestrator.plan.select import format_coords
from orchestrator.results.format import format_mean_sd
from orchestrator.results.metrics import averaged_metrics, metric_problems
from orchestrator.statistics.estimates import Reals
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.sweep.spec import SweepSpec
from orchestrator.texts import nearest
from orchestrator.types import Scalar

#: So many combinations without a result are named.
_NAMED = 4


def summarise(
    table: pa.Table,
    spec: SweepSpec,
    by: tuple[str, ...] | None = None,
    metrics: tuple[str, ...] = (),
    within: tuple[str, ...] = (),
) -> pa.Table:
    """Compute mean and standard deviation of metrics over seeds, for each combination of some axes.

    Means are balanced (`analysis.means`), so that they can be compared. Within a seed, the cells of a combination are
    averaged first; `<metric>_mean` is the mean of these over the seeds and `<metric>_sd` their sample standard
    deviation (null for one seed). Where the analysis declares other axes as random, a seed is a draw of all of these;
    where nothing is random, the spread is that over cells. `cells` says from how many cells the mean of a metric is,
    and `seeds` from how many seeds, for the metric with most of them; `left_out` says what is missing in it. The same
    cells in any order give the same bits.

    Args:
        table: results table.
        spec: of its sweep.
        by: axes whose values are compared, none for one row; when left out, those of the sweep file's summary.
        metrics: none for those of the sweep file's summary, or else all that can be averaged.
        within: axes whose values are not compared with each other; they come first in the rows, and so do those that
            the analysis never averages over.

    Raises:
        SweepError: no such axis or metric, or a metric of which no mean is taken.
    """
    # Rows of best trials have no axis of trials.
    along = [axis for axis in spec.axes if axis in table.column_names]
    if by is None:
        by = spec.summary.by or tuple(axis for axis in along if axis not in spec.random_axes)[-2:]
    by = tuple(dict.fromkeys(by))
    held = (*within, *(axis for axis in spec.apart if axis in along and len(table[axis].unique()) > 1))
    within = tuple(axis for axis in dict.fromkeys(held) if axis not in by)
    metrics = tuple(dict.fromkeys(metrics)) or spec.summary.metrics or tuple(averaged_metrics(table))
    unknown = [axis for axis in (*within, *by) if axis not in along]
    problems = [Problem("--by", "", f"there is no axis {axis!r}; {nearest(axis, along)}") for axis in unknown]
    if problems := problems + metric_problems(table, metrics):
        raise SweepError(problems)
    axes, others = (*within, *by), tuple(axis for axis in along if axis not in (*within, *by))
    positions = {axis: label_codes(table[axis], spec.labels(axis)) for axis in along}
    random = tuple(axis for axis in others if axis in spec.random_axes)
    rest = tuple(axis for axis in others if axis not in random)
    row, combination, group, draw = (_combined(positions, spec, names) for names in (axes, rest, within, random))
    statuses = np.array(table["status"].to_pylist(), np.str_)
    succeeded = statuses == "succeeded"
    shown, firsts = np.unique(row[succeeded], return_index=True)
    columns: dict[str, pa.Array] = {axis: table[axis].filter(pa.array(succeeded)).take(firsts) for axis in axes}
    cells, seeds = np.zeros(len(shown), np.int64), np.zeros(len(shown), np.int64)
    means: dict[str, pa.Array] = {}
    sentences: dict[str, dict[str, None]] = {}
    over = " × ".join(axis for axis in rest if len(spec.labels(axis)) > 1) or "the other axes"
    # A sweep without metrics still has cells to count.
    for name in metrics or ("",):
        # Null becomes NaN.
        values = np.array(table[name].to_pylist(), np.float64) if name else np.zeros(len(row))
        values[~succeeded | ~np.isfinite(values)] = np.nan
        mean, sd = (np.full(len(shown), np.nan) for _ in range(2))
        for each in np.unique(group):
            mine = group == each
            arms, arm = np.unique(row[mine], return_inverse=True)
            drawn = draw[mine] if random else None
            found = balanced_means(values[mine], arm, combination[mine], drawn, statuses[mine], over)
            there, places = np.isin(arms, shown), np.searchsorted(shown, arms)
            at = places[there]
            mean[at], sd[at] = found.mean[there], found.sd[there]
            cells[at] = np.maximum(cells[at], found.cells[there])
            seeds[at] = np.maximum(seeds[at], found.draws * (found.cells[there] > 0))
            for sentence in found.notes:
                sentences.setdefault(sentence, {})[name] = None
        if name:
            means |= {f"{name}_mean": _column(mean), f"{name}_sd": _column(sd)}
    columns |= {"cells": pa.array(cells), **({"seeds": pa.array(seeds)} if random else {}), **means}
    notes = [
        sentence if len(names) >= len(metrics) else f"{', '.join(names)}: {sentence}"
        for sentence, names in sentences.items()
    ]
    absent = np.setdiff1d(row, shown)
    if len(absent):
        named = [_coords(table, axes, int(np.flatnonzero(row == each)[0])) for each in absent[:_NAMED]]
        more = f" and {len(absent) - _NAMED:,} more" if len(absent) > _NAMED else ""
        notes.append(f"no cell has succeeded at {'; '.join(map(format_coords, named))}{more}")
    return pa.table(columns).replace_schema_metadata({"left_out": json.dumps(notes), "random": json.dumps(random)})


def _column(values: Reals) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))


def left_out(summary: pa.Table) -> list[str]:
    """Return what is not in the means of a summary, in sentences without full stop; none where everything is."""
    notes: list[str] = json.loads((summary.schema.metadata or {}).get(b"left_out", b"[]"))
    return notes


def spread_of(summary: pa.Table) -> str:
    """Say what the numbers of a summary are: what its ± is, or of which trials they are (`results.best`)."""
    if title := (summary.schema.metadata or {}).get(b"title"):
        return str(title.decode())
    random = _random(summary)
    if not random:
        return f"mean ± {spread_over(summary)}"
    return (
        f"mean ± {spread_over(summary)}; the cells of {'a seed' if random == [SEED] else 'a draw'} are averaged first"
    )


def spread_over(summary: pa.Table) -> str:
    """Say what the standard deviations of a summary are over: "sd over seeds", or cells where nothing is random."""
    return f"sd over {' × '.join(f'{axis}s' if axis == SEED else axis for axis in _random(summary)) or 'cells'}"


def _random(summary: pa.Table) -> list[str]:
    random: list[str] = json.loads((summary.schema.metadata or {}).get(b"random", b"[]"))
    return random


def key_columns(summary: pa.Table) -> int:
    """Return how many of the first columns of a summary tell its rows apart."""
    keys = (summary.schema.metadata or {}).get(b"keys")
    return int(keys) if keys else int(summary.column_names.index("cells"))


def format_summary(summary: pa.Table) -> pa.Table:
    """Return a summary with one column of text per metric, `mean ± sd`; one of best trials without empty columns."""
    if b"title" in (summary.schema.metadata or {}):
        nothing = ([0], [None])
        return summary.select(
            [
                name
                for name in summary.column_names
                if summary[name].unique().to_pylist() not in nothing or name == "trial"
            ]
        )
    names = summary.column_names
    # Axes, counts, then two columns for each metric; the name of an axis may end like those of metrics.
    first = names.index("cells") + 1
    first += names[first : first + 1] == ["seeds"]
    columns = {name: summary[name] for name in names[:first]}
    for mean, sd in zip(names[first::2], names[first + 1 :: 2], strict=True):
        pairs = zip(summary[mean].to_pylist(), summary[sd].to_pylist(), strict=True)
        columns[mean.removesuffix("_mean")] = pa.array([format_mean_sd(*pair) for pair in pairs], pa.string())
    return pa.table(columns).replace_schema_metadata(summary.schema.metadata)


def _combined(positions: Mapping[str, Codes], spec: SweepSpec, axes: Sequence[str]) -> Codes:
    """The combination of some axes that each row has, in the order of the sweep file."""
    rows = len(next(iter(positions.values())))
    return combine_codes(rows, ((positions[axis], len(spec.axes[axis])) for axis in axes))


def _coords(table: pa.Table, axes: Sequence[str], row: int) -> dict[str, Scalar]:
    return {axis: table[axis][row].as_py() for axis in axes}

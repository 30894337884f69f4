"""What MLflow is shown of a sweep: one run per cell, below groups, below the sweep's own run. Pure; no mlflow here."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.keys import digest
from orchestrator.plan.columns import Plan
from orchestrator.plan.grid import Numbers
from orchestrator.redact import redact
from orchestrator.results.blocks import Codes, complete_blocks
from orchestrator.results.format import Format, export
from orchestrator.results.metrics import reported_metrics
from orchestrator.results.parquet import column_type
from orchestrator.results.summary import for_people
from orchestrator.sweep.spec import SweepSpec
from orchestrator.tracking.sent import Run
from orchestrator.types import Scalar

#: MLflow lists children slowly beyond a few hundred, so no run has more of them.
CHILDREN_PER_PARENT = 500
#: Tags by which runs are found again.
KIND, CELL, ID, CONTENT, GROUP = "sweep.kind", "sweep.cell_id", "sweep.id", "sweep.content", "sweep.group"
#: The parents of runs that show the training of a long step begin with this.
TRAINING = "training"
_TEXT_LIMIT = 5000
#: MLflow's databases hold no longer names.
_NAME_LIMIT = 250


@dataclass(frozen=True)
class Experiment:
    """What MLflow is shown beside the runs of cells."""

    uri: str
    name: str
    description: str
    """Markdown, for the page of the experiment."""
    note: str = ""
    """Markdown, for the page of the sweep's own run: what came out."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Of the sweep's own run."""
    datasets: tuple[Mapping[str, str], ...] = ()
    """name, digest, source_type, source, context; as MLflow calls them."""
    files: tuple[str, ...] = ()
    """Kept with the sweep's own run."""
    group_axes: Sequence[str] | None = ()
    """Those that name the groups of cells; None where cells are counted off."""
    unaveraged: Sequence[str] = ()
    """Metrics of which groups have no means."""

    @property
    def target(self) -> str:
        """Names the place, with whatever password it is asked."""
        return f"{redact(self.uri)} {self.name}"


class Projection:
    """How the cells of a plan become runs."""

    def __init__(self, plan: Plan) -> None:
        """Nothing is computed yet."""
        self.plan = plan
        self.spec: SweepSpec = plan.spec

    def runs(self, table: pa.Table, cells: Sequence[int]) -> Iterator[Run]:
        """The runs of finished, failed and blocked cells.

        Args:
            table: their rows (`orchestrator.results.table.Results.rows`).
            cells: their places in the plan.
        """
        axes, metrics = tuple(self.spec.axes), (*reported_metrics(table), "seconds", "attempts")
        chosen = np.asarray(cells, np.int64)
        keys = {name: of_cells[chosen].tolist() for name, of_cells in self._single_steps.items()}
        now = time.time()
        for position, row in enumerate(table.to_pylist()):
            if row["status"] not in ("succeeded", "failed", "blocked"):
                continue
            group = self._group(cells[position], row)
            tags = {
                KIND: "cell",
                CELL: row["cell_id"],
                GROUP: "/".join(group),
                "sweep.status": row["status"],
                "sweep.key": row["key"],
            }
            for column in ("code_commit", "error_class", "error", "log", "undefined"):
                if row[column]:
                    tags[f"sweep.{column}"] = str(row[column]).replace("\0", "")[:_TEXT_LIMIT]
            if row["code_commit"]:
                # The column "Version" of MLflow's pages.
                tags["mlflow.source.git.commit"] = row["code_commit"]
            for name, of_cells in keys.items():
                if of_cells[position] >= 0:
                    tags[f"sweep.key.{name}"] = self.plan.keys[of_cells[position]]
            yield Run(
                id=row["cell_id"],
                name=_short({axis: row[axis] for axis in self._shown_axes}) or row["cell_id"],
                group=group,
                succeeded=row["status"] == "succeeded",
                started=now - (row["seconds"] or 0),
                ended=now,
                params={axis: str(row[axis]) for axis in axes},
                metrics={name: row[name] for name in metrics if row[name] is not None},
                tags=tags,
            )

    def curve(self, number: int, rows: Iterable[Mapping[str, Any]], seconds: float, finished: float) -> Run:
        """The run of a step that wrote its training curve.

        Args:
            number: the step.
            rows: of `workers.tables.HISTORY`.
            seconds: that it took.
            finished: seconds since the epoch.
        """
        address, entry, coords = self.plan.address(number), self.plan.entry_of(number), self.plan.coords(number)
        part = (number - self.plan.by_entry[entry].first) // CHILDREN_PER_PARENT
        group = f"{TRAINING} {entry}" + (f" ({part + 1})" if part else "")
        return Run(
            id=f"step:{address.key}",
            name=f"{entry} {_short(coords)}".strip(),
            group=(group,),
            succeeded=True,
            started=finished - seconds,
            ended=finished,
            params={axis: str(label) for axis, label in coords.items()},
            metrics={"seconds": seconds},
            tags={
                KIND: "step",
                ID: f"step:{address.key}",
                GROUP: group,
                "sweep.stage": address.stage,
                "sweep.entry": entry,
                f"sweep.key.{entry}": address.key,
            },
            curve=tuple((row["metric"], row["step"], row["value"]) for row in rows),
        )

    @cached_property
    def owners(self) -> Numbers:
        """For each step the cell whose own it is; -1 where several share it."""
        found: Numbers = np.full(len(self.plan), -1, np.int32)
        for name in self.plan.entries:
            firsts = self.plan.groups(name)
            own = np.flatnonzero((firsts >= 0) & (self.plan.users[firsts] == 1))
            found[firsts[own]] = own
        of_steps: Numbers = found[np.arange(len(self.plan)) - self.plan.shard]
        return of_steps

    # --- groups

    @cached_property
    def group_axes(self) -> tuple[str, ...] | None:
        """As few leading axes as leave at most CHILDREN_PER_PARENT cells to each of their values.

        None where that makes too many groups; the cells are then simply counted off.
        """
        axes = tuple(self.spec.axes)
        points = self.plan.points
        grid = self.plan.grid
        for count in range(1, len(axes)):
            sizes = np.unique(grid.project(grid.all, grid.all[:count])[points], return_counts=True)[1]
            if len(sizes) and sizes.max() <= CHILDREN_PER_PARENT:
                return axes[:count] if len(sizes) <= CHILDREN_PER_PARENT else None
        return () if len(points) <= CHILDREN_PER_PARENT else None

    @property
    def _shown_axes(self) -> tuple[str, ...]:
        """The axes that a cell's name tells, beside its group's."""
        return tuple(self.spec.axes)[len(self.group_axes or ()) :]

    def _group(self, index: int, row: Mapping[str, Scalar]) -> tuple[str, ...]:
        axes = self.group_axes
        if axes is not None:
            return (_short({axis: row[axis] for axis in axes}),) if axes else ()
        levels: list[str] = []
        size, count = CHILDREN_PER_PARENT, len(self.plan.points)
        while not levels or math.ceil(count / (size // CHILDREN_PER_PARENT)) > CHILDREN_PER_PARENT:
            start = index // size * size
            levels.append(f"cells {start + 1}–{min(start + size, count)}")
            size *= CHILDREN_PER_PARENT
        return tuple(reversed(levels))

    @cached_property
    def _single_steps(self) -> dict[str, Numbers]:
        """Entry -> for each cell its step, -1 where there is none or it is cut into shards."""
        found = {}
        for name in self.plan.entries:
            firsts = self.plan.groups(name)
            single = np.where((firsts >= 0) & (self.plan.size[firsts] == 1), firsts, -1)
            if (single >= 0).any():
                found[name] = single
        return found


def parent_run(group: tuple[str, ...], sweep: str, started: float) -> Run:
    """The run of a group; that of the whole sweep for ()."""
    now = time.time()
    id_ = parent_id(group)
    tags = {KIND: "group", ID: id_, GROUP: "/".join(group)} if group else {KIND: "sweep", ID: id_}
    return Run(id_, group[-1] if group else sweep, group[:-1], True, started, now, tags=tags)


def parent_id(group: tuple[str, ...]) -> str:
    """The id of the run of a group."""
    return f"group:{'/'.join(group)}"


def aggregates(
    groups: Mapping[tuple[str, ...], Iterable[Run]], axes: Sequence[str] | None, unaveraged: Sequence[str] = ()
) -> dict[tuple[str, ...], dict[str, float]]:
    """What MLflow shows of the cells below each parent: how many, and of each metric mean and standard deviation.

    Groups are compared with each other, so their means are over complete blocks (`orchestrator.results.blocks`), and
    `<metric>_cells` says over how many cells. Groups that merely count cells off have no means. What belongs to the
    sweep as a whole is over all cells that succeeded. Sums are exact: the order of the runs does not show.

    Args:
        groups: parent -> all runs below it; () for the sweep as a whole.
        axes: those that name the groups; None where cells are counted off.
        unaveraged: metrics of which no mean is taken.
    """
    cells = {group: [run for run in runs if run.tags[KIND] == "cell"] for group, runs in groups.items()}
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for group, each in cells.items():
        good = sum(run.succeeded for run in each)
        counts = {"cells": float(len(each)), "cells_succeeded": float(good), "cells_failed": float(len(each) - good)}
        found[group] = counts if each else {}
    whole = [(group, run) for group, each in cells.items() if not group for run in each]
    named = [(group, run) for group, each in cells.items() if group for run in each]
    for members in (whole, named if axes is not None else []):
        group_of, block_of = _codes(group for group, _ in members), _codes(_block(run, axes) for _, run in members)
        names = dict.fromkeys(name for _, run in members if run.succeeded for name in run.metrics)
        for name in names:
            if name == "attempts" or name in unaveraged:
                continue
            there = np.array([run.succeeded and name in run.metrics for _, run in members], np.bool_)
            values: dict[tuple[str, ...], list[float]] = {}
            kept = there if members is whole else complete_blocks(there, group_of, block_of).kept
            for place in np.flatnonzero(kept).tolist():
                group, run = members[place]
                values.setdefault(group, []).append(run.metrics[name])
            for group in dict.fromkeys(group for group, _ in members):
                # MLflow forgets no number: a mean that is no longer taken is at least said to be of no cell.
                found[group][f"{name}_cells"] = float(len(values.get(group, ())))
            for group, some in values.items():
                mean = math.fsum(some) / len(some)
                found[group][f"{name}_mean"] = mean
                if len(some) > 1:
                    squares = math.fsum((value - mean) ** 2 for value in some)
                    found[group][f"{name}_sd"] = math.sqrt(squares / (len(some) - 1))
    return found


def _block(run: Run, axes: Sequence[str] | None) -> tuple[tuple[str, str], ...]:
    """The coordinates of a cell along all axes but those that name its group."""
    return tuple((axis, label) for axis, label in run.params.items() if axis not in (axes or ()))


def _codes(things: Iterable[Hashable]) -> Codes:
    """The same number for what is the same."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(each, len(seen)) for each in things], np.int64)


def describe(projection: Projection, file: Path, table: str) -> str:
    """The page of the experiment, as Markdown.

    Args:
        projection: of the sweep.
        file: the sweep file.
        table: where its results table lies.
    """
    plan, spec = projection.plan, projection.spec
    labels = {axis: _spelled_labels(spec, axis) for axis in spec.axes}
    product = " × ".join(f"{len(each)} {axis}" for axis, each in labels.items())
    # What is excluded is no cell.
    product = f"of {product}" if math.prod(map(len, labels.values())) > len(plan.points) else product
    rows = "\n".join(f"| {axis} | {_cell(', '.join(_few(each)))} |" for axis, each in labels.items())
    metrics: dict[str, list[str]] = {}
    for name in spec.results or plan.targets:
        variants = [variant for variant in plan.by_entry[name].wired.variants if variant]
        metrics[name] = list(dict.fromkeys(each for variant in variants for each in variant.configs[0].declared()))
    told = "\n".join(f"| {name} | {', '.join(each)} |" for name, each in metrics.items() if each)
    axes = projection.group_axes
    groups = f"by {', '.join(axes)}" if axes else "of consecutive cells" if axes is None else ""
    means = (
        "Groups only count their cells."
        if axes is None
        else "Groups carry means and standard deviations over blocks that all groups have, so that they can be "
        "compared: cells that agree in everything but the group. `<metric>_cells` says over how many cells."
    )
    varied = [axis for axis, each in labels.items() if len(each) > 1][-2:] or list(labels)[:1]
    example = " and ".join(f'params.{axis} = "{labels[axis][-1]}"' for axis in varied)
    return f"""\
**{spec.question}**

{len(plan.points):,} cells ({product}), one run each{f", in groups {groups}," if groups else ""} below the run of the
whole sweep, which has the summary, the table and the data. {means}

| axis | values |
|---|---|
{rows}

| metrics of | |
|---|---|
{told}

Stages: {" → ".join(plan.entries)}.

Show some: `{example}` · only cells: `tags.`{KIND}` = "cell"` · what failed: `tags.`sweep.status` = "failed"` ·
whatever used a step: `tags.`sweep.key.{plan.targets[0]}` = "KEY"` · why a cell is as it is: `sweep why {file} CELL`

This page mirrors `{table}`. To go on: `sweep run {file}`; to bring MLflow up to date: `sweep sync {file}`.
"""


def datasets(spec: SweepSpec) -> tuple[dict[str, str], ...]:
    """The files and published data sets that a sweep names, each once, as MLflow describes data."""
    found: dict[tuple[str, str], dict[str, str]] = {}

    def visit(value: Any, where: str) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("path"), str) and "sha256" in value:
                source = {"source_type": "local", "source": json.dumps({"uri": value["path"]})}
                note(Path(value["path"]).name, value["sha256"][:32], source, where)
            elif isinstance(value.get("hub"), str):
                parts = [str(value[each]) for each in ("subset", "split", "revision") if value.get(each)]
                name = f"{value['hub']} ({', '.join(parts)})" if parts else value["hub"]
                # MLflow's name for a subset is config_name.
                told = {"path": "hub", "config_name": "subset", "split": "split", "revision": "revision"}
                where_from = json.dumps({theirs: value.get(ours) for theirs, ours in told.items()})
                note(name, digest(value), {"source_type": "hugging_face", "source": where_from}, where)
            for name, item in value.items():
                visit(item, f"{where}.{name}")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                visit(item, f"{where}.{index}")

    def note(name: str, content: str, source: dict[str, str], where: str) -> None:
        found.setdefault((name, content), {"name": name, "digest": content, **source, "context": where[:500]})

    for part in ("data", "axes", "stages"):
        visit(spec.document.value.get(part), part)
    return tuple(found.values())


def markdown(summary: pa.Table, left_out: Sequence[str] = ()) -> str:
    """Write a summary (`orchestrator.results.summary.summarise`) as Markdown, below what is not in it."""
    notes = "".join(f"{_cell(note)}.\n\n" for note in left_out)
    return notes + export(for_people(summary), Format.MD).decode()


def _short(coords: Mapping[str, Scalar]) -> str:
    """{"policy": "tiny", "beta": 1.0} -> "tiny,beta=1.0"; MLflow's pages show two dozen characters of a name."""
    parts = [label if isinstance(label, str) else f"{axis}={label}" for axis, label in coords.items()]
    return ",".join(parts)[: _NAME_LIMIT // 2]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _few(labels: Sequence[str]) -> list[str]:
    return [*labels[:12], f"… ({len(labels)} in all)"] if len(labels) > 13 else list(labels)


def _spelled_labels(spec: SweepSpec, axis: str) -> list[str]:
    """The values of an axis, as `params` has them."""
    return [str(each) for each in pa.array(spec.labels(axis), column_type(spec, axis)).to_pylist()]

"""One run per cell, below groups, below the sweep's own run: what MLflow shows. Pure; no mlflow here.

The groups of a search are its studies, and in each its trials.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import textwrap
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.plan.columns import Plan, cell_id
from orchestrator.plan.grid import Numbers
from orchestrator.results.metrics import reported_metrics
from orchestrator.search.studies import OpenStudy, Studies
from orchestrator.sweep.search import TRIAL
from orchestrator.sweep.spec import SweepSpec
from orchestrator.types import Scalar

#: MLflow lists children slowly beyond a few hundred, so no run has more of them.
CHILDREN_PER_PARENT = 500
#: Tags by which runs are found again.
KIND, CELL, ID, CONTENT, GROUP = "sweep.kind", "sweep.cell_id", "sweep.id", "sweep.content", "sweep.group"
#: The tag with the key of a cell: what all of it is made from.
KEY = "sweep.key"
#: The tag with the keys of the steps that a run used; of very many, also `sweep.keys.2` and so on.
KEYS = "sweep.keys"
#: Tags of the cells of a search: their study, what became of their trial, and "true" if the best trial was measured
#: again there.
STUDY, TRIAL_STATE, FRESH = "sweep.study", "sweep.trial_state", "sweep.fresh"
#: The parents of runs that show the training of a long step begin with this.
TRAINING = "training"
_TEXT_LIMIT = 5000
#: MLflow's databases hold no longer names.
NAME_LIMIT = 250
#: Numbers, or a list of whatever.
_NUMBERS = re.compile(r"^[-+.\d]+(e[-+]?\d+)?$|,", re.IGNORECASE)
#: Of coordinates: their entry may stand before them.
_SHORT_NAME = 125


@dataclass(frozen=True)
class Run:
    """All that MLflow shows of a cell, of a long step with its training curve, or of their parent."""

    id: str
    """The cell's id, `step:<key>`, or `group:<name>` for a parent."""
    name: str
    group: tuple[str, ...]
    """The parents below the sweep's own run, outermost first."""
    succeeded: bool
    started: float
    """Seconds since the epoch."""
    ended: float
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    curve: tuple[tuple[str, int, float], ...] = ()
    """(metric, training step, value)."""

    @cached_property
    def json(self) -> str:
        """Everything but the times, as JSON."""
        return json.dumps({name: getattr(self, name) for name in _FACTS}, separators=(",", ":"))

    @cached_property
    def digest(self) -> str:
        """The identity of what MLflow shows: it changes with everything but the times."""
        return hashlib.sha256(self.json.encode()).hexdigest()[:32]


_FACTS = tuple(each.name for each in fields(Run) if each.name not in ("started", "ended"))


class Projection:
    """The cells and steps of a plan as runs of MLflow."""

    def __init__(self, plan: Plan, studies: Studies | None = None) -> None:
        """Remember the plan; nothing is computed yet.

        Args:
            plan: the cells and steps.
            studies: those of the plan, where they are known already.
        """
        self.plan = plan
        self.studies = studies or Studies(plan)
        self.spec: SweepSpec = plan.spec

    def runs(self, table: pa.Table, cells: Sequence[int]) -> Iterator[Run]:
        """Make the runs of finished, failed and blocked cells.

        Args:
            table: rows of the results table, one per cell (`orchestrator.results.table.Results.rows`).
            cells: the place of each row's cell in the plan.
        """
        fields = tuple(self.spec.searched.fields) if self.spec.searched else ()
        axes, metrics = tuple(self.spec.axes), (*reported_metrics(table), "seconds", "attempts")
        keys = {name: of_cells.tolist() for name, of_cells in self._single_steps(cells)}
        now = time.time()
        for position, row in enumerate(table.to_pylist()):
            if row["status"] not in ("succeeded", "failed", "blocked"):
                continue
            index = cells[position]
            group = self._group(index, row)
            values = {name: row[name] for name in fields if row[name] is not None}
            # A page shows them in this order, and before the parameters: what can be read, then what is a hash.
            tags = {KIND: "cell", "sweep.status": row["status"], GROUP: "/".join(group)}
            if self.spec.searched:
                tags |= {STUDY: row["study"], TRIAL_STATE: row["trial_state"]}
                if self._is_fresh(index):
                    tags[FRESH] = "true"
            for column in ("error_class", "error", "undefined", "log", "code_commit"):
                if row[column]:
                    tags[f"sweep.{column}"] = str(row[column]).replace("\0", "")[:_TEXT_LIMIT]
            if row["code_commit"]:
                # The column "Version" of MLflow's pages.
                tags["mlflow.source.git.commit"] = row["code_commit"]
            tags |= {CELL: row["cell_id"], KEY: row["key"]}
            tags |= _key_tags(
                {name: self.plan.keys[each[position]] for name, each in keys.items() if each[position] >= 0}
            )
            yield Run(
                id=row["cell_id"],
                name=self._name({axis: row[axis] for axis in axes}) or row["cell_id"],
                group=group,
                succeeded=row["status"] == "succeeded",
                started=now - (row["seconds"] or 0),
                ended=now,
                params={name: str(value) for name, value in ({axis: row[axis] for axis in axes} | values).items()},
                metrics={name: row[name] for name in metrics if row[name] is not None},
                tags=tags,
            )

    def curve(self, number: int, rows: Iterable[Mapping[str, Any]], seconds: float, finished: float) -> Run:
        """Make the run of a step that wrote its training curve.

        Args:
            number: the step.
            rows: rows of `workers.tables.HISTORY`.
            seconds: how long the step took.
            finished: when it ended, in seconds since the epoch.
        """
        address, entry, coords = self.plan.address(number), self.plan.entry_of(number), self.plan.coords(number)
        part = (number - self.plan.by_entry[entry].first) // CHILDREN_PER_PARENT
        group = f"{TRAINING} {entry}" + (f" ({part + 1})" if part else "")
        return Run(
            id=f"step:{address.key}",
            name=f"{entry} {self._name(coords)}".strip(),
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
            }
            | _key_tags({entry: address.key}),
            curve=tuple((row["metric"], row["step"], row["value"]) for row in rows),
        )

    @cached_property
    def owners(self) -> Numbers:
        """The only cell that uses a step, for each step (steps,); -1 where several share it."""
        found: Numbers = np.full(len(self.plan), -1, np.int32)
        for name in self.plan.entries:
            firsts = self.plan.groups(name)
            own = np.flatnonzero((firsts >= 0) & (self.plan.users[firsts] == 1))
            found[firsts[own]] = own
        of_steps: Numbers = found[np.arange(len(self.plan)) - self.plan.shard]
        return of_steps

    def cells_of(self, number: int) -> Collection[int]:
        """Return the cells whose runs change when a step ends, but for steps that cells share.

        Of a search these are all cells of its trials that are decided: what becomes of one may end the trial.
        """
        if self.spec.searched is None:
            owner = int(self.owners[number])
            return () if owner < 0 else (owner,)
        first = number - int(self.plan.shard[number])
        users = (np.flatnonzero(self.plan.groups(name) == first).tolist() for name in self.plan.open_entries)
        trials = {self.studies.of_cell[cell] for each in users for cell in each}
        parts = (part[trial] for study, trial in trials for part in (self._study(study).over, self._study(study).fresh))
        return {cell for part in parts for cell in part if self.plan.decided[cell]}

    def _name(self, coords: Mapping[str, Scalar]) -> str:
        """Name coordinates, others by another name: {"policy": "tiny", "beta": 1.0} -> "tiny,beta=1.0".

        A name has all of them, also in a group: lists and charts show runs without what is above them. They show two
        dozen characters unless they are widened, so texts go without their axis where they say enough alone.
        """
        name = ",".join(
            label if isinstance(label, str) and label not in self._unclear else f"{axis}={label}"
            for axis, label in coords.items()
        )
        return name if len(name) <= _SHORT_NAME else f"{name[: _SHORT_NAME - 13]} {cell_id(coords)}"

    @cached_property
    def _unclear(self) -> Collection[str]:
        """The labels that say too little without their axis: of two axes, numbers as texts, lists, and blank ones."""
        labels = [label for axis in self.spec.axes for label in self.spec.labels(axis)]
        texts = Counter(map(str, labels))
        clear = {
            each for each in labels if isinstance(each, str) and re.search(r"\w", each) and not _NUMBERS.search(each)
        }
        return {str(each) for each in labels if each not in clear or texts[str(each)] > 1}

    # --- groups

    @cached_property
    def group_axes(self) -> tuple[str, ...] | None:
        """The axes that group the cells: as few leading ones as leave at most CHILDREN_PER_PARENT cells to a group.

        None where that makes too many groups; the cells are then counted off. A search has none: see `study_group`.
        """
        if self.spec.searched:
            return ()
        axes = tuple(self.spec.axes)
        points = self.plan.points
        grid = self.plan.grid
        for count in range(1, len(axes)):
            sizes = np.unique(grid.project(grid.all, grid.all[:count])[points], return_counts=True)[1]
            if len(sizes) and sizes.max() <= CHILDREN_PER_PARENT:
                return axes[:count] if len(sizes) <= CHILDREN_PER_PARENT else None
        return () if len(points) <= CHILDREN_PER_PARENT else None

    def study_group(self, position: int) -> tuple[str, ...]:
        """Return the group of a study, given its place among those of the plan."""
        study = self._study(position)
        name = study.name if len(study.name) <= NAME_LIMIT else f"{study.name[: NAME_LIMIT - 9]} {study.id[:8]}"
        return (*_counted("studies", position, len(self.studies.all)), name)

    def _group(self, index: int, row: Mapping[str, Scalar]) -> tuple[str, ...]:
        if self.spec.searched:
            position, trial = self.studies.of_cell[index]
            study = self._study(position)
            # A name says the number of a trial, which counts from 0.
            levels = _counted("trials", trial, study.budget, first=0)
            cells = [*study.over[trial], *study.fresh[trial]]
            return (
                *self.study_group(position),
                *levels,
                trial_group(trial),
                *_counted("cells", cells.index(index), len(cells)),
            )
        axes = self.group_axes
        if axes is not None:
            return (self._name({axis: row[axis] for axis in axes}),) if axes else ()
        return _counted("cells", index, len(self.plan.points))

    def _study(self, position: int) -> OpenStudy:
        return self.studies.all[position]

    def _is_fresh(self, index: int) -> bool:
        position, trial = self.studies.of_cell[index]
        return index not in self._study(position).over[trial]

    def _single_steps(self, cells: Sequence[int]) -> Iterator[tuple[str, Numbers]]:
        """Yield for each entry the steps of some cells (cells,); -1 where there is none or it is cut into shards."""
        chosen = np.asarray(cells, np.int64)
        for name in self.plan.entries:
            firsts = self.plan.groups(name)[chosen]
            single: Numbers = np.where((firsts >= 0) & (self.plan.size[firsts] == 1), firsts, -1)
            if (single >= 0).any():
                yield name, single


def trial_group(number: int | str) -> str:
    """Name the group of a trial within its study."""
    return f"{TRIAL} {number}"


def _key_tags(keys: Mapping[str, str]) -> dict[str, str]:
    """Say which steps a run used, entry -> key, in as few tags as hold them: one each would hide all else."""
    texts = textwrap.wrap(
        " ".join(f"{entry}={key}" for entry, key in keys.items()),
        _TEXT_LIMIT,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return {KEYS + (f".{number}" if number > 1 else ""): text for number, text in enumerate(texts, 1)}


def _counted(what: str, index: int, count: int, first: int = 1) -> tuple[str, ...]:
    """Name the levels of groups that leave at most CHILDREN_PER_PARENT of some things below each, outermost first."""
    levels: list[str] = []
    size = CHILDREN_PER_PARENT
    while math.ceil(count / (size // CHILDREN_PER_PARENT)) > CHILDREN_PER_PARENT:
        start = index // size * size
        levels.append(f"{what} {start + first}–{min(start + size, count) + first - 1}")
        size *= CHILDREN_PER_PARENT
    return tuple(reversed(levels))

"""The plan: all cells and steps of a sweep, in columns. Pure: no disk, no cluster, no heavy import.

A million cells need two million steps, so neither is an object here: a step is a number, and its attributes lie in
columns. `Plan.step` and `Plan.cell` make the objects that other modules use, one at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, overload

import numpy as np

from orchestrator.keys import canonical_json, digest, digest_of
from orchestrator.plan.entries import Columns, EntryPlan, identity_of
from orchestrator.plan.grid import Grid, Mask, Numbers
from orchestrator.plan.wiring import ResolvedEntry
from orchestrator.sweep.spec import SweepSpec
from orchestrator.types import Artifact, Cell, Scalar, Step
from workers.stage import Stage


@dataclass(frozen=True, slots=True)
class Feed:
    """The steps that feed one input of a step: `first` … `first + size - 1`."""

    input: str
    first: int
    size: int


class Plan:
    """The cells of a sweep and the steps that they share, every key included.

    Steps and cells are numbers, in order of the plan: every step comes after those it reads.

    The plan of a search has a number for every cell and step that may come, but only those of suggested trials are
    `decided`. It only ever gains by that (`orchestrator.plan.join`): what was decided never changes.
    """

    def __init__(
        self, spec: SweepSpec, grid: Grid, points: Numbers, columns: Columns, targets: tuple[str, ...]
    ) -> None:
        """Take over what `build_plan` made; the arguments are the attributes of these names."""
        self.spec = spec
        self.grid = grid
        self.points = points
        """Point of the grid for each cell."""
        self.by_entry: Mapping[str, EntryPlan] = columns.entries
        self.entries = tuple(columns.entries)
        """Entry names, in dependency order."""
        self.targets = targets
        """Entries that feed no other."""
        self.wanted = tuple(name for name in self.entries if name in {*targets, *spec.results})
        """Targets and entries whose metrics are reported: a cell is finished when these are committed."""
        self.keys: Sequence[str] = columns.keys
        self.decided: Mask = np.full(len(points), spec.searched is None)
        """Which of the cells there are; the others may come."""
        self.home: Numbers = np.array(columns.home, np.int32)
        self.at: Numbers = np.array(columns.at, np.int32)
        self.shard: Numbers = np.array(columns.shard, np.int32)
        self.size: Numbers = np.array(columns.size, np.int32)
        self.columns = columns
        self._index = columns.index
        self._group_keys = columns.group_keys
        self._of_cells: dict[str, Numbers] = {}
        self._points_of: dict[str, Numbers] = {}
        self._dumped: dict[int, dict[str, Any]] = {}
        self._gathered: dict[tuple[int, int], tuple[Artifact, ...]] = {}

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.keys)

    @property
    def cells(self) -> Sequence[Cell]:
        """All cells, each made when it is accessed."""
        return _Cells(self)

    @cached_property
    def digest(self) -> str:
        """Digest that identifies the plan: of its axes, the points of its cells and the keys of its steps, in order.

        Of a search it has the grammar in the place of what is not decided at first.
        """
        axes = canonical_json(
            [[name, list(labels)] for name, labels in zip(self.grid.names, self.grid.labels, strict=True)]
        )
        points = hashlib.sha256(self.points.tobytes()).hexdigest()
        if self.spec.searched is None:
            return digest_of("\n".join([axes, points, *self.keys]))
        closed = [self.keys[number] for each in self.by_entry.values() if not each.open for number in each.steps]
        search = canonical_json(self.spec.searched.model_dump(mode="json", by_alias=True))
        return digest_of("\n".join([axes, points, search, *closed]))

    # --- steps

    def entry_of(self, number: int) -> str:
        """Return the name of the entry of a step."""
        return self.entries[int(self.home[number])]

    def address(self, number: int) -> Artifact:
        """Return the stage name and the key of a step."""
        return Artifact(self._resolved(number).stage_name, self.keys[number])

    def stage(self, number: int) -> Stage:
        """Return the stage of a step."""
        return self._resolved(number).stage

    def number(self, address: Artifact) -> int | None:
        """Return the step at an address; None if the sweep has no such step."""
        return self._index.get(address.key)

    @property
    def known(self) -> list[int]:
        """The steps that have a key."""
        return [number for number, key in enumerate(self.keys) if key]

    def gathered(self, key: str) -> int | None:
        """Return the first step of a group that an input reads whole, given the group's digest; None if unknown."""
        return self._groups.get(key)

    def coords(self, number: int) -> dict[str, Scalar]:
        """Return the coordinates that a step depends on."""
        return self.grid.coords(self._entry(number).wired.axes, int(self.at[number]))

    def feeds(self, number: int) -> list[Feed]:
        """Return the steps that feed each input of a step; inputs without any are left out."""
        entry, point = self._entry(number), int(self.at[number])
        declared = entry.resolved_at(point).stage.inputs
        found = []
        for source in entry.sources:
            first = int(self.by_entry[source.entry].groups[source.at[point]])
            if first >= 0:
                size = int(self.size[first])
                if size > 1 and not declared[source.input].many:
                    first, size = first + int(self.shard[number]), 1
                found.append(Feed(source.input, first, size))
        return found

    def parents(self, number: int) -> Iterator[int]:
        """Yield all steps that a step reads."""
        for feed in self.feeds(number):
            yield from range(feed.first, feed.first + feed.size)

    def step(self, number: int) -> Step:
        """Make the `Step` of a number: everything that a worker must know."""
        resolved = self._resolved(number)
        config, config_identity = resolved.of_shard(self.shard[number])
        dumped = self._dumped.get(id(config))
        if dumped is None:
            dumped = config.model_dump(mode="json")
            if not self._entry(number).chosen:
                # Many steps have one config, but few that of a trial.
                self._dumped[id(config)] = dumped
        feeds = self.feeds(number)
        inputs = {feed.input: self._addresses(feed.first, feed.size) for feed in feeds}
        keys = [(feed.input, self._group_keys.get(feed.first) if feed.size > 1 else None) for feed in feeds]
        input_keys = {name: key or inputs[name][0].key for name, key in keys}
        identity = identity_of(config_identity, input_keys, resolved)
        address, entry = self.address(number), self.entry_of(number)
        return Step(address, entry, resolved.stage, dumped, identity, inputs, self.coords(number))

    def model(self, number: int) -> str | None:
        """Return a name for the model that a step loads; None if its stage loads none."""
        resolved = self._resolved(number)
        if not resolved.stage.loads:
            return None
        config, _ = resolved.of_shard(self.shard[number])
        named = {feed.input: self.keys[feed.first] for feed in self.feeds(number)}
        what = [named.get(name, getattr(config, name, None)) for name in resolved.stage.loads]
        return f"{resolved.stage_name} {what}"

    def steps_of(self, cells: Mask | None = None, entries: Iterable[str] | None = None) -> Mask:
        """Return the mask of the steps that cells consist of; of a search, those cells that are decided.

        Args:
            cells: mask over the cells; None for all.
            entries: names of the entries to look at; None for all.
        """
        if self.spec.searched:
            cells = self.decided if cells is None else cells & self.decided
        marked = np.zeros(len(self), np.bool_)
        for name in self.entries if entries is None else entries:
            groups = self.groups(name)
            self.mark(marked, groups if cells is None else groups[cells])
        return marked

    def committed(self, artifacts: Iterable[Artifact]) -> Mask:
        """Return the mask of the steps whose artifacts are given."""
        keys = {artifact.key for artifact in artifacts}
        return np.fromiter((key in keys for key in self.keys), np.bool_, len(self.keys))

    @cached_property
    def stages(self) -> frozenset[str]:
        """Names of all stages in the plan."""
        return frozenset(
            resolved.stage_name for entry in self.by_entry.values() for resolved in entry.wired.resolved if resolved
        )

    @cached_property
    def users(self) -> Numbers:
        """Number of cells that use each step; of a search also those that may come, but for the steps of trials."""
        rows = np.sort(np.stack([self.groups(name) for name in self.entries]), axis=0)
        # An entry that stands in for another names the same group; the cell still uses it once.
        once = np.ones(rows.shape, np.bool_)
        once[1:] = rows[1:] != rows[:-1]
        counts = np.bincount(rows[once & (rows >= 0)], minlength=len(self)).astype(np.int32)
        of_steps: Numbers = counts[np.arange(len(self), dtype=np.int32) - self.shard]
        return of_steps

    # --- cells

    def groups(self, name: str) -> Numbers:
        """Return, for each cell, the first step of its group in an entry, or -1."""
        found = self._of_cells.get(name)
        if found is None:
            found = self._of_cells[name] = self.by_entry[name].groups[self.points_of(name)]
        return found

    def points_of(self, name: str) -> Numbers:
        """Return, for each cell, the point of the axes of an entry."""
        found = self._points_of.get(name)
        if found is None:
            of_points = self.grid.project(self.grid.all, self.by_entry[name].wired.axes)
            found = of_points[self.points]
            if self.by_entry[name].open:
                # Asked for again and again; the others once, and a plan may have millions of cells.
                self._points_of[name] = found
        return found

    @property
    def open_entries(self) -> list[str]:
        """The entries whose steps belong to trials, in dependency order."""
        return [name for name, entry in self.by_entry.items() if entry.open]

    def cell_coords(self, index: int) -> dict[str, Scalar]:
        """Return the coordinates of a cell."""
        return self.grid.coords(self.grid.all, int(self.points[index]))

    def cell_key(self, index: int) -> str:
        """Return the content address of a cell: the key of its target, or a digest of several."""
        keys: list[str] = []
        for name in self.targets:
            first = int(self.groups(name)[index])
            if first >= 0:
                keys += self.keys[first : first + int(self.size[first])]
        return keys[0] if len(keys) == 1 else digest(keys)

    def positions(self, ids: Sequence[str]) -> Sequence[int]:
        """Return the cells with some ids, of rows of the results table."""
        if len(ids) == len(self.points):
            return range(len(ids))
        numbers = {cell_id(self.cell_coords(index)): index for index in np.flatnonzero(self.decided).tolist()}
        return [numbers[each] for each in ids]

    def cell(self, index: int) -> Cell:
        """Make the `Cell` of a number, with the addresses of its steps."""
        coords = self.cell_coords(index)
        steps = {}
        for name in self.entries:
            first = int(self.groups(name)[index])
            if first >= 0:
                steps[name] = self._addresses(first, int(self.size[first]))
        return Cell(cell_id(coords), coords, steps)

    # --- bookkeeping

    @cached_property
    def _groups(self) -> Mapping[str, int]:
        return {key: first for first, key in self._group_keys.items()}

    def _entry(self, number: int) -> EntryPlan:
        return self.by_entry[self.entries[self.home[number]]]

    def _resolved(self, number: int) -> ResolvedEntry:
        return self._entry(number).resolved_at(int(self.at[number]))

    def _addresses(self, first: int, size: int) -> tuple[Artifact, ...]:
        if size == 1:
            return (self.address(first),)
        # Thousands of steps read the same shards; one tuple serves them all, also when they are pickled together.
        found = self._gathered.get((first, size))
        if found is None:
            found = tuple(self.address(each) for each in range(first, first + size))
            self._gathered[first, size] = found
        return found

    def mark(self, marked: Mask, firsts: Numbers) -> None:
        """Set the mask for all steps of the groups that begin with `firsts`; -1 is skipped."""
        firsts = firsts[firsts >= 0]
        marked[firsts] = True
        gathered = np.zeros(len(self), np.bool_)
        gathered[firsts[self.size[firsts] > 1]] = True
        for first in np.flatnonzero(gathered):
            marked[first : first + self.size[first]] = True


class _Cells(Sequence[Cell]):
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def __len__(self) -> int:
        return len(self._plan.points)

    @overload
    def __getitem__(self, index: int) -> Cell: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Cell]: ...
    def __getitem__(self, index: int | slice) -> Cell | Sequence[Cell]:
        chosen = range(len(self))[index]
        if isinstance(chosen, int):
            return self._plan.cell(chosen)
        return [self._plan.cell(each) for each in chosen]


def cell_id(coords: Mapping[str, Scalar]) -> str:
    """Return the id of a cell: twelve hex digits that depend on its coordinates alone."""
    # Canonical JSON, joined from parts that thousands of cells share.
    return digest_of("{" + ",".join(_pair_json(axis, coords[axis]) for axis in sorted(coords)) + "}", 12)


# `typed`, because True and 1 are equal but have different JSON.
@lru_cache(maxsize=None, typed=True)
def _pair_json(axis: str, label: Scalar) -> str:
    return f"{canonical_json(axis)}:{canonical_json(label)}"

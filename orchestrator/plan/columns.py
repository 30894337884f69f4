"""The plan: all cells and steps of a sweep, in columns. Pure: no disk, no cluster, no heavy import.

A million cells need two million steps, so neither is an object here: a step is a number, and its attributes lie in
columns. `Plan.step` and `Plan.cell` make the objects that other modules use, one at a time.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, overload

import numpy as np

from orchestrator.keys import canonical_json, digest, digest_of
from orchestrator.plan.grid import Grid, Mask, Numbers
from orchestrator.plan.wiring import ResolvedEntry, WiredEntry
from orchestrator.sweep.spec import SweepSpec
from orchestrator.types import Artifact, Cell, Scalar, Step
from workers.stage import Stage


@dataclass(frozen=True, slots=True)
class Source:
    """The entry that feeds an input of another entry."""

    input: str
    entry: str
    at: Numbers
    """Point of the source's axes for each point of the entry's axes."""


@dataclass(slots=True)
class EntryPlan:
    """An entry of the plan, with one column element per point of its axes."""

    wired: WiredEntry
    own: Numbers
    """Point of its own axes for each point of its axes."""
    sources: tuple[Source, ...]
    """Sorted by input."""
    groups: Numbers
    """First step of the group (the steps of all shards, in order) for each point of its axes; -1 if none."""
    first: int
    """Its steps are `first` … `last` - 1; a group lies in another entry if that has a step of the same identity."""
    last: int = 0

    def resolved_at(self, point: int) -> ResolvedEntry:
        """Return the resolved entry at a point of its axes where it exists."""
        found: ResolvedEntry | None = self.wired.resolved[self.own[point]]
        assert found is not None, "only existing steps are looked up"
        return found


@dataclass(frozen=True, slots=True)
class Feed:
    """The steps that feed one input of a step: `first` … `first + size - 1`."""

    input: str
    first: int
    size: int


@dataclass(slots=True)
class Columns:
    """The columns of a plan under construction; one element per step, unless noted otherwise."""

    entries: dict[str, EntryPlan] = field(default_factory=dict)
    """Entries by name, in dependency order."""
    keys: list[str] = field(default_factory=list)
    index: dict[str, int] = field(default_factory=dict)
    """Key -> step."""
    home: array[int] = field(default_factory=lambda: array("i"))
    """Position of its entry."""
    at: array[int] = field(default_factory=lambda: array("i"))
    """Point of the entry's axes."""
    shard: array[int] = field(default_factory=lambda: array("i"))
    size: array[int] = field(default_factory=lambda: array("i"))
    """Number of steps in its group."""
    group_keys: dict[int, str] = field(default_factory=dict)
    """First step of a group that an input reads whole -> digest of the keys of the group."""


class Plan:
    """The cells of a sweep and the steps that they share, every key included.

    Steps and cells are numbers, in order of the plan: every step comes after those it reads.
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
        self.home: Numbers = np.array(columns.home, np.int32)
        self.at: Numbers = np.array(columns.at, np.int32)
        self.shard: Numbers = np.array(columns.shard, np.int32)
        self.size: Numbers = np.array(columns.size, np.int32)
        self._index = columns.index
        self._group_keys = columns.group_keys
        self._of_cells: dict[str, Numbers] = {}
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
        """Digest that identifies the plan: of its axes, the points of its cells and the keys of its steps, in order."""
        axes = canonical_json(
            [[name, list(labels)] for name, labels in zip(self.grid.names, self.grid.labels, strict=True)]
        )
        points = hashlib.sha256(self.points.tobytes()).hexdigest()
        return digest_of("\n".join([axes, points, *self.keys]))

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
            dumped = self._dumped[id(config)] = config.model_dump(mode="json")
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
        """Return the mask of the steps that cells consist of.

        Args:
            cells: mask over the cells; None for all.
            entries: names of the entries to look at; None for all.
        """
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
        """Number of cells that use each step."""
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
            entry = self.by_entry[name]
            of_points = self.grid.project(self.grid.all, entry.wired.axes)
            found = self._of_cells[name] = entry.groups[of_points[self.points]]
        return found

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


def identity_of(config_identity: str, inputs: Mapping[str, str], resolved: ResolvedEntry) -> str:
    """Return the canonical JSON that is hashed into a key, joined from parts that many steps share.

    Args:
        config_identity: canonical JSON of the config's identity.
        inputs: input -> key, sorted by input.
        resolved: the entry that it belongs to.
    """
    keys = ",".join([f'"{name}":"{key}"' for name, key in inputs.items()])
    stage, origin = resolved.stage, resolved.stage.origin
    end = f'"stage":"{resolved.stage_name}"' + ("" if stage.version is None else f',"version":{stage.version}')
    if origin is None:
        return f'{{"config":{config_identity},"inputs":{{{keys}}},{end}}}'
    # Of a stage that is not this package's: where it comes from, and without a version its source.
    source = f'"source":"{origin.source}",' if stage.version is None else ""
    begin = f'{{"config":{config_identity},"function":"{stage.function}","inputs":{{{keys}}}'
    return f'{begin},"namespace":"{origin.namespace}",{source}{end}}}'


def cell_id(coords: Mapping[str, Scalar]) -> str:
    """Return the id of a cell: twelve hex digits that depend on its coordinates alone."""
    # Canonical JSON, joined from parts that thousands of cells share.
    return digest_of("{" + ",".join(_pair_json(axis, coords[axis]) for axis in sorted(coords)) + "}", 12)


# `typed`, because True and 1 are equal but have different JSON.
@lru_cache(maxsize=None, typed=True)
def _pair_json(axis: str, label: Scalar) -> str:
    return f"{canonical_json(axis)}:{canonical_json(label)}"

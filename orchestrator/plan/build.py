"""Builds the plan of a sweep: every step that the cells need is made once, entry by entry."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np

from orchestrator.keys import digest_of
from orchestrator.plan.columns import Plan
from orchestrator.plan.entries import Columns, EntryPlan, Feeds, Source, identity_of
from orchestrator.plan.grid import Grid, Mask, Numbers
from orchestrator.plan.wiring import ResolvedEntry, WiredEntry, resolve_entries
from orchestrator.sweep.problems import DocPath, Problem, SweepError
from orchestrator.sweep.search import TRIAL
from orchestrator.sweep.spec import SweepSpec


def build_plan(spec: SweepSpec) -> Plan:
    """Check a sweep and expand it into cells and shared steps.

    A step is built once for each combination of the axes that it depends on; steps of the same identity, in whatever
    entry or at whatever coordinates, have the same key and are one step.

    Raises:
        SweepError: the entries do not fit together, or every cell is excluded.
    """
    wiring = resolve_entries(spec)
    grid = wiring.grid
    kept = np.ones(grid.size(grid.all), np.bool_)
    for pattern in spec.exclude:
        kept &= ~grid.where(pattern)
    if spec.searched:
        kept &= possible(spec, grid)
    points: Numbers = np.flatnonzero(kept).astype(np.int32)
    if not len(points):
        raise SweepError([spec.problem(("exclude",), "every cell is excluded, nothing is left to run")])
    builder = _Builder(spec, grid, points, frozenset(spec.results or wiring.targets))
    for wired in wiring.entries.values():
        builder.add(wired)
    if builder.problems:
        raise SweepError(list(builder.problems.values()))
    return Plan(spec, grid, points, builder.columns, wiring.targets)


def possible(spec: SweepSpec, grid: Grid) -> Mask:
    """Return the mask of the points that a search can reach: of as many trials as each study may have."""
    search = spec.searched
    assert search is not None, "only searches have trials"
    reached: Mask = np.zeros(grid.size(grid.all), np.bool_)
    axes = grid.axes(frozenset(spec.study_axes))
    for point in range(grid.size(axes)):
        coords = grid.coords(axes, point)
        trials = list(range(search.budget(coords)))
        reached |= grid.where({**{axis: [label] for axis, label in coords.items()}, TRIAL: trials})
    over = search.objective.over
    return reached & (grid.where(over) | (grid.where(search.again) if search.fresh else False))


#: Placeholder for a key; no JSON holds a bare zero byte.
_BLANK = "\0"


class _Builder:
    """Makes each shared step once, entry by entry."""

    def __init__(self, spec: SweepSpec, grid: Grid, points: Numbers, reported: frozenset[str]) -> None:
        self.spec = spec
        self.reported = reported
        self.grid = grid
        self.points = points
        self.columns = Columns()
        #: By place, so that each is reported for the first of all points that have it.
        self.problems: dict[DocPath, Problem] = {}

    def add(self, wired: WiredEntry) -> None:
        """Make the steps of an entry; the entries that feed it were added before."""
        grid, written = self.grid, self.spec.stages[wired.name]
        sources = tuple(
            Source(name, source, grid.project(wired.axes, self.columns.entries[source].wired.axes))
            for name, source in sorted(written.inputs.items())
        )
        groups: Numbers = np.full(grid.size(wired.axes), -1, np.int32)
        is_open = TRIAL in (grid.names[axis] for axis in wired.axes) and self.spec.searched is not None
        entry = EntryPlan(wired, grid.project(wired.axes, wired.own), sources, groups, len(self.columns.keys))
        entry.open, entry.places = is_open, groups.copy() if is_open else groups
        # Points that only excluded cells would use are left out.
        reached = np.zeros(grid.size(wired.axes), np.bool_)
        reached[grid.project(grid.all, wired.axes)[self.points]] = True
        used: Numbers = np.flatnonzero(reached).astype(np.int32)
        firsts = [self.columns.entries[source.entry].places[source.at[used]] for source in sources]
        home = len(self.columns.entries)
        self.columns.entries[wired.name] = entry
        if entry.open or not self._add_all(home, entry, used, firsts):
            self._add_each(home, entry, used, [column.tolist() for column in firsts])
        entry.last = len(self.columns.keys)

    def _add_all(self, home: int, entry: EntryPlan, used: Numbers, firsts: list[Numbers]) -> bool:
        """Make the steps of an entry without shards at once; return False where each point needs a look.

        A million keys take a third of the time that `_add_each` would need.
        """
        own = entry.own[used].tolist()
        resolved = {each: entry.wired.resolved[each] for each in set(own)}
        distinct = {each: found for each, found in resolved.items() if found and found.shards is None}
        if len(distinct) < len(resolved):
            return False
        of_inputs = []
        for source, column in zip(entry.sources, firsts, strict=True):
            groups = set(column.tolist())
            gathers = all(found.stage.inputs[source.input].many for found in distinct.values())
            if -1 in groups or not (gathers or all(self.columns.size[first] == 1 for first in groups)):
                return False
            keys = {
                first: self.columns.keys[first] if self.columns.size[first] == 1 else self.columns.group_key(first)
                for first in groups
            }
            of_inputs.append([keys[first] for first in column.tolist()])
        blank = {source.input: _BLANK for source in entry.sources}
        # Identities differ only in their keys: "head" key "seam" key "tail".
        parts = {each: identity_of(found.identities[0], blank, found).split(_BLANK) for each, found in distinct.items()}
        pieces = [parts[each] for each in own]
        columns: list[Iterable[str]] = [[piece[0] for piece in pieces]]
        for position, column_keys in enumerate(of_inputs, start=1):
            columns += [column_keys, [piece[position] for piece in pieces]]
        made = [digest_of("".join(row)) for row in zip(*columns, strict=True)]
        if len(set(made)) < len(made) or not self.columns.index.keys().isdisjoint(made):
            return False
        start = len(self.columns.keys)
        numbers = np.arange(start, start + len(made), dtype=np.int32)
        self.columns.keys += made
        self.columns.index.update(zip(made, numbers.tolist(), strict=True))
        self.columns.home.frombytes(np.full(len(made), home, np.int32).tobytes())
        self.columns.at.frombytes(used.astype(np.int32).tobytes())
        self.columns.shard.frombytes(bytes(4 * len(made)))
        self.columns.size.frombytes(np.ones(len(made), np.int32).tobytes())
        entry.groups[used] = numbers
        return True

    def _add_each(self, home: int, entry: EntryPlan, used: Numbers, columns: list[list[int]]) -> None:
        wired, written = entry.wired, self.spec.stages[entry.wired.name]
        stand_in: list[int] | None = None
        if written.otherwise:
            other = self.columns.entries[written.otherwise]
            stand_in = other.places[self.grid.project(wired.axes, other.wired.axes)[used]].tolist()
        found = array("i")
        for position, (point, own) in enumerate(zip(used.tolist(), entry.own[used].tolist(), strict=True)):
            resolved = wired.resolved[own]
            if resolved is None:
                found.append(stand_in[position] if stand_in else -1)
            else:
                firsts = [column[position] for column in columns]
                found.append(self._group(home, entry, point, resolved, firsts))
        entry.places[used] = np.frombuffer(found, np.int32)

    def _group(self, home: int, entry: EntryPlan, point: int, resolved: ResolvedEntry, firsts: list[int]) -> int:
        """Return the first step of the group at a point; make the group unless there is one of the same identity."""
        feeds = Feeds(self.columns, entry, resolved, firsts)
        for name in feeds.missing:
            self._note_missing(entry, point, name)
        if feeds.uneven:
            # The number of steps is unknown, so nothing that reads them can be checked.
            message = f"the inputs are cut into different numbers of shards: {feeds.uneven}"
            self._note(("stages", entry.wired.name), message)
            raise SweepError(list(self.problems.values()))
        if feeds.shards > 1 and entry.wired.name in self.reported:
            self._require_declared(entry, resolved, feeds.shards)
        made = len(self.columns.keys)
        keys = [""] * feeds.shards if entry.open else feeds.keys(resolved)
        known = made if entry.open else self.columns.index.get(keys[0], made)
        if known != made:
            # Then the whole group is known: the identities of its shards differ from the first in the same way.
            return known
        for shard, key in enumerate(keys):
            if key:
                self.columns.index[key] = made + shard
            self.columns.keys.append(key)
            self.columns.home.append(home)
            self.columns.at.append(point)
            self.columns.shard.append(shard)
            self.columns.size.append(feeds.shards)
        return made

    def _require_declared(self, entry: EntryPlan, resolved: ResolvedEntry, shards: int) -> None:
        """Note a mistake if the stage does not declare what a reported metric is over all shards."""
        declared = resolved.configs[0].declared()
        silent = [name for name, metric in (declared or {}).items() if metric.shards is None]
        if declared is None:
            self._note(("stages", entry.wired.name), f"is cut into {shards} shards, so it must declare its metrics")
        elif silent:
            message = (
                f"is cut into {shards} shards, but stage {resolved.stage_name!r} does not declare what its metrics"
                f" {', '.join(silent)} are over all of them: name entries without shards in `results`, or declare it in"
                " the stage's config (`Metric(…, shards=…)`)"
            )
            self._note(("stages", entry.wired.name), message)

    def _note(self, path: DocPath, message: str) -> None:
        if path not in self.problems:
            self.problems[path] = self.spec.problem(path, message)

    def _note_missing(self, entry: EntryPlan, point: int, name: str) -> None:
        path: DocPath = ("stages", entry.wired.name, "inputs", name)
        if path in self.problems:
            return
        written = self.spec.stages[entry.wired.name]
        coords = self.grid.coords(entry.wired.axes, point)
        message = f"the input is missing at {coords}: entry {written.inputs[name]!r} does not exist there"
        self._note(path, message)

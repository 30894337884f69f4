"""The columns that a plan is made of: entries with their points, and steps with their keys."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.keys import digest, digest_of
from orchestrator.plan.grid import Numbers
from orchestrator.plan.wiring import ResolvedEntry, WiredEntry


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
    open: bool = False
    """Whether its steps belong to trials, so that none has a key before its trial is suggested."""
    places: Numbers = field(default_factory=lambda: np.zeros(0, np.int32))
    """Where the steps of each point are, or will be: `groups`, as if every trial had been suggested."""
    chosen: dict[int, ResolvedEntry] = field(default_factory=dict)
    """Point of its own axes -> the entry there with the values that were suggested."""

    @property
    def steps(self) -> range:
        """The numbers of its steps."""
        return range(self.first, self.last)

    def resolved_at(self, point: int) -> ResolvedEntry:
        """Return the resolved entry at a point of its axes where it exists."""
        own = int(self.own[point])
        found: ResolvedEntry | None = self.chosen.get(own) or self.wired.resolved[own]
        assert found is not None, "only existing steps are looked up"
        return found


@dataclass(slots=True)
class Columns:
    """The columns of a plan under construction; one element per step, unless noted otherwise."""

    entries: dict[str, EntryPlan] = field(default_factory=dict)
    """Entries by name, in dependency order."""
    keys: list[str] = field(default_factory=list)
    """Empty where the step belongs to a trial that is not suggested yet."""
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

    def group_key(self, first: int) -> str:
        """Return the digest of the keys of a group, in order."""
        found = self.group_keys.get(first)
        if found is None:
            found = self.group_keys[first] = digest(self.keys[first : first + self.size[first]])
        return found


class Feeds:
    """What feeds the group of steps at a point of an entry, and how many steps that makes of it."""

    def __init__(self, columns: Columns, entry: EntryPlan, resolved: ResolvedEntry, firsts: Sequence[int]) -> None:
        """Look at the inputs.

        Args:
            columns: the steps so far.
            entry: the entry.
            resolved: the entry at the point.
            firsts: the first step of the group that feeds each of its sources; -1 where there is none.
        """
        self._columns = columns
        declared = resolved.stage.inputs
        self._whole: dict[str, int] = {}
        self._by_shard: dict[str, int] = {}
        self.missing: list[str] = []
        """Inputs that must be fed, and are not."""
        self.uneven: list[int] = []
        """Different numbers of shards that the inputs are cut into."""
        shards = resolved.shards
        for source, first in zip(entry.sources, firsts, strict=True):
            name = source.input
            if first < 0:
                if not declared[name].optional:
                    self.missing.append(name)
            elif columns.size[first] == 1 or declared[name].many:
                self._whole[name] = first
            else:
                size = columns.size[first]
                if shards is not None and shards != size:
                    self.uneven = sorted({shards, size})
                self._by_shard[name] = first
                shards = size
        self.shards = shards or 1

    def keys(self, resolved: ResolvedEntry, instead: Mapping[int, str] | None = None) -> list[str]:
        """Return the keys of the steps of all shards; those of all inputs are known.

        Args:
            resolved: the entry at the point.
            instead: step -> a key that it is taken to have; None where all have their own.
        """
        columns, size, taken = self._columns, self._columns.size, instead or {}

        def key(number: int) -> str:
            return taken.get(number) or columns.keys[number]

        whole = {}
        for name, first in self._whole.items():
            if size[first] == 1:
                whole[name] = key(first)
            elif first not in taken:
                whole[name] = columns.group_key(first)
            else:
                # Not remembered: it is not the key of this group.
                whole[name] = digest([key(number) for number in range(first, first + size[first])])
        made = []
        for shard in range(self.shards):
            inputs = whole
            if self._by_shard:
                own = {name: key(first + shard) for name, first in self._by_shard.items()}
                inputs = dict(sorted((whole | own).items()))
            made.append(digest_of(identity_of(resolved.of_shard(shard)[1], inputs, resolved)))
        return made


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

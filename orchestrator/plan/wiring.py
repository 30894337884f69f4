"""The entries of a sweep at their coordinates: every input connected, every config filled in and valid."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import ValidationError

from orchestrator.keys import UnhashableValueError, canonical_json
from orchestrator.plan.checks import entry_problems, is_shard_count, metric_problems
from orchestrator.plan.dependencies import order, own_axes, sources, targets
from orchestrator.plan.grid import Axes, Grid
from orchestrator.plan.references import (
    AbsentError,
    UnresolvedError,
    is_reference,
    is_searched,
    origin_of,
    references,
    resolve,
    substitute,
)
from orchestrator.study import StageError
from orchestrator.study.function_stage import FunctionConfig, stage_name
from orchestrator.sweep.problems import MISSING, UNKNOWN_FIELD, DocPath, Problem, SweepError, validation_messages
from orchestrator.sweep.search import TRIAL
from orchestrator.sweep.spec import RUNTIME_FIELDS, SweepSpec
from orchestrator.sweep.tuned import is_tuned
from orchestrator.types import Scalar
from workers.config import Config
from workers.metric import Metric
from workers.stage import Stage


@dataclass(frozen=True, slots=True)
class ResolvedEntry:
    """An entry at one point of its own axes: its stage, with a valid config."""

    stage_name: str
    stage: Stage
    shards: int | None
    """Number of shards that the entry itself asks for; None leaves that to its inputs."""
    configs: tuple[Config, ...]
    """One config per such shard, else one."""
    identities: tuple[str, ...]
    """Canonical JSON of the identity of each config."""

    def of_shard(self, shard: int) -> tuple[Config, str]:
        """Return the config of a shard, and the canonical JSON of its identity."""
        position = shard if len(self.configs) > 1 else 0
        return self.configs[position], self.identities[position]


@dataclass(frozen=True, slots=True)
class WiredEntry:
    """An entry at all points, with the axes that it depends on."""

    name: str
    own: Axes
    """Axes that the entry itself names."""
    axes: Axes
    """Own axes, and those of all entries that feed it."""
    resolved: tuple[ResolvedEntry | None, ...]
    """The entry at each point of its own axes; None where `when` is false. Where it reads what is searched for, a
    stand-in with the lowest or first values, the same for all trials."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """The checked entries of a sweep, in dependency order: each comes after those that feed it."""

    grid: Grid
    entries: Mapping[str, WiredEntry]
    targets: tuple[str, ...]
    """Entries that feed no other."""


def resolve_entries(spec: SweepSpec) -> Wiring:
    """Connect the entries of a sweep and fill in their configs.

    Raises:
        SweepError: the sweep has mistakes: one problem each, also those of its text (`draft_sweep`).
    """
    grid = Grid({axis: spec.labels(axis) for axis in spec.axes})
    misfits = entry_problems(spec)
    problems = [*spec.problems, *misfits]
    resolved: dict[str, tuple[ResolvedEntry | None, ...]] = {}
    for name in spec.stages:
        found, unfit = _resolve_points(spec, grid, name)
        problems += unfit
        if found is not None:
            resolved[name] = found
    # Where the entries do not fit together, nobody knows which of them feed no other.
    returned: dict[str, set[Metric] | None] = {}
    reported = spec.results or (targets(spec) if not misfits and spec.understood("stages") else ())
    if reported and spec.understood("results") and resolved.keys() >= set(reported):
        returned = {name: _metrics(resolved[name]) for name in reported}
        problems += metric_problems(spec, returned)
    if problems:
        raise SweepError(problems)
    entries: dict[str, WiredEntry] = {}
    for name in order(spec):
        own = grid.axes(own_axes(spec, name))
        axes = set(own).union(*(entries[source].axes for source in sources(spec.stages[name])))
        entries[name] = WiredEntry(name, own, tuple(sorted(axes)), resolved[name])
    for name, metrics in returned.items():
        # What it returns is compared with the axes that it depends on, when it runs.
        if metrics is None and len(entries[name].axes) < len(grid.all):
            message = "does not depend on every axis, so it must declare its metrics: metrics: [NAME, …]"
            raise SweepError([spec.problem(("stages", name), message)])
    return Wiring(grid, entries, targets(spec))


def _metrics(entries: Iterable[ResolvedEntry | None]) -> set[Metric] | None:
    """Return the metrics that an entry returns at any point; None if they are not declared."""
    found: set[Metric] = set()
    for entry in entries:
        if entry:
            declared = entry.configs[0].declared()
            if declared is None:
                return None
            found |= set(declared.values())
    return found


def _resolve_points(
    spec: SweepSpec, grid: Grid, name: str
) -> tuple[tuple[ResolvedEntry | None, ...] | None, list[Problem]]:
    """Resolve an entry at each point of its own axes; return None if one is not known, and the mistakes in configs."""
    if not all(spec.understood("stages", name, part) for part in ("when", "stage", "shards")):
        return None, []
    own = grid.axes(own_axes(spec, name))
    problems: dict[Problem, None] = {}
    resolved: list[ResolvedEntry | None] = []
    searched = is_searched(spec, spec.stages[name].config)
    stand_ins: dict[tuple[Scalar, ...], ResolvedEntry | None] = {}
    for point in range(grid.size(own)):
        coords = grid.coords(own, point)
        rest = tuple(label for axis, label in coords.items() if axis != TRIAL)
        try:
            if searched and rest in stand_ins:
                resolved.append(stand_ins[rest])
            elif searched:
                stand_ins[rest] = _stand_in(spec, name, coords)
                resolved.append(stand_ins[rest])
            else:
                resolved.append(resolve_at(spec, name, coords))
        except UnresolvedError:
            pass
        except SweepError as error:
            problems |= dict.fromkeys(error.problems)
    return tuple(resolved) if len(resolved) == grid.size(own) else None, list(problems)


def _stand_in(spec: SweepSpec, name: str, coords: Mapping[str, Scalar]) -> ResolvedEntry | None:
    """Resolve an entry with the lowest values of the search, and make sure that it can be with others.

    Raises:
        SweepError: its config is not valid with some of them.
        UnresolvedError: a mistake that is reported elsewhere hides what it is.
    """
    search, found = spec.searched, []
    assert search is not None, "the entry reads it"
    for values in search.samples({axis: coords[axis] for axis in spec.study_axes}):
        found.append(resolve_at(spec, name, {**coords, str(spec.search_name): search.meant(values)}))
    return found[0]


def resolve_at(spec: SweepSpec, name: str, coords: Mapping[str, Any]) -> ResolvedEntry | None:
    """Resolve an entry at its own coordinates (`substitute` explains them); return None if it does not exist there.

    Raises:
        SweepError: its config is not valid.
        UnresolvedError: a mistake that is reported elsewhere hides what it is.
    """
    entry = spec.stages[name]
    exists = substitute(spec, entry.when, coords)
    kind = str(substitute(spec, entry.stage, coords) or name)
    shards = substitute(spec, entry.shards, coords)
    if type(exists) is not bool or not is_shard_count(shards):
        raise UnresolvedError(name)
    try:
        stage = spec.stage(name, kind)
    except StageError:
        raise UnresolvedError(name) from None
    if not exists:
        return None
    config = _MergedConfig(spec, name, coords)
    cut = shards is not None and "shards" in stage.config.model_fields
    cuts = [{"shard": shard, "shards": shards} for shard in range(shards)] if cut else [{}]
    configs, identities = zip(*(config.fill_in(stage.config, each) for each in cuts), strict=True)
    return ResolvedEntry(stage_name(kind), stage, shards, configs, identities)


@cache
def _once(names: frozenset[str]) -> frozenset[str]:
    """Return the first set that is equal."""
    return names


class _MergedConfig:
    """The merged layers of an entry's config; every field remembers where it was written."""

    def __init__(self, spec: SweepSpec, name: str, coords: Mapping[str, Any]) -> None:
        self._spec = spec
        self._name = name
        self._coords = coords
        self._where: DocPath = ("stages", name, "config")
        self._value: dict[str, Any] = {}
        #: Field -> where it was written, and the text written there.
        self._written: dict[str, tuple[DocPath, Any]] = {}
        self._problems: list[Problem] = []
        #: Fields whose values other mistakes hide, and whether there may be any number of them.
        self._unknown: set[str] = set()
        self._open = not spec.understood("stages", name, "config")
        layers = spec.stages[name].config
        for index, layer in enumerate(layers if isinstance(layers, list) else [layers]):
            where = (*self._where, index) if isinstance(layers, list) else self._where
            try:
                self._merge(layer, where)
            except AbsentError:
                # As if the layer were not written.
                continue
            except UnresolvedError:
                self._open = True

    def _merge(self, layer: Any, where: DocPath) -> None:
        of_axis = is_reference(layer)
        if of_axis:
            reference, layer = layer, resolve(self._spec, layer, self._coords)
            where = origin_of(self._spec, reference, self._coords)
        elif is_tuned(layer):
            layer = substitute(self._spec, layer, self._coords)
        if not isinstance(layer, dict):
            self._problems.append(self._spec.problem(where, f"must be a mapping of config fields, found {layer!r}"))
            self._open = True
            return
        for name, value in layer.items():
            written = (*where, name)
            nested = list(references(value, written)) if of_axis else []
            for path, text in nested:
                message = f"{text} is not filled in inside an axis; write it in the config of the entry"
                self._problems.append(self._spec.problem(path, message))
            # The last layer with a field wins, also where its value is not known.
            try:
                if nested:
                    raise UnresolvedError(name)
                self._value[name] = substitute(self._spec, value, self._coords)
                self._written[name] = (written, value)
                self._unknown.discard(name)
            except AbsentError:
                # With these values of the others it has no meaning, as if it were not written.
                continue
            except UnresolvedError:
                self._value[name] = None
                self._written[name] = (written, None)
                self._unknown.add(name)

    def fill_in(self, model: type[Config], cut: Mapping[str, int]) -> tuple[Config, str]:
        """Validate the config of a stage; return it and the canonical JSON of its identity.

        Args:
            model: the type of the stage's config.
            cut: the fields `shard` and `shards`, if the entry is cut into shards.

        Raises:
            SweepError: the config has mistakes, each placed where the wrong part was written.
            UnresolvedError: a mistake that is reported elsewhere hides a part of it.
        """
        problems = list(self._problems)
        try:
            made = model.model_validate({**self._value, **cut})
            # A set of its own would be the largest part of each config, of which a search has tens of thousands.
            object.__setattr__(made, "__pydantic_fields_set__", _once(frozenset(made.model_fields_set)))
            identity = canonical_json(self._spec.former_identity(self._name, made.identity()))
        except ValidationError as error:
            messages = validation_messages(error, self, self._where, model)
            files = model.files if issubclass(model, FunctionConfig) else ()
            for path, message in messages.items():
                if not self._follows(path, message):
                    unfed = message == MISSING and path[-1] in files
                    hint = "; feed it an artifact below inputs:, or write {path: FILE} here" if unfed else ""
                    problems.append(self.problem(path, message + hint))
        except UnhashableValueError as error:
            problems.append(self.problem((*self._where, re.split(r"[.\[]", error.where)[0]), error.reason))
        if problems:
            raise SweepError(problems)
        if self._open or self._unknown:
            raise UnresolvedError(self._name)
        return made, identity

    def _follows(self, path: DocPath, message: str) -> bool:
        """Tell whether a mistake may follow from what is not known of the config."""
        depth = len(self._where)
        if len(path) == depth:
            return self._open or bool(self._unknown)
        if message.startswith(UNKNOWN_FIELD):
            return False
        return path[depth] in self._unknown or (self._open and message == MISSING)

    def __contains__(self, path: DocPath) -> bool:
        depth = len(self._where)
        # A field of a tuned layer stands in another file.
        return (len(path) == depth + 1 and path[depth] in self._written) or self._origin(path) in self._spec.document

    def problem(self, path: DocPath, message: str) -> Problem:
        """Describe a mistake in the merged config, placed where its part was written."""
        if message.startswith(UNKNOWN_FIELD) and "did you mean" not in message and path[-1] in RUNTIME_FIELDS:
            remedy = f"write runtime.{self._name}.{path[-1]}"
            message = f"{UNKNOWN_FIELD}; how a step is run is no part of what it is: {remedy}"
        return self._spec.problem(self._origin(path, of_field=message.startswith(UNKNOWN_FIELD)), message)

    def _origin(self, path: DocPath, of_field: bool = False) -> DocPath:
        """Return where a part of the merged config was written."""
        depth = len(self._where)
        if len(path) == depth or path[depth] not in self._written:
            return path
        where, value = self._written[str(path[depth])]
        if is_reference(value) and not (of_field and len(path) == depth + 1):
            where = origin_of(self._spec, value, self._coords)
        return (*where, *path[depth + 1 :])

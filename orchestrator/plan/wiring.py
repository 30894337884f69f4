"""How the entries of a sweep fit together: every input connected, every config filled in and valid, or a mistake."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from pydantic import ValidationError

from orchestrator.keys import UnspeakableValueError, canonical_json
from orchestrator.plan.grid import Axes, Grid
from orchestrator.plan.references import axes_of, is_reference, reference_problems, resolve, substitute
from orchestrator.sweep.document import Document
from orchestrator.sweep.load import pattern_problems
from orchestrator.sweep.problems import UNKNOWN_FIELD, DocPath, Problem, SweepError, nearest, validation_messages
from orchestrator.sweep.spec import Entry, SweepSpec
from orchestrator.types import Scalar
from workers.config import Config
from workers.stage import Stage


@dataclass(frozen=True, slots=True)
class Variant:
    """An entry at its own coordinates."""

    kind: str
    """The name of its stage."""
    stage: Stage
    shards: int | None
    """Into how many it is cut by itself; None leaves that to its inputs."""
    configs: tuple[Config, ...]
    """One per shard it is cut into, else one."""
    spelled: tuple[str, ...]
    """The canonical JSON of their identities."""


@dataclass(frozen=True, slots=True)
class Wired:
    """An entry with everything filled in that it names itself."""

    name: str
    own: Axes
    """The axes that it names."""
    axes: Axes
    """Those, and the axes of all that feeds it."""
    variants: tuple[Variant | None, ...]
    """For each point of its own axes; None where `when` is false."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """The checked entries of a sweep, in an order in which each comes after those that feed it."""

    grid: Grid
    entries: Mapping[str, Wired]
    targets: tuple[str, ...]
    """The entries that feed no other."""


def wire(spec: SweepSpec) -> Wiring:
    """Connect the entries of a sweep and fill in their configs.

    Raises:
        SweepError: with one problem per mistake, each with its place.
    """
    problems = _reference_problems(spec)
    if not spec.stages:
        problems.append(spec.problem(("stages",), "a sweep has at least one stage"))
    if not problems:
        for name in spec.stages:
            problems += _entry_problems(spec, name)
    if not problems:
        problems += _cycle_problems(spec)
    entries: dict[str, Wired] = {}
    grid = Grid({axis: spec.labels(axis) for axis in spec.axes})
    if not problems:
        for name in order(spec):
            entry = spec.stages[name]
            own = _own_axes(spec, name)
            unfit, variants = _variants(spec, grid, name, grid.axes(own))
            problems += unfit
            axes = set(grid.axes(own)).union(*(entries[source].axes for source in sources(entry)))
            entries[name] = Wired(name, grid.axes(own), tuple(sorted(axes)), variants)
        problems += _unused_axis_problems(spec)
    if not problems:
        problems += _metric_problems(spec, entries)
    problems += _runtime_problems(spec)
    if problems:
        raise SweepError(problems)
    return Wiring(grid, entries, targets(spec))


def stages_of(spec: SweepSpec, name: str) -> dict[str, dict[str, Scalar]]:
    """The kinds of work that an entry can be, each with coordinates where it is that kind."""
    entry = spec.stages[name]
    kinds: dict[str, dict[str, Scalar]] = {}
    for coords in _points(spec, axes_of(spec, entry.stage)):
        kinds.setdefault(str(substitute(spec, entry.stage, coords) or name), coords)
    return kinds


def order(spec: SweepSpec) -> list[str]:
    """Entry names, each after those that feed it or that it stands on.

    Raises:
        ValueError: a cycle; the argument names its entries.
    """
    done: dict[str, None] = {}
    path: list[str] = []

    def visit(name: str) -> None:
        if name in done:
            return
        if name in path:
            raise ValueError(" -> ".join([*path[path.index(name) :], name]))
        path.append(name)
        for source in sources(spec.stages[name]):
            visit(source)
        path.pop()
        done[name] = None

    for name in spec.stages:
        visit(name)
    return list(done)


def sources(entry: Entry) -> tuple[str, ...]:
    """The entries that an entry names."""
    return (*entry.inputs.values(), *([entry.otherwise] if entry.otherwise else []))


def targets(spec: SweepSpec) -> tuple[str, ...]:
    """The entries that feed no other, in dependency order."""
    fed = {source for entry in spec.stages.values() for source in sources(entry)}
    return tuple(name for name in order(spec) if name not in fed)


def _points(spec: SweepSpec, axes: frozenset[str]) -> list[dict[str, Scalar]]:
    names = sorted(axes)
    return [dict(zip(names, labels, strict=True)) for labels in product(*(spec.labels(axis) for axis in names))]


def _own_axes(spec: SweepSpec, name: str) -> frozenset[str]:
    entry = spec.stages[name]
    return axes_of(spec, [entry.stage, entry.when, entry.shards, entry.config])


def _reference_problems(spec: SweepSpec) -> list[Problem]:
    problems = []
    for name, entry in spec.stages.items():
        for part in ("stage", "when", "shards", "config"):
            value = getattr(entry, part)
            problems += reference_problems(spec, ("stages", name, part), value)
            if isinstance(value, str) and part in ("when", "shards") and not is_reference(value):
                problems.append(
                    spec.problem(("stages", name, part), f"{value!r} is neither a value nor a reference ($axis.field)")
                )
    return problems


def _entry_problems(spec: SweepSpec, name: str) -> list[Problem]:
    entry = spec.stages[name]
    where: DocPath = ("stages", name)
    problems = []
    for input_name, source in entry.inputs.items():
        if source not in spec.stages:
            problems.append(
                spec.problem(
                    (*where, "inputs", input_name), f"there is no entry {source!r}; {nearest(source, spec.stages)}"
                )
            )
    if entry.otherwise is not None and entry.otherwise not in spec.stages:
        hint = nearest(entry.otherwise, spec.stages)
        problems.append(spec.problem((*where, "otherwise"), f"there is no entry {entry.otherwise!r}; {hint}"))
    if entry.otherwise is not None and entry.when is True:
        problems.append(spec.problem((*where, "otherwise"), "stands in where `when` is false, but there is no `when`"))
    for coords in _points(spec, axes_of(spec, entry.when)):
        found = substitute(spec, entry.when, coords)
        if not isinstance(found, bool):
            problems.append(spec.problem((*where, "when"), f"is {found!r} at {coords}; it must be true or false"))
            break
    for coords in _points(spec, axes_of(spec, entry.shards)):
        found = substitute(spec, entry.shards, coords)
        if found is not None and (not isinstance(found, int) or isinstance(found, bool) or found < 1):
            problems.append(spec.problem((*where, "shards"), f"is {found!r}; it must be a whole number from 1"))
            break
    for kind in stages_of(spec, name):
        if kind not in spec.table:
            path = (*where, "stage") if entry.stage else where
            problems.append(spec.problem(path, f"there is no stage {kind!r}; {nearest(kind, spec.table)}"))
        elif not problems:
            problems += _input_problems(spec, name, kind, spec.table[kind])
    return problems


def _input_problems(spec: SweepSpec, name: str, kind: str, stage: Stage) -> list[Problem]:
    entry = spec.stages[name]
    where: DocPath = ("stages", name, "inputs")
    problems = []
    for input_name, source in entry.inputs.items():
        if input_name not in stage.inputs:
            hint = nearest(input_name, stage.inputs)
            problems.append(spec.problem((*where, input_name), f"stage {kind!r} has no input {input_name!r}; {hint}"))
            continue
        wanted = stage.inputs[input_name].kind
        for source_kind in stages_of(spec, source):
            made = spec.table[source_kind].output if source_kind in spec.table else wanted
            if made != wanted:
                message = f"stage {kind!r} reads {wanted!r} here, but entry {source!r} makes {made!r}"
                problems.append(spec.problem((*where, input_name), message))
    for input_name, declared in stage.inputs.items():
        if not declared.optional and input_name not in entry.inputs:
            makers = [
                other
                for other in spec.stages
                if any(
                    spec.table[each].output == declared.kind for each in stages_of(spec, other) if each in spec.table
                )
            ]
            hint = f"e.g. {input_name}: {makers[0]}" if makers else f"no entry makes {declared.kind!r}"
            problems.append(spec.problem(where, f"stage {kind!r} needs the input {input_name!r}; {hint}"))
    config_fields = stage.config.model_fields
    if entry.shards is not None and "shards" not in config_fields:
        sharded = [each for each, other in spec.table.items() if "shards" in other.config.model_fields]
        problems.append(
            spec.problem(
                ("stages", name, "shards"), f"stage {kind!r} cannot be cut into shards; {nearest(kind, sharded)}"
            )
        )
    if entry.otherwise and entry.otherwise in spec.stages:
        for other in stages_of(spec, entry.otherwise):
            if other in spec.table and spec.table[other].output != stage.output:
                message = f"makes {spec.table[other].output!r}, but {name!r} makes {stage.output!r}"
                problems.append(spec.problem(("stages", name, "otherwise"), message))
    return problems


def _cycle_problems(spec: SweepSpec) -> list[Problem]:
    try:
        order(spec)
    except ValueError as error:
        return [spec.problem(("stages",), f"the entries feed each other in a circle: {error}")]
    return []


def _variants(spec: SweepSpec, grid: Grid, name: str, own: Axes) -> tuple[list[Problem], tuple[Variant | None, ...]]:
    """What an entry is at each point of its own axes; with mistakes, not all of them."""
    entry = spec.stages[name]
    problems: list[Problem] = []
    variants: list[Variant | None] = []
    for point in range(grid.size(own)):
        coords = grid.coords(own, point)
        if substitute(spec, entry.when, coords) is False:
            variants.append(None)
            continue
        origins: dict[str, _Origin] = {}
        unfit: list[Problem] = []
        config: dict[str, Any] = {}
        layer: Any
        for index, layer in enumerate(entry.config if isinstance(entry.config, list) else [entry.config]):
            where: DocPath = ("stages", name, "config", *([index] if isinstance(entry.config, list) else []))
            if is_reference(layer):
                layer, where = resolve(spec, layer, coords)
            if not isinstance(layer, dict):
                unfit.append(spec.problem(where, f"is no mapping of config fields, found {layer!r}"))
                continue
            for each, value in layer.items():
                written = (*where, each)
                origins[each] = _Origin(written, resolve(spec, value, coords)[1] if is_reference(value) else written)
            config |= substitute(spec, layer, coords)
        problems += unfit
        if unfit:
            continue
        kind = str(substitute(spec, entry.stage, coords) or name)
        stage = spec.table[kind]
        shards = substitute(spec, entry.shards, coords)
        made: list[tuple[Config, str]] = []
        for shard in range(shards or 1):
            value = config if shards is None else {**config, "shard": shard, "shards": shards}
            found = _filled_in(stage.config, value, spec.document, ("stages", name, "config"), origins)
            if isinstance(found, list):
                problems += found
                break
            made.append(found)
        configs, spelled = zip(*made, strict=True) if made else ((), ())
        variants.append(Variant(kind, stage, shards, configs, spelled))
    return list(dict.fromkeys(problems)), tuple(variants)


class _Origin(NamedTuple):
    """Where a config field was written, and where its value was: in an axis, if it is a reference."""

    field: DocPath
    value: DocPath


def _filled_in(
    model: type[Config], config: Mapping[str, Any], document: Document, where: DocPath, origins: Mapping[str, _Origin]
) -> tuple[Config, str] | list[Problem]:
    """A valid config and its spelling, or the mistakes in it, each placed where the wrong part was written."""
    try:
        made = model.model_validate(config)
        return made, canonical_json(made.identity())
    except ValidationError as error:
        relocated = _Relocated(document, where, origins)
        return [relocated.problem(*each) for each in validation_messages(error, relocated, where, model).items()]
    except UnspeakableValueError as error:
        name = re.split(r"[.\[]", error.where)[0]
        return [_Relocated(document, where, origins).problem((*where, name), error.reason)]


class _Relocated(Document):
    """A document in which the fields of a merged config lie where they were written."""

    def __init__(self, document: Document, where: DocPath, origins: Mapping[str, _Origin]) -> None:
        super().__init__(document.path, document.value, dict(document.places))
        self._document, self._where, self._origins = document, where, origins
        for name, origin in origins.items():
            for known, place in document.places.items():
                if known[: len(origin.value)] == origin.value:
                    self.places[(*where, name, *known[len(origin.value) :])] = place

    def problem(self, path: DocPath, message: str) -> Problem:
        depth = len(self._where)
        origin = self._origins.get(str(path[depth])) if len(path) > depth else None
        if origin is None:
            return self._document.problem(path, message)
        if len(path) == depth + 1 and message.startswith(UNKNOWN_FIELD):
            return self._document.problem(origin.field, message)
        return self._document.problem((*origin.value, *path[depth + 1 :]), message)


def _unused_axis_problems(spec: SweepSpec) -> list[Problem]:
    used = frozenset().union(*(_own_axes(spec, name) for name in spec.stages))
    return [
        spec.problem(
            ("axes", axis),
            f"no stage uses ${axis}, so its values would repeat the same cells; use it in a config, or remove the axis",
        )
        for axis in spec.axes
        if axis not in used
    ]


def _metric_problems(spec: SweepSpec, entries: Mapping[str, Wired]) -> list[Problem]:
    """Metrics that two entries return or that an axis is called by, so that one column would have two meanings."""
    owners = _metric_owners(spec, entries)
    problems = [
        spec.problem(
            ("results",), f"{' and '.join(sorted(names))} both return {metric!r}, which would be one column; report one"
        )
        for metric, names in owners.items()
        if len(names) > 1
    ]
    metrics = {metric.lower(): metric for metric in owners}
    for axis in spec.axes:
        if metric := metrics.get(axis.lower()):
            owner = min(owners[metric])
            message = f"is also the metric {metric!r} of {owner!r}, which would be one column; rename the axis"
            problems.append(spec.problem(("axes", axis), message))
    for index, axis in enumerate(spec.summary.by):
        if axis not in spec.axes:
            problems.append(
                spec.problem(("summary", "by", index), f"there is no axis {axis!r}; {nearest(axis, spec.axes)}")
            )
    never = {
        declared.name
        for name in set().union(*owners.values())
        for variant in entries[name].variants
        if variant
        for declared in variant.configs[0].declared().values()
        if not declared.averaged
    }
    named: list[tuple[DocPath, str]] = [
        *((("summary", "metrics", index), metric) for index, metric in enumerate(spec.summary.metrics)),
        *((("summary", "better", metric), metric) for metric in spec.summary.better),
    ]
    for where, metric in named:
        if metric not in owners:
            problems.append(spec.problem(where, f"there is no metric {metric!r}; {nearest(metric, owners)}"))
        elif metric in never:
            message = f"{metric!r} is a p value or the end of an interval, of which no mean is taken; leave it out"
            problems.append(spec.problem(where, message))
    return problems


def _metric_owners(spec: SweepSpec, entries: Mapping[str, Wired]) -> dict[str, set[str]]:
    """Reported metric -> the entries that return it."""
    owners: dict[str, set[str]] = {}
    for name in spec.results or targets(spec):
        if name in entries:
            for variant in entries[name].variants:
                if variant:
                    for metric in variant.configs[0].declared():
                        owners.setdefault(metric, set()).add(name)
    return owners


def _runtime_problems(spec: SweepSpec) -> list[Problem]:
    problems = []
    for name, runtime in spec.runtime.items():
        if name != "default" and name not in spec.stages:
            hint = nearest(name, [*spec.stages, "default"])
            problems.append(spec.problem(("runtime", name), f"there is no entry {name!r}; {hint}"))
        for index, rule in enumerate(runtime.rules):
            problems += pattern_problems(spec, ("runtime", name, "rules", index, "at"), rule.at)
    for index, name in enumerate(spec.results):
        if name not in spec.stages:
            hint = nearest(name, spec.stages)
            problems.append(spec.problem(("results", index), f"there is no entry {name!r}; {hint}"))
    return problems

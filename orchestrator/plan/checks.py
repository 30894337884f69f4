"""Finds mistakes in how the entries of a sweep fit together, except those that only follow from another mistake."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import product
from typing import Any

from orchestrator.plan.analysis import analysis_metrics, analysis_problems
from orchestrator.plan.dependencies import order, own_axes
from orchestrator.plan.references import (
    UnresolvedError,
    axes_of,
    is_reference,
    is_searched,
    reference_problems,
    references,
    substitute,
)
from orchestrator.plan.shared_gpus import shared_gpu_problems
from orchestrator.study import StageError
from orchestrator.study.function_stage import FunctionStage
from orchestrator.sweep.analysis import directions
from orchestrator.sweep.load import pattern_problems
from orchestrator.sweep.problems import DocPath, Problem, told
from orchestrator.sweep.search import TRIAL
from orchestrator.sweep.spec import SweepSpec
from orchestrator.sweep.tuned import tuned_parts
from orchestrator.texts import nearest
from orchestrator.types import RESERVED_NAMES, Scalar
from workers.metric import Metric
from workers.stage import ANY_KIND, Stage

#: An entry may be cut into so many steps at each of its points; each is a config that is checked.
MOST_SHARDS = 10_000


def entry_problems(spec: SweepSpec) -> list[Problem]:
    """Find the mistakes in references, names and inputs of the entries, but not those in their configs."""
    problems = []
    if not spec.stages and spec.understood("stages"):
        problems.append(spec.problem(("stages",), "a sweep has at least one stage"))
    unresolved = told(problem for name in spec.stages for problem in _reference_problems(spec, name))
    problems += unresolved
    problems += _stray_tuned_problems(spec)
    problems += _name_problems(spec)
    problems += shared_gpu_problems(spec)
    for name in spec.stages:
        problems += _switch_problems(spec, name)
        for kind in kinds_of(spec, name):
            try:
                problems += _stage_problems(spec, name, kind, spec.stage(name, kind))
            except StageError as error:
                if spec.understood("uses") or ":" in kind:
                    path = ("stages", name, "stage") if spec.stages[name].stage else ("stages", name)
                    problems.append(spec.problem(path, str(error)))
    try:
        order(spec)
    except ValueError as error:
        problems.append(spec.problem(("stages",), f"the entries feed each other in a circle: {error}"))
    # A part that was not understood may use an axis.
    if spec.stages and not unresolved and spec.understood("stages"):
        problems += _unused_axis_problems(spec)
        problems += _unread_field_problems(spec)
    return problems


def is_shard_count(value: object) -> bool:
    """Tell whether a value can be a number of shards; None leaves that to the inputs of the entry."""
    return value is None or (type(value) is int and 0 < value <= MOST_SHARDS)


def metric_problems(spec: SweepSpec, returned: Mapping[str, Collection[Metric] | None]) -> list[Problem]:
    """Find metrics that cannot have a column of their name, or whose column is ambiguous, and unknown ones.

    A column is ambiguous where two entries return the metric, or where an axis has its name.

    Args:
        spec: the sweep.
        returned: reported entry -> the metrics that it returns at any point; None if it does not declare them.
    """
    if undeclared := [entry for entry, metrics in returned.items() if metrics is None]:
        return _undeclared_problems(spec, undeclared[0], len(returned))
    owners: dict[str, set[str]] = {}
    for entry, metrics in returned.items():
        for metric in metrics or ():
            owners.setdefault(metric.name, set()).add(entry)
    problems = [
        spec.problem(
            ("results",), f"{' and '.join(sorted(names))} both return {name!r}, which would be one column; report one"
        )
        for name, names in owners.items()
        if len(names) > 1
    ]
    problems += [
        spec.problem(("stages", min(owners[name])), f"cannot return a metric {name!r}: {reason}")
        for name in owners
        if (reason := _unfit_column(name))
    ]
    folded = {name.lower(): name for name in owners}
    for field in spec.searched.space if spec.searched else ():
        if name := folded.get(field.lower()):
            message = f"is also the metric {name!r}, which would be one column; rename the field"
            problems.append(spec.problem(("search", str(spec.search_name), "space", field), message))
    for axis in spec.axes:
        if name := folded.get(axis.lower()):
            owner = min(owners[name])
            message = f"is also the metric {name!r} of {owner!r}, which would be one column; rename the axis"
            problems.append(spec.problem(("axes", axis), message))
    never = {metric.name for metrics in returned.values() for metric in metrics or () if not metric.averaged}
    named: list[tuple[DocPath, str]] = [
        *((("summary", "metrics", index), metric) for index, metric in enumerate(spec.summary.metrics)),
        *analysis_metrics(spec),
        *_searched_metrics(spec),
    ]
    for where, name in named:
        if name not in owners:
            problems.append(spec.problem(where, f"there is no metric {name!r}; {nearest(name, owners)}"))
        elif name in never:
            message = f"{name!r} is a p value or the end of an interval, of which no mean is taken; leave it out"
            problems.append(spec.problem(where, message))
    known = {metric.name: metric for metrics in returned.values() for metric in metrics or ()}
    return [*problems, *_direction_problems(spec, known), *analysis_problems(spec, known)]


def _searched_metrics(spec: SweepSpec) -> list[tuple[DocPath, str]]:
    """Return where the search names metrics, and which."""
    search, where = spec.searched, ("search", spec.search_name or "")
    if search is None:
        return []
    named = [((*where, "objective", "metric"), metric) for metric in search.objective.metrics]
    return [*named, *(((*where, "constraints", metric), metric) for metric in search.constraints)]


def _direction_problems(spec: SweepSpec, metrics: Mapping[str, Metric]) -> list[Problem]:
    """Find the directions of an objective that contradict those of the analysis, or of the stage."""
    if spec.searched is None:
        return []
    objective = spec.searched.objective
    path = ("search", str(spec.search_name), "objective", "better")
    said = directions(spec.analysis, {name: metric.better for name, metric in metrics.items()})
    return [
        spec.problem(
            path, f"is {better} for {metric!r}, but its stage or `analysis` says that {said[metric]} is better"
        )
        for metric, better in zip(objective.metrics, objective.directions, strict=True)
        if said.get(metric, better) != better
    ]


def _unfit_column(name: str) -> str | None:
    """Tell why the results cannot have a column for a metric; None if they can."""
    # SQL reads column names without regard to case.
    if name.lower() in RESERVED_NAMES:
        return "the results have that name already; return it under another name"
    return None if name.isidentifier() else "use letters, digits and _"


def _undeclared_problems(spec: SweepSpec, entry: str, reported: int) -> list[Problem]:
    """Find what must know the metrics of an entry before it ran, which it does not declare."""
    remedy = f"whose metrics are not declared: write stages.{entry}.metrics: [NAME, …], or have it return a TypedDict"
    places: dict[DocPath, str] = {}
    if spec.summary.metrics:
        places["summary", "metrics"] = "names metrics of"
    if spec.analysis is not None:
        places["analysis",] = "names metrics of"
    if reported > 1:
        places["results",] = "reports others beside"
    return [spec.problem(place, f"{why} {entry!r}, {remedy}") for place, why in places.items()]


def _reference_problems(spec: SweepSpec, name: str) -> list[Problem]:
    problems = []
    for part in ("stage", "when", "shards", "config"):
        value = getattr(spec.stages[name], part)
        problems += told(reference_problems(spec, ("stages", name, part), value))
        if isinstance(value, str) and part in ("when", "shards") and not is_reference(value):
            message = f"{value!r} is neither a value nor a reference ($axis.field)"
            problems.append(spec.problem(("stages", name, part), message))
        if part != "config" and is_searched(spec, value):
            message = "is part of the plan, so it cannot be searched for; search over values of configs"
            problems.append(spec.problem(("stages", name, part), message))
    return problems


def _stray_tuned_problems(spec: SweepSpec) -> list[Problem]:
    """Find the tuned results where nobody looks them up."""
    message = "a tuned result is read in the config of an entry only; write it there"
    parts = ((part, spec.document.value.get(part)) for part in ("data", "axes", "search"))
    return told(spec.problem(path, message) for part, value in parts for path, _ in tuned_parts(value, (part,)))


def _name_problems(spec: SweepSpec) -> list[Problem]:
    """Find unknown names, wherever the sweep refers to an entry or an axis."""
    entries: list[tuple[DocPath, str, Iterable[str]]] = [
        *((("results", index), name, spec.stages) for index, name in enumerate(spec.results)),
        *((("runtime", name), name, [*spec.stages, "default"]) for name in spec.runtime),
    ]
    for name, entry in spec.stages.items():
        where = ("stages", name)
        entries += [((*where, "inputs", each), source, spec.stages) for each, source in entry.inputs.items()]
        entries += [((*where, "otherwise"), entry.otherwise, spec.stages)] if entry.otherwise is not None else []
    problems = told(
        spec.problem(where, f"there is no entry {name!r}; {nearest(name, valid)}")
        for where, name, valid in entries
        if name not in valid and spec.understood("stages", name)
    )
    problems += told(
        spec.problem(("summary", "by", index), f"there is no axis {axis!r}; {nearest(axis, spec.axes)}")
        for index, axis in enumerate(spec.summary.by)
        if axis not in spec.axes and spec.understood("axes", axis)
    )
    for name, runtime in spec.runtime.items():
        problems += told(
            problem
            for index, rule in enumerate(runtime.rules)
            for problem in pattern_problems(spec, ("runtime", name, "rules", index, "at"), rule.at)
        )
        places = [("runtime", name), *(("runtime", name, "rules", index) for index in range(len(runtime.rules)))]
        for place, values in zip(places, (runtime, *runtime.rules), strict=True):
            kinds = kinds_of(spec, name) if values.batch_size and name in spec.stages else []
            if kinds and not any(stage.batches for stage in _stages(spec, name)):
                message = f"stage {kinds[0]!r} takes no batch_size here; where it trains, that is a field of its config"
                problems.append(spec.problem((*place, "batch_size"), message))
    return problems


def _switch_problems(spec: SweepSpec, name: str) -> list[Problem]:
    """Find invalid values of `when`, `otherwise` and `shards` of an entry."""
    entry = spec.stages[name]
    where: DocPath = ("stages", name)
    problems = []
    if entry.otherwise is not None and entry.when is True and spec.understood("stages", name, "when"):
        problems.append(spec.problem((*where, "otherwise"), "stands in where `when` is false, but there is no `when`"))
    if not isinstance(entry.when, str) or is_reference(entry.when):
        for coords, found in _values(spec, entry.when):
            if not isinstance(found, bool):
                problems.append(spec.problem((*where, "when"), f"is {found!r} at {coords}; it must be true or false"))
                break
    if not isinstance(entry.shards, str) or is_reference(entry.shards):
        for _, found in _values(spec, entry.shards):
            if not is_shard_count(found):
                problems.append(
                    spec.problem((*where, "shards"), f"is {found!r}; it must be a whole number from 1 to {MOST_SHARDS}")
                )
                break
    return problems


def _stage_problems(spec: SweepSpec, name: str, kind: str, stage: Stage) -> list[Problem]:
    """Find the inputs, shards and stand-in of an entry that this stage does not allow."""
    entry = spec.stages[name]
    where: DocPath = ("stages", name)
    problems = []
    for input_name, source in entry.inputs.items():
        if input_name not in stage.inputs:
            message = f"stage {kind!r} has no input {input_name!r}; {nearest(input_name, stage.inputs)}"
            problems.append(spec.problem((*where, "inputs", input_name), message))
            continue
        wanted = stage.inputs[input_name].kind
        for made in _outputs(spec, source) - {wanted} if wanted != ANY_KIND else ():
            message = f"stage {kind!r} reads {wanted!r} here, but entry {source!r} makes {made!r}"
            problems.append(spec.problem((*where, "inputs", input_name), message))
    for input_name, declared in stage.inputs.items():
        required = not declared.optional and spec.understood("stages", name, "inputs")
        if required and input_name not in entry.inputs:
            makers = [other for other in spec.stages if declared.kind in _outputs(spec, other)]
            hint = f"e.g. {input_name}: {makers[0]}" if makers else f"no entry makes {declared.kind!r}"
            hint = f"name the entry that makes it: {input_name}: ENTRY" if declared.kind == ANY_KIND else hint
            problems.append(spec.problem((*where, "inputs"), f"stage {kind!r} needs the input {input_name!r}; {hint}"))
    if entry.shards is not None and "shards" not in stage.config.model_fields:
        sharded = [each for each, other in spec.table.items() if "shards" in other.config.model_fields]
        hint = "give it the parameters shard: int and shards: int" if ":" in kind else nearest(kind, sharded)
        message = f"stage {kind!r} cannot be cut into shards; {hint}"
        problems.append(spec.problem((*where, "shards"), message))
    # What reads the artifacts of a plain function reads those of any other.
    unlike = set() if isinstance(stage, FunctionStage) else _outputs(spec, entry.otherwise) - {stage.output}
    for made in unlike:
        message = f"makes {made!r}, but {name!r} makes {stage.output!r}"
        problems.append(spec.problem((*where, "otherwise"), message))
    return problems


def kinds_of(spec: SweepSpec, name: str) -> list[str]:
    """Return the names of the stages that an entry can have, as far as they are known."""
    entry = spec.stages[name]
    kinds: dict[str, None] = {}
    if spec.understood("stages", name, "stage"):
        for _, kind in _values(spec, entry.stage):
            kinds[str(kind or name)] = None
    return list(kinds)


def _outputs(spec: SweepSpec, name: str | None) -> set[str]:
    """Return the kinds of artifacts that an entry makes, as far as they are known."""
    return {stage.output for stage in _stages(spec, name)} if name in spec.stages else set()


def _stages(spec: SweepSpec, name: str | None) -> list[Stage]:
    """Return the stages that an entry can have, as far as they are known."""
    found: list[Stage] = []
    if name is None:
        return found
    for kind in kinds_of(spec, name):
        with contextlib.suppress(StageError):
            found.append(spec.stage(name, kind))
    return found


def _unused_axis_problems(spec: SweepSpec) -> list[Problem]:
    # What is searched for depends on the axes of its studies by itself, but need not differ between them.
    plain = spec.model_copy(update={"search": {}})
    used = frozenset().union(*(own_axes(plain, name) for name in spec.stages))
    used |= {axis for field in (spec.searched.fields.values() if spec.searched else ()) for axis in field.when}
    return [
        spec.problem(
            ("axes", axis),
            f"no stage uses ${axis}, so its values would repeat the same cells; use it in a config, or remove the axis",
        )
        for axis in spec.axes
        if axis not in used and not (axis == TRIAL and spec.search)
    ]


def _unread_field_problems(spec: SweepSpec) -> list[Problem]:
    """Find the fields of a search that no config reads, so that all their values would be the same trial."""
    read = [text[1:].split(".") for entry in spec.stages.values() for _, text in references(entry.config)]
    mine = [fields for head, *fields in read if head == spec.search_name]
    if spec.searched is None or [] in mine:
        return []
    return [
        spec.problem(
            ("search", str(spec.search_name), "space", name),
            f"no config reads ${spec.search_name}.{name}, so its values would repeat the same trial; "
            f"write ${spec.search_name}.{name} where it belongs, or remove the field",
        )
        for name in spec.searched.space
        if [name] not in [fields[:1] for fields in mine]
    ]


def _values(spec: SweepSpec, value: Any) -> Iterator[tuple[dict[str, Scalar], Any]]:
    """Yield the coordinates of each point of a value's axes, and the value there, as far as it is known."""
    names = sorted(axes_of(spec, value))
    for labels in product(*(spec.labels(axis) for axis in names)):
        coords = dict(zip(names, labels, strict=True))
        with contextlib.suppress(UnresolvedError):
            yield coords, substitute(spec, value, coords)

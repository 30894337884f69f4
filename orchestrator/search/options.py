"""Mistakes in what a search says of Optuna's samplers, pruners and importance evaluators, before anything runs."""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from orchestrator.extras import lacking
from orchestrator.search.distribution import distribution
from orchestrator.search.parts import (
    EVALUATORS,
    PRUNERS,
    SAMPLERS,
    Kind,
    annotation,
    core,
    kind_of,
    make_part,
    parameters_of,
    repetitions,
)
from orchestrator.search.quiet import quiet
from orchestrator.search.records import Told
from orchestrator.search.sampling import Sampling
from orchestrator.sweep.problems import DocPath
from orchestrator.sweep.search import MOST_TRIALS, Chooser, From, Search
from orchestrator.texts import nearest

#: What Optuna raises where it does not take a value.
_REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
#: Options whose values exist in Python only.
_CODE = ("Callable", "FrozenTrial", "ndarray")
#: Samplers that look at constraints, and those that look at results which no sampler suggested.
_HEED_CONSTRAINTS = ("GPSampler", "NSGAIISampler", "NSGAIIISampler", "TPESampler")
_HEED_EARLIER = ("BruteForceSampler", "GPSampler", "TPESampler")
#: Points of a grid: half a gigabyte.
_MOST_POINTS = 1_000_000
#: So many trials are rehearsed: TPE and GP first look at results after ten.
_REHEARSED = 12

Found = Iterator[tuple[DocPath, str]]


def problems(search: Search) -> list[tuple[DocPath, str]]:
    """List the mistakes that can be seen without results: where each is below the search, and what to do."""
    found = list(_choice_problems(search))
    for kind, name in ((SAMPLERS, "sampler"), (PRUNERS, "pruner"), (EVALUATORS, "importance")):
        chooser: Chooser | None = getattr(search, name)
        if chooser is None:
            continue
        mistakes = list(_part_problems(kind, {"name": chooser.name, **chooser.options}, (name,)))
        if not mistakes:
            mistakes = list(_FITS[name](search)) if name in _FITS else []
        if not mistakes:
            mistakes = [((name,), _refused(error)) for error in _refusals(make_part, kind, chooser, search)]
        found += mistakes
    if not found:
        found += [((part,), _refused(error)) for part, error in _rehearsed(search)]
    return found


def _choice_problems(search: Search) -> Found:
    for name, field in search.fields.items():
        labels = field.labels
        for place, label in enumerate(labels):
            if isinstance(label, float) and not math.isfinite(label):
                yield ("space", name), f"{label!r} cannot be recorded; name the choices"
            elif label in labels[:place]:
                first = labels[labels.index(label)]
                yield ("space", name), f"{first!r} and {label!r} are the same choice to Optuna; name the choices"


def _part_problems(kind: Kind, given: Mapping[str, Any], path: DocPath) -> Found:
    """Find mistakes in the name and the options of a part, and in the parts that it is made of."""
    name = given["name"]
    part = kind.parts.get(str(name))
    if part is None:
        yield (*path, "name"), f"Optuna has no {kind.word} {name!r}; {nearest(name, kind.parts)}"
        return
    if name == "CmaEsSampler" and importlib.util.find_spec("cmaes") is None:
        yield (*path, "name"), f"{name} needs a package: {lacking('search')}"
    parameters = parameters_of(part)
    for option, value in given.items():
        if option == "name":
            continue
        where = (*path, option)
        if option not in parameters:
            sayable = [each for each in parameters if not _unsayable(parameters[each])]
            yield where, f"{name} has no option {option!r}; {nearest(option, sayable)}"
        elif reason := _unsayable(parameters[option]):
            yield where, reason
        elif (inner := kind_of(parameters[option])) is not None:
            if isinstance(value, Mapping) and "name" in value:
                yield from _part_problems(inner, value, where)
            elif value is not None or "None" not in annotation(parameters[option]):
                yield where, f"should be a {inner.word}, {{name: NAME, OPTION: VALUE, …}}; found {value!r}"
        else:
            yield from ((where, message) for message in _type_problems(part, parameters[option], value))
    for option, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and option not in given:
            yield path, f"{name} needs the option {option!r}"


def _unsayable(parameter: inspect.Parameter) -> str:
    if parameter.name == "seed":
        return "follows from `seed` of the search; remove it"
    if parameter.name == "constraints_func":
        return "cannot be written in a sweep file; write `constraints` of the search"
    if any(each in annotation(parameter) for each in _CODE):
        return "is code, which cannot be written in a sweep file; remove it"
    return ""


def _type_problems(part: type, parameter: inspect.Parameter, value: object) -> Iterator[str]:
    if parameter.annotation is inspect.Parameter.empty:
        return
    holder = type("Holder", (), {"__annotations__": {"it": parameter.annotation}})
    try:
        hint = typing.get_type_hints(holder, vars(sys.modules[part.__module__]))["it"]
        adapter = TypeAdapter(hint, config=None if inspect.isclass(hint) else ConfigDict(strict=True))
    except (NameError, TypeError, PydanticSchemaGenerationError):
        # Optuna imports some names for type checkers only.
        return
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Input ")
        yield f"{message}; found {value!r}"


def _refusals(call: Any, *arguments: object) -> Iterator[Exception]:
    try:
        with quiet():
            call(*arguments)
    except _REFUSALS as error:
        yield error


def _refused(error: Exception) -> str:
    return f"Optuna refuses this: {str(error) or type(error).__name__}"


def _tree(given: Mapping[str, Any], path: DocPath) -> Iterator[tuple[str, Mapping[str, Any], DocPath]]:
    """Yield a part and the parts that it is made of: name, options, place."""
    yield given["name"], given, path
    for option, value in given.items():
        if isinstance(value, Mapping) and "name" in value:
            yield from _tree(value, (*path, option))


def _samplers(search: Search) -> list[tuple[str, Mapping[str, Any], DocPath]]:
    return list(_tree({"name": search.sampler.name, **search.sampler.options}, ("sampler",)))


def _sampler_problems(search: Search) -> Found:
    for name, given, path in _samplers(search):
        if name == "CmaEsSampler":
            if len(search.objective.metrics) > 1:
                yield (*path, "name"), "CmaEsSampler takes one metric; NSGAIISampler and TPESampler take several"
            if given.get("x0"):
                yield from _first_point_problems(search, given["x0"], (*path, "x0"))
        elif name == "PartialFixedSampler":
            fixed = {k: [v] for k, v in given["fixed_params"].items()}
            yield from _value_problems(search, fixed, (*path, "fixed_params"))
        elif name == "GridSampler":
            yield from _grid_problems(search, given["search_space"], (*path, "search_space"))
        elif name == "BruteForceSampler":
            for field, each in search.fields.items():
                if each.float_ is not None and each.step is None:
                    yield ("space", field), "has no end of values, and BruteForceSampler tries all; give it a step"
                elif (bounds := each.float_ or each.int_) is not None:
                    count = (bounds[1] - bounds[0]) / (each.step or 1) + 1
                    if count > MOST_TRIALS:
                        yield (
                            ("space", field),
                            f"has {count:.3g} values, and BruteForceSampler tries all; give it a step",
                        )


def _first_point_problems(search: Search, point: Mapping[str, Any], path: DocPath) -> Found:
    yield from _value_problems(search, {name: [value] for name, value in point.items()}, path)
    missing = [name for name, each in search.fields.items() if each.choice is None and name not in point]
    if missing:
        yield path, f"has no value of {', '.join(missing)}, which CmaEsSampler begins at, too"


def _grid_problems(search: Search, grid: object, path: DocPath) -> Found:
    if not isinstance(grid, Mapping):
        yield path, f"should be a mapping of fields to lists of values; found {grid!r}"
        return
    if bad := [name for name, values in grid.items() if not isinstance(values, list) or not values]:
        for name in bad:
            yield (*path, name), f"should be a list of values; found {grid[name]!r}"
        return
    missing = [name for name in search.fields if name not in grid]
    if missing:
        yield path, f"has no values of {', '.join(missing)}, which are searched for; add them, or fix them in the space"
    yield from _value_problems(search, grid, path)
    points = math.prod(len(values) for values in grid.values())
    if points > _MOST_POINTS:
        yield path, f"has {points} points, and GridSampler lists them all; keep to {_MOST_POINTS}"
    if search.trials > points and not missing:
        yield ("trials",), f"the grid of the sampler has {points} points; write trials: {points}, or add values"
    for place, start in enumerate(search.start):
        if isinstance(start, Mapping) and (lacks := [name for name in search.fields if name not in start]):
            yield ("start", place), f"has no value of {', '.join(lacks)}, which GridSampler does not choose by itself"


def _value_problems(search: Search, values: Mapping[str, Iterable[object]], path: DocPath) -> Found:
    fields = search.fields
    for name, those in values.items():
        if name not in fields:
            yield (*path, name), f"there is no field {name!r} to search for; {nearest(name, fields)}"
            continue
        for value in those:
            if not fields[name].contains(value):
                yield (*path, name), f"{value!r} is no value of the field {name!r}"


def _pruner_problems(search: Search) -> Found:
    if len(search.objective.metrics) > 1:
        yield ("pruner",), "a pruner compares trials by one metric; remove it, or search for one metric"
    if repetitions(search) < 2:
        yield ("pruner",), "ends trials between their repetitions, and there are none; add `over` to the objective"
    names = [name for name, *_ in _pruners(search)]
    if "WilcoxonPruner" in names[1:]:
        message = "WilcoxonPruner compares single repetitions, other pruners what they come to; use it alone"
        yield ("pruner", "wrapped_pruner"), message


#: What else has to fit, where names and options are right.
_FITS = {"sampler": _sampler_problems, "pruner": _pruner_problems}


def _pruners(search: Search) -> list[tuple[str, Mapping[str, Any], DocPath]]:
    if search.pruner is None:
        return []
    return list(_tree({"name": search.pruner.name, **search.pruner.options}, ("pruner",)))


def _rehearsed(search: Search) -> Iterator[tuple[str, Exception]]:
    """Let a study run over made-up results: some options are used only then."""
    if any(name == "GPSampler" for name, *_ in _samplers(search)):
        return  # It imports torch; what it refuses, it refuses when it is made.
    sampling = Sampling(search, {}, "rehearsal")
    steps = [float(step) for step in range(min(repetitions(search), _REHEARSED) if search.pruner else 0)]
    metrics, bounds = len(search.objective.metrics), len(search.constraints)
    for number in range(min(search.trials, _REHEARSED)):
        for error in _refusals(lambda number=number: json.dumps(sampling.suggest(number), allow_nan=False)):
            yield "sampler", error
            return
        for known in range(1, len(steps) + 1):
            for error in _refusals(sampling.judge, number, steps[:known]):
                yield "pruner", error
                return
        sampling.tell(Told(number, "complete", (float(number),) * metrics, (-1.0,) * bounds, tuple(steps)))


def notes(search: Search) -> list[str]:
    """List what is no mistake and yet does less than it seems; only for a search without `problems`."""
    return [*_step_notes(search), *_sampler_notes(search), *_pruner_notes(search)]


def _step_notes(search: Search) -> Iterator[str]:
    for name, field in search.fields.items():
        if (bounds := field.float_ or field.int_) is not None:
            highest = getattr(distribution(field), "high", bounds[1])
            if highest != bounds[1]:
                yield f"{name}: the highest value is {highest}, the last step before {bounds[1]}"


def _sampler_notes(search: Search) -> Iterator[str]:
    name, options = core(search)
    conditional = [field for field, each in search.fields.items() if set(each.when) & set(search.fields)]
    if conditional and (name in ("CmaEsSampler", "GPSampler") or (name == "TPESampler" and not options.get("group"))):
        how = "one by one; with `group: true` it samples them together" if name == "TPESampler" else "at random"
        yield f"{name} samples fields that some trials lack ({', '.join(conditional)}) {how}"
    if name == "CmaEsSampler":
        always = [field for field in search.fields if field not in conditional]
        choices = [field for field in always if search.fields[field].choice is not None]
        if len(always) - len(choices) < 2:
            yield "CmaEsSampler samples two numbers or more that all trials have; with fewer it chooses at random"
        elif choices:
            yield f"CmaEsSampler samples numbers, and chooses {', '.join(choices)} at random"
    if search.constraints and name not in _HEED_CONSTRAINTS:
        yield f"{name} does not look at constraints; the best trial is still one that keeps to them"
    if any(isinstance(start, From) for start in search.start):
        if name not in _HEED_EARLIER:
            yield f"{name} does not look at the results in `start`"
        if search.pruner is not None and search.pruner.name == "WilcoxonPruner":
            yield "WilcoxonPruner ends no trial as long as a result in `start` is the best: its repetitions are unknown"


def _pruner_notes(search: Search) -> Iterator[str]:
    if search.pruner is None:
        return
    name, has = search.pruner.name, repetitions(search)
    known = {
        option: each.default for option, each in parameters_of(PRUNERS.parts[name]).items()
    } | search.pruner.options
    needed, why = _needed(name, known)
    if needed == math.inf:
        yield f"{name} ends no trial: {why}" if why else f"{name} ends no trial"
    elif needed >= has:
        yield f"{name} can end no trial early: {why} takes {needed} repetitions, and a trial has {has}"
    elif name == "WilcoxonPruner":
        yield f"WilcoxonPruner can end a trial after {needed} of its {has} repetitions, not before: {why}"
    startup = known.get("n_startup_trials", 0)
    if startup >= search.trials:
        yield f"{name} can end no trial early: n_startup_trials: {startup}, and a study has {search.trials} trials"


def _needed(name: str, options: Mapping[str, Any]) -> tuple[float, str]:
    """Return after how many repetitions a pruner can end a trial at the earliest, and the option that says so."""
    if name == "WilcoxonPruner":
        p, startup = options["p_threshold"], options["n_startup_steps"]
        # No signed-rank test of n pairs has a smaller p than 2**-n.
        least = next(n for n in count(1) if 2.0**-n < p) if p > 0 else math.inf
        return (startup, f"n_startup_steps: {startup}") if startup > least else (max(2, least), f"p_threshold: {p}")
    if name == "PatientPruner":
        return options["patience"] + 2, f"patience: {options['patience']}"
    if name == "NopPruner":
        return math.inf, ""
    if "n_warmup_steps" in options:
        return options["n_warmup_steps"] + 1, f"n_warmup_steps: {options['n_warmup_steps']}"
    # Repetitions are counted from 0; `auto` is one repetition for all that have fewer than 200.
    resource = 1 if options["min_resource"] == "auto" else options["min_resource"]
    skipped = options.get("min_early_stopping_rate", 0)
    return resource * options["reduction_factor"] ** skipped + 1, f"min_resource: {options['min_resource']}"

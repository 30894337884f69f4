"""How a search fits into the rest of its sweep: the axes that it adds, and the mistakes in it.

What Optuna has to say of it is in `orchestrator.search.options`; whether stages read it, in `orchestrator.plan.checks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.sweep.axis_values import value_messages
from orchestrator.sweep.problems import DocPath, Problem
from orchestrator.sweep.search import TRIAL, Search, SpaceField
from orchestrator.sweep.spec import SweepSpec
from orchestrator.texts import nearest
from orchestrator.types import RESERVED_NAMES


def add_axes(spec: SweepSpec) -> SweepSpec:
    """Return a sweep with the axes of its search: those in `per`, then the trials, then those of the repetitions."""
    search = spec.searched
    if search is None:
        return spec
    axes: dict[str, Any] = {axis: each for axis, each in spec.axes.items() if axis not in search.objective.over}
    axes[TRIAL] = list(range(search.trials))
    for axis, values in search.objective.over.items():
        axes[axis] = spec.axes.get(axis, [*values, *search.fresh.get(axis, ())])
    added = spec.model_copy(update={"axes": axes})
    added._document, added._hidden, added._available = spec._document, spec._hidden, spec._available
    return added


def search_problems(spec: SweepSpec) -> list[Problem]:
    """Find the mistakes in the search of a sweep whose axes are still those that are written."""
    if len(spec.search) > 1:
        message = "a sweep has one search; write another sweep for the other"
        return [spec.problem(("search", list(spec.search)[1]), message)]
    return [
        spec.problem(("search", name, *path), message)
        for name, search in spec.search.items()
        for path, message in (
            *_name_messages(spec, name),
            *_axis_messages(spec, search),
            *_space_messages(spec, search),
        )
    ]


def _name_messages(spec: SweepSpec, name: str) -> Iterator[tuple[DocPath, str]]:
    if not name.isidentifier() or len(name) > 100:
        yield (), f"{name!r} cannot name a search: use up to 100 letters, digits and _"
    elif name in spec.axes or name.lower() in RESERVED_NAMES:
        why = "an axis has that name" if name in spec.axes else "it is a name of our own"
        yield (), f"{name!r} cannot name a search: {why}"


def _unfit_name(name: str) -> str:
    """Say why a column cannot have a name; empty where it can."""
    if name.lower() in RESERVED_NAMES:
        return "it is a name of our own"
    return "" if name.isidentifier() and len(name) <= 100 else "use up to 100 letters, digits and _"


def _axis_messages(spec: SweepSpec, search: Search) -> Iterator[tuple[DocPath, str]]:
    over = search.objective.over
    for axis, values in over.items():
        where: DocPath = ("objective", "over", axis)
        if not values:
            yield where, "has no values, so a trial has no repetitions; leave the axis out, or give values"
        for path, message in value_messages(values):
            yield (*where, *path), message
        fresh = search.fresh.get(axis, [])
        if axis in spec.axes and spec.understood("axes", axis):
            labels = spec.labels(axis)
            for value in values:
                if value not in labels:
                    yield where, f"{value!r} is no value of {axis!r}; {nearest(value, labels)}"
            if idle := [label for label in labels if label not in values and label not in fresh]:
                yield where, f"axes.{axis} has {idle[0]!r}, at which no trial is measured; leave it out there"
        elif why := _unfit_name(axis):
            yield where, f"{axis!r} cannot name an axis: {why}"
    for axis, values in search.fresh.items():
        where = ("fresh", axis)
        if axis not in over:
            yield where, f"{axis!r} is no axis of objective.over; {nearest(axis, over)}"
            continue
        for path, message in value_messages(values):
            yield (*where, *path), message
        if not values:
            yield where, "has no values; leave it out, or give some"
        elif used := [value for value in values if value in over[axis]]:
            yield where, f"{used[0]!r} is one of the values that trials are chosen by; fresh ones are others"
        elif axis in spec.axes and spec.understood("axes", axis):
            for value in values:
                if value not in spec.labels(axis):
                    yield where, f"{value!r} is no value of {axis!r}; {nearest(value, spec.labels(axis))}"
    per = [axis for axis in spec.axes if axis not in over]
    for index, axis in enumerate(search.per or ()):
        if axis in over:
            yield ("per", index), f"{axis!r} is in objective.over too: trials are repeated along it; write it in one"
        elif axis not in per:
            yield ("per", index), f"there is no axis {axis!r}; {nearest(axis, per)}"
        elif axis in (search.per or ())[:index]:
            yield ("per", index), f"{axis!r} is there twice; keep one"
    if search.per is not None and set(search.per) <= set(per):
        for axis in per:
            if axis not in search.per and spec.understood("axes", axis):
                yield (
                    ("per",),
                    (
                        f"axis {axis!r} is neither here nor in objective.over: is there a study for each of its values "
                        "(write it here), or is each trial repeated at all of them (write it there)?"
                    ),
                )


def _space_messages(spec: SweepSpec, search: Search) -> Iterator[tuple[DocPath, str]]:
    per = {axis: spec.labels(axis) for axis in spec.axes if axis not in search.objective.over}
    earlier: dict[str, SpaceField] = {}
    for name, value in search.space.items():
        where: DocPath = ("space", name)
        if why := "`start` uses it" if name == "from" else _unfit_name(name):
            yield where, f"{name!r} cannot name a field: {why}"
        elif name.lower() in {axis.lower() for axis in (*spec.axes, *search.objective.over)}:
            yield (
                where,
                f"{name!r} is an axis too, which would be one column; rename the field",
            )
        elif name.lower() in {each.lower() for each in search.space if each != name}:
            yield where, "differs from another field only in case, and would be one column"
        if not isinstance(value, SpaceField):
            continue
        if value.default is not None and (why := value.refusal(value.default)):
            yield (*where, "default"), why
        for other, wanted in value.when.items():
            there: tuple[Any, ...]
            if other in earlier:
                there = earlier[other].labels
                if not there:
                    yield (*where, "when", other), f"{other!r} has no choices; make it a choice, or leave this out"
                    continue
            elif other in per:
                there = per[other]
            else:
                known = [*per, *earlier]
                message = f"{other!r} is neither an axis of `per` nor a field before this one; {nearest(other, known)}"
                yield (*where, "when", other), message
                continue
            for each in wanted if isinstance(wanted, list) else [wanted]:
                if each not in there:
                    yield (*where, "when", other), f"{each!r} is no value of {other!r}; {nearest(each, there)}"
        earlier[name] = value
    yield from _start_messages(search)


def _start_messages(search: Search) -> Iterator[tuple[DocPath, str]]:
    fields = search.fields
    trials = 0
    for index, each in enumerate(search.start):
        if each == "defaults" or isinstance(each, Mapping):
            trials += 1
        if not isinstance(each, Mapping):
            continue
        for name, label in each.items():
            if name == "from":
                yield ("start", index, name), "stands alone, and names a sweep file: {from: SWEEP.yaml}"
            elif name not in fields:
                yield ("start", index, name), f"there is no such field; {nearest(name, fields)}"
            elif why := fields[name].refusal(label):
                yield ("start", index, name), why
    if trials > search.trials:
        yield ("trials",), f"{search.trials} trials are fewer than the {trials} that `start` asks for"

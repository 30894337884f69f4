"""References, `$axis`, `$axis.field`, `$search.field` and `{tuned: …}`: all in a sweep file that is not written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.sweep.problems import DocPath, Problem
from orchestrator.sweep.search import TRIAL
from orchestrator.sweep.spec import SweepSpec
from orchestrator.sweep.tuned import Tuned, is_tuned, parse_tuned, tuned_parts
from orchestrator.texts import nearest
from orchestrator.types import Scalar


class UnresolvedError(LookupError):
    """A reference without a value; `reference_problems` says why, or a mistake in its axis hides it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name
        """Name of the axis or field that does not exist."""


class AbsentError(UnresolvedError):
    """A reference to a field of the search that does not exist with the values of the others."""


def is_reference(value: Any) -> bool:
    """Tell whether a value is written as `$name` or `$name.field`."""
    return isinstance(value, str) and value.startswith("$")


def references(value: Any, where: DocPath = ()) -> Iterator[tuple[DocPath, str]]:
    """Yield all references inside a value, each with its path."""
    if is_reference(value):
        yield where, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from references(item, (*where, name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from references(item, (*where, index))


def axes_of(spec: SweepSpec, value: Any) -> frozenset[str]:
    """Return the axes that a value depends on; what is searched for depends on the trial of its study."""
    heads = {text[1:].split(".")[0] for _, text in references(value)}
    if spec.search_name in heads:
        heads |= {*spec.study_axes, TRIAL}
    return frozenset(heads & set(spec.axes))


def is_searched(spec: SweepSpec, value: Any) -> bool:
    """Tell whether a value refers to what is searched for."""
    return spec.search_name is not None and any(
        text[1:].split(".")[0] == spec.search_name for _, text in references(value)
    )


def substitute(spec: SweepSpec, value: Any, coords: Mapping[str, Any]) -> Any:
    """Return the value with every reference replaced by what it refers to.

    Args:
        spec: the sweep.
        value: what is written.
        coords: axis -> label; and under the name of a search its values (`Search.meant`).

    Raises:
        UnresolvedError: a reference has no value.
    """
    if is_reference(value):
        return resolve(spec, value, coords)
    if is_tuned(value):
        return _tuned_value(spec, value, coords)
    if isinstance(value, dict):
        return {name: substitute(spec, item, coords) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [substitute(spec, item, coords) for item in value]
    return value


def resolve(spec: SweepSpec, reference: str, coords: Mapping[str, Any]) -> Any:
    """Return the value of a reference; `substitute` explains the coordinates.

    Raises:
        AbsentError: it is a field of the search that does not exist here.
        UnresolvedError: there is no such axis or field.
    """
    head, *fields = reference[1:].split(".")
    if head == "data" and spec.data is not None:
        value = spec.data
    elif spec.searched and head == spec.search_name and head in coords:
        value = coords[head]
        if fields and fields[0] in spec.searched.space and fields[0] not in value:
            raise AbsentError(fields[0])
    elif head in spec.axes:
        value = spec.value(head, coords[head])
    else:
        raise UnresolvedError(head)
    for name in fields:
        if not isinstance(value, dict) or name not in value:
            raise UnresolvedError(name)
        value = value[name]
    return value


def tuned_at(spec: SweepSpec, tuned: Tuned, coords: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return the coordinates of the study that is meant, where those of this sweep are `coords`.

    Raises:
        UnresolvedError: a reference has no value.
    """

    def label(each: Any) -> Any:
        # Of an axis it is the name of a value, and not its fields.
        return coords[each[1:]] if is_reference(each) and each[1:] in coords else substitute(spec, each, coords)

    return {axis: label(each) for axis, each in tuned.at.items()}


def _tuned_value(spec: SweepSpec, value: Mapping[str, Any], coords: Mapping[str, Any]) -> Any:
    try:
        tuned = parse_tuned(value)
    except ValueError:
        raise UnresolvedError("tuned") from None
    found = spec.tuned_values(tuned.source, tuned_at(spec, tuned, coords))
    if found is None:
        raise UnresolvedError("tuned")
    if tuned.field is None:
        return dict(found)
    if tuned.field not in found:
        raise AbsentError(tuned.field)
    return found[tuned.field]


def _tuned_problems(spec: SweepSpec, where: DocPath, value: Mapping[str, Any]) -> Iterator[Problem]:
    """Find mistakes in how a tuned result is written; what it means is looked up when a sweep is opened."""
    try:
        tuned = parse_tuned(value)
    except ValueError as error:
        yield spec.problem((*where, "tuned"), str(error))
        return
    for path, text in references(tuned.at, (*where, "for")):
        if is_searched(spec, text):
            yield spec.problem(path, f"{text} is searched for, and the study must be known before; refer to an axis")
    if not spec.knows_tuned:
        message = "is looked up in the store when a sweep is opened (`open_session`); this one was only loaded"
        yield spec.problem((*where, "tuned"), message)


def origin_of(spec: SweepSpec, reference: str, coords: Mapping[str, Scalar]) -> DocPath:
    """Return where in the document the value of a reference is written; the reference must have a value."""
    head, *fields = reference[1:].split(".")
    if head == "data":
        return ("data", *fields)
    if head == spec.search_name:
        return ("search", head, "space", *fields)
    values, label = spec.axes[head], coords[head]
    return ("axes", head, values.index(label) if isinstance(values, list) else str(label), *fields)


def reference_problems(spec: SweepSpec, where: DocPath, value: Any) -> Iterator[Problem]:
    """Find the references to an axis that does not exist, or to a field that some value of the axis lacks."""
    for path, part in tuned_parts(value, where):
        yield from _tuned_problems(spec, path, part)
    for path, text in references(value, where):
        head, *fields = text[1:].split(".")
        if not (spec.understood("axes", head) and (head != "data" or spec.understood("data"))):
            continue
        if spec.searched and head == spec.search_name:
            if fields and fields[0] not in spec.searched.space:
                hint = nearest(fields[0], spec.searched.space)
                yield spec.problem(path, f"{text}: the space of the search has no {fields[0]!r}; {hint}")
        elif head == "data" and spec.data is None:
            yield spec.problem(path, f"{text} refers to data:, which the sweep does not have")
        elif head != "data" and head not in spec.axes:
            hint = nearest(head, [*spec.axes, *spec.search, "data"])
            yield spec.problem(path, f"{text} refers to no axis; {hint}")
        elif head != "data" and fields and isinstance(spec.axes[head], list):
            yield spec.problem(path, f"{text}: the values of {head!r} are plain, they have no fields; write ${head}")
        else:
            for label in [None] if head == "data" else spec.labels(head):
                try:
                    resolve(spec, text, {} if label is None else {head: label})
                except UnresolvedError as error:
                    owner = spec.data if label is None else spec.value(head, label)
                    name = "data" if label is None else f"value {label!r} of {head!r}"
                    known = list(owner) if isinstance(owner, dict) else []
                    yield spec.problem(path, f"{text}: {name} has no {error.name!r}; {nearest(error.name, known)}")

"""`$axis` and `$axis.field`: the only thing in a sweep file that is not written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.sweep.problems import DocPath, Problem, nearest
from orchestrator.sweep.spec import SweepSpec
from orchestrator.types import Scalar


def is_reference(value: Any) -> bool:
    """Whether a value is written as `$name` or `$name.field`."""
    return isinstance(value, str) and value.startswith("$")


def references(value: Any, where: DocPath = ()) -> Iterator[tuple[DocPath, str]]:
    """All references inside a value, each with its path."""
    if is_reference(value):
        yield where, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from references(item, (*where, name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from references(item, (*where, index))


def axes_of(spec: SweepSpec, value: Any) -> frozenset[str]:
    """The axes that a value depends on."""
    heads = {text[1:].split(".")[0] for _, text in references(value)}
    return frozenset(heads & set(spec.axes))


def substitute(spec: SweepSpec, value: Any, coords: Mapping[str, Scalar]) -> Any:
    """The value with every reference filled in. References must be valid (`reference_problems` is empty)."""
    if is_reference(value):
        return resolve(spec, value, coords)[0]
    if isinstance(value, dict):
        return {name: substitute(spec, item, coords) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [substitute(spec, item, coords) for item in value]
    return value


def resolve(spec: SweepSpec, reference: str, coords: Mapping[str, Scalar]) -> tuple[Any, DocPath]:
    """What a reference stands for, and where in the document that is written.

    Raises:
        KeyError: there is no such field; the argument is the field's name.
    """
    head, *fields = reference[1:].split(".")
    where: DocPath
    if head == "data":
        value, where = spec.data, ("data",)
    else:
        value, where = spec.value(head, coords[head]), ("axes", head, coords[head])  # type: ignore[assignment]
    for name in fields:
        if not isinstance(value, dict) or name not in value:
            raise KeyError(name)
        value, where = value[name], (*where, name)
    return value, where


def reference_problems(spec: SweepSpec, where: DocPath, value: Any) -> list[Problem]:
    """One problem per reference to an axis that is not there, or to a field that some value of the axis lacks."""
    problems = []
    for path, text in references(value, where):
        head, *fields = text[1:].split(".")
        if head == "data" and spec.data is None:
            problems.append(spec.problem(path, f"{text} refers to data:, which the sweep does not have"))
        elif head != "data" and head not in spec.axes:
            hint = nearest(head, [*spec.axes, "data"])
            problems.append(spec.problem(path, f"{text} refers to no axis; {hint}"))
        elif head != "data" and fields and isinstance(spec.axes[head], list):
            problems.append(
                spec.problem(path, f"{text}: the values of {head!r} are plain, they have no fields; write ${head}")
            )
        else:
            for label in [None] if head == "data" else spec.labels(head):
                try:
                    resolve(spec, text, {} if label is None else {head: label})
                except KeyError as error:
                    owner = spec.data if label is None else spec.value(head, label)
                    name = "data" if label is None else f"value {label!r} of {head!r}"
                    known = list(owner) if isinstance(owner, dict) else []
                    problems.append(
                        spec.problem(path, f"{text}: {name} has no {error.args[0]!r}; {nearest(error.args[0], known)}")
                    )
    return problems

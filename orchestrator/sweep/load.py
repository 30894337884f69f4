"""From a sweep file to a `SweepSpec`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.redact import redact
from orchestrator.sweep.document import read_document
from orchestrator.sweep.files import resolve_files
from orchestrator.sweep.overrides import override
from orchestrator.sweep.problems import DocPath, Problem, SweepError, nearest, validation_messages
from orchestrator.sweep.spec import SweepSpec
from orchestrator.sweep.stages import stage_table
from orchestrator.types import Scalar


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> SweepSpec:
    """Read, override and validate a sweep file; local files in it (`{path: …}`) are fingerprinted.

    Raises:
        SweepError: with one problem per mistake, each with its place.
    """
    document = read_document(path)
    override(document, overrides)
    problems = resolve_files(document)
    try:
        spec = SweepSpec.model_validate(document.value)
    except ValidationError as error:
        messages = validation_messages(error, document, (), SweepSpec)
        problems += [document.problem(where, message) for where, message in messages.items()]
        raise SweepError(problems) from None
    spec._document = document
    spec._table, unusable = stage_table(spec.uses, path.parent.absolute())
    problems += [spec.problem(("uses", position), message) for position, message in unusable.items()]
    problems += _axis_problems(spec)
    if spec.tracking and spec.tracking.uri and redact(spec.tracking.uri) != spec.tracking.uri:
        # MLflow keeps this file with the sweep's run, and a Ray job is given a copy.
        message = "a sweep file is shown to others, so it holds no password; export the URI as MLFLOW_TRACKING_URI"
        problems.append(spec.problem(("tracking", "uri"), message))
    if problems:
        raise SweepError(problems)
    return spec


def _axis_problems(spec: SweepSpec) -> list[Problem]:
    problems = []
    if not spec.axes:
        problems.append(spec.problem(("axes",), "a sweep has at least one axis, e.g. seed: [0]"))
    names: dict[str, str] = {}
    for axis, values in spec.axes.items():
        # SQL reads column names without regard to case.
        if axis.lower() in RESERVED_NAMES:
            problems.append(spec.problem(("axes", axis), f"{axis!r} cannot name an axis: it is a name of our own"))
        elif not axis.isidentifier():
            problems.append(spec.problem(("axes", axis), f"{axis!r} cannot name an axis: use letters, digits and _"))
        elif (other := names.setdefault(axis.lower(), axis)) != axis:
            message = f"{axis!r} cannot name an axis: it differs from {other!r} only in case"
            problems.append(spec.problem(("axes", axis), message))
        if not values:
            problems.append(spec.problem(("axes", axis), "has no values, so the sweep has zero cells"))
        if isinstance(values, list):
            problems += _value_problems(spec, axis, values)
    for index, pattern in enumerate(spec.exclude):
        problems += pattern_problems(spec, ("exclude", index), pattern)
    return problems


def _value_problems(spec: SweepSpec, axis: str, values: Sequence[Any]) -> list[Problem]:
    problems = []
    seen: set[Scalar] = set()
    for index, value in enumerate(values):
        if not isinstance(value, str | int | float):
            message = f"is no value of an axis (text, number, true or false); found {value!r}"
        elif isinstance(value, float) and not math.isfinite(value):
            message = f"{value} is not a coordinate; give a number"
        elif value in seen:
            # 1 and true are one dictionary key, so they cannot be two coordinates.
            message = f"{value!r} is there twice; keep one"
        else:
            seen.add(value)
            continue
        problems.append(spec.problem(("axes", axis, index), message))
    return problems


def pattern_problems(spec: SweepSpec, where: DocPath, pattern: Mapping[str, Any]) -> list[Problem]:
    """Mistakes in {axis: value or values}: no such axis, no such value."""
    problems = []
    for axis, wanted in pattern.items():
        if axis not in spec.axes:
            problems.append(spec.problem((*where, axis), f"there is no axis {axis!r}; {nearest(axis, spec.axes)}"))
            continue
        labels = spec.labels(axis)
        for value in wanted if isinstance(wanted, list) else [wanted]:
            if value not in labels:
                problems.append(
                    spec.problem((*where, axis), f"{value!r} is no value of {axis!r}; {nearest(value, labels)}")
                )
    return problems


#: Columns of the results table that are not coordinates, and the first words of other references.
RESERVED_NAMES = (
    "cell_id",
    "status",
    "error_class",
    "error",
    "attempts",
    "seconds",
    "key",
    "code_commit",
    "log",
    "undefined",
    "data",
    "env",
)

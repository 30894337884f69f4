"""From a sweep file to a `SweepSpec`."""

from __future__ import annotations

import copy
import math
import re
import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.namesakes import namesakes
from orchestrator.redact import redact_uris
from orchestrator.study import StageError
from orchestrator.study.modules import study_at
from orchestrator.study.table import StageTable
from orchestrator.sweep.axis_values import value_messages
from orchestrator.sweep.document import Document, read_document
from orchestrator.sweep.files import resolve_files
from orchestrator.sweep.overrides import override
from orchestrator.sweep.problems import (
    MOST_TOLD,
    UNKNOWN_FIELD,
    DocPath,
    Problem,
    SweepError,
    told,
    validation_messages,
)
from orchestrator.sweep.searched import add_axes, search_problems
from orchestrator.sweep.spec import Entry, SweepSpec
from orchestrator.texts import closest, nearest
from orchestrator.types import RESERVED_NAMES

#: A plan of a million cells takes some 20 s and a gigabyte; more than ten times that is a slip in the axes.
MOST_CELLS = 10_000_000


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> SweepSpec:
    """Read, override and validate a sweep file; local files in it (`{path: …}`) are fingerprinted.

    Raises:
        SweepError: with one problem per mistake, each with its place.
    """
    spec = draft_sweep(path, overrides)
    if spec.problems:
        raise SweepError(spec.problems)
    return spec


def draft_sweep(path: Path, overrides: Sequence[str] = ()) -> SweepSpec:
    """Read a sweep file as far as it is understood; see `draft_document`.

    Raises:
        SweepError: the file is no YAML mapping, or an override cannot be made.
    """
    return draft_document(read_document(path), overrides)


def draft_document(document: Document, overrides: Sequence[str] = ()) -> SweepSpec:
    """Read a sweep as far as it is understood, so that `build_plan` can tell all of its mistakes at once.

    Args:
        document: what was written; it is overridden, and its local files are resolved, in place.
        overrides: what `-s` changes of it, as `path=value`.

    Returns:
        A sweep of the parts without mistakes; `problems` has these, and `understood` says what they hide.

    Raises:
        SweepError: an override cannot be made; or a module beside the sweep, or in the working directory, is called
            like a package of ours.
    """
    # Nothing else is told of the file: a mistake of its modules may only be that they are not the ones it means.
    if others := [Problem(str(place), "", message) for place, message in namesakes(document.path.parent, Path())]:
        raise SweepError(others)
    override(document, overrides)
    problems = [*_odd_texts(document), *resolve_files(document)]
    hidden: set[DocPath] = set()
    try:
        spec = SweepSpec.model_validate(document.value)
    except ValidationError as error:
        messages = validation_messages(error, document, (), SweepSpec)
        problems += [document.problem(where, message) for where, message in messages.items()]
        hidden = _hidden_by(messages, document.value)
        spec = SweepSpec.model_validate(_without(document.value, hidden))
    study = study_at(document.path.parent)
    study.refresh()
    spec._available = StageTable(study, spec.namespace)
    for position, module in enumerate(spec.uses):
        try:
            spec._available.use(module)
        except StageError as error:
            problems.append(document.problem(("uses", position), str(error)))
            hidden.add(("uses",))
    spec._document, spec._hidden = document, frozenset(hidden)
    if not spec.axes and not spec.search and spec.understood("axes"):
        problems.append(spec.problem(("axes",), "a sweep has at least one axis, e.g. seed: [0]"))
        hidden.add(("axes",))
    unfit = _axis_problems(spec)
    problems += [problem for each in unfit.values() for problem in each]
    spec = spec.model_copy(update={"axes": {name: each for name, each in spec.axes.items() if name not in unfit}})
    spec._hidden = frozenset(hidden | {("axes", axis) for axis in unfit})
    if (amiss := search_problems(spec)) or not spec.understood("search"):
        # What it adds to the rest is not known.
        problems += amiss
        spec = spec.model_copy(update={"search": {}})
        spec._hidden |= {("axes",), ("stages",), ("search",)}
    spec = add_axes(spec)
    cells = math.prod(map(len, spec.axes.values()))
    if cells > MOST_CELLS:
        # To look for other mistakes, points are looked at.
        message = f"span {cells:,}" if cells < 10**15 else "span more than 10^15"
        raise SweepError([*problems, spec.problem(("axes",), f"{message} cells; a sweep has at most {MOST_CELLS:,}")])
    problems += _entry_names(spec)
    problems += told(
        problem
        for index, pattern in enumerate(spec.exclude)
        for problem in pattern_problems(spec, ("exclude", index), pattern)
    )
    if spec.tracking and spec.tracking.uri and redact_uris(spec.tracking.uri) != spec.tracking.uri:
        # MLflow keeps this file with the sweep's run, and a Ray job is given a copy.
        message = "a sweep file is shown to others, so it holds no password; export the URI as MLFLOW_TRACKING_URI"
        problems.append(spec.problem(("tracking", "uri"), message))
    spec._problems = tuple(problems)
    return spec


def _odd_texts(document: Document) -> list[Problem]:
    """Find the texts that no file, table or database can hold; in a config the zero byte is a character like others."""

    def visit(value: Any, where: DocPath) -> Iterator[Problem]:
        if isinstance(value, str):
            yield from _odd_text(value, where)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from visit(item, (*where, index))
        elif isinstance(value, dict):
            for name, item in value.items():
                yield from _odd_text(name, (*where, name))
                yield from visit(item, (*where, name))

    def _odd_text(text: str, where: DocPath) -> Iterator[Problem]:
        free = where[:1] == ("data",) or (where[:1] == ("stages",) and where[2:3] == ("config",))
        if found := (_HALF if free else _ODD).search(text):
            known = where if where in document else where[:-1]
            what = "is no character of a text" if found[0] == "\0" else "is half a character; write the whole one"
            yield document.problem(known, f"{found[0]!r} {what}")

    return told(visit(document.value, ()))


_HALF, _ODD = re.compile("[\ud800-\udfff]"), re.compile("[\x00\ud800-\udfff]")
#: How an entry may be called: its name stands in references, options and columns.
_ENTRY = re.compile(r"\w[\w.-]{0,99}")


def _entry_names(spec: SweepSpec) -> list[Problem]:
    """Find the names that no entry can have."""
    names: dict[str, str] = {}

    def unfit(name: str) -> str | None:
        if name == "default":
            return "stands for all entries in `runtime`"
        if not _ENTRY.fullmatch(name):
            return "use up to 100 letters, digits and . _ -, a letter or digit first"
        if (other := names.setdefault(unicodedata.normalize("NFC", name), name)) != name:
            return f"it is shown like {other!a}, which has other characters"
        return None

    return told(
        spec.problem(("stages", name), f"{name!r} cannot name an entry: {why}")
        for name in spec.stages
        if (why := unfit(name))
    )


#: Part of a sweep -> how deep in it a mistake hides something; elsewhere it hides the whole part.
_DEPTHS = {"axes": 2, "exclude": 2, "runtime": 2, "stages": 3}
#: What stands for the parts that every sweep has, where they are hidden.
_STAND_INS = {"name": "unknown", "question": "unknown", "axes": {}, "stages": {}}


def _hidden_by(messages: Mapping[DocPath, str], value: Mapping[str, Any]) -> set[DocPath]:
    """Return what mistakes hide: the parts that they are in, and for a misspelt field the one that it may stand for."""
    hidden: set[DocPath] = set()
    for path, message in messages.items():
        hidden.add(path[: _DEPTHS.get(str(path[0]), 1)])
        if message.startswith(UNKNOWN_FIELD):
            *parents, name = path
            owner: Any = value
            for part in parents:
                owner = owner[part]
            fields = SweepSpec.model_fields if not parents else Entry.model_fields if parents[0] == "stages" else {}
            if meant := closest(name, [field for field in fields if field not in owner]):
                hidden.add((*parents, meant))
    return hidden


def _without(value: Mapping[str, Any], hidden: Iterable[DocPath]) -> dict[str, Any]:
    """Copy a sweep, leaving out what is hidden."""
    sound = copy.deepcopy(dict(value))
    for *parents, last in hidden:
        owner: Any = sound
        for part in parents:
            owner = owner[part]
        if isinstance(owner, list) or parents == ["stages"]:
            # Others count on its place or name.
            owner[last] = {}
        else:
            owner.pop(last, None)
    return _STAND_INS | sound


def _axis_problems(spec: SweepSpec) -> dict[str, list[Problem]]:
    """Return the mistakes of each axis that has some."""
    problems: dict[str, list[Problem]] = {}
    names: dict[str, str] = {}
    for axis, values in spec.axes.items():
        found: list[tuple[DocPath, str]] = []
        # SQL reads column names without regard to case.
        if axis.lower() in RESERVED_NAMES:
            found.append(((), f"{axis!r} cannot name an axis: it is a name of our own"))
        elif not axis.isidentifier():
            found.append(((), f"{axis!r} cannot name an axis: use letters, digits and _"))
        elif len(axis) > 100:
            found.append(((), "cannot name an axis: use up to 100 characters"))
        elif (other := names.setdefault(unicodedata.normalize("NFKC", axis).lower(), axis)) != axis:
            found.append(((), f"{axis!r} cannot name an axis: it differs from {other!r} only in case"))
        if not values:
            found.append(((), "has no values, so the sweep has zero cells"))
        found += islice(value_messages(values) if isinstance(values, list) else _label_messages(values), MOST_TOLD)
        if found:
            problems[axis] = [spec.problem(("axes", axis, *path), message) for path, message in found]
    return problems


def _label_messages(values: Iterable[str]) -> Iterator[tuple[DocPath, str]]:
    seen: dict[str, str] = {}
    for name in values:
        if (other := seen.setdefault(unicodedata.normalize("NFC", name), name)) != name:
            yield (name,), f"is shown like {other!a}, which has other characters; keep one"


def pattern_problems(spec: SweepSpec, where: DocPath, pattern: Mapping[str, Any]) -> Iterator[Problem]:
    """Find the mistakes in {axis: value or values}: no such axis, no such value."""
    for axis, wanted in pattern.items():
        if not spec.understood("axes", axis):
            continue
        if axis not in spec.axes:
            yield spec.problem((*where, axis), f"there is no axis {axis!r}; {nearest(axis, spec.axes)}")
            continue
        labels, known = spec.labels(axis), set(spec.labels(axis))
        for value in wanted if isinstance(wanted, list) else [wanted]:
            if not isinstance(value, Hashable) or value not in known:
                yield spec.problem((*where, axis), f"{value!r} is no value of {axis!r}; {nearest(value, labels)}")

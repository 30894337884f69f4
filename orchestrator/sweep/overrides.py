"""Overrides from the command line: `-s path=value`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import yaml

from orchestrator.sweep.document import DEEPEST, TOO_DEEP, Document, parse_value
from orchestrator.sweep.problems import DocPath, Problem, SweepError
from orchestrator.sweep.written_path import expand_home


def override(document: Document, assignments: Iterable[str]) -> None:
    """Apply `-s path=value` assignments in place; `axes.seed=[0,1]`, `stages.sft.config.epochs=1`.

    A relative `….path` is taken from the working directory, and `~` is the home folder, as a person at a shell expects.

    Raises:
        SweepError: an assignment without `=`, with a value that is not YAML, or into something that is no mapping.
    """
    problems = []
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        place = f"-s {assignment}"
        if not equals or not name:
            problems.append(Problem(place, "", "write -s path=value, e.g. -s axes.seed=[0,1]"))
            continue
        try:
            value = parse_value(text)
        except yaml.YAMLError as error:
            problems.append(Problem(place, name, f"the value is not valid YAML: {error}"))
            continue
        *parents, last = name.split(".")
        if len(parents) >= DEEPEST:
            problems.append(Problem(place, "", f"the place is {TOO_DEEP}"))
            continue
        if last == "path" and isinstance(value, str) and value and not value.startswith("$env."):
            # What cannot be a path is told where it stands.
            with contextlib.suppress(OSError):
                value = str(expand_home(value).absolute())
        target: Any = document.value
        where: DocPath = ()
        try:
            for part in parents:
                where = (*where, _key(target, part))
                if isinstance(target, dict) and part not in target:
                    target[part] = {}
                    document.places[where] = place
                target = target[where[-1]]
            if not isinstance(target, dict | list):
                raise TypeError
            where = (*where, _key(target, last))
            target[where[-1]] = value  # type: ignore[index]
        except (KeyError, IndexError, TypeError, ValueError):
            problems.append(Problem(place, name, "there is no such place in the sweep to set"))
            continue
        for known in [known for known in document.places if known[: len(where)] == where]:
            del document.places[known]
        _note(document, value, where, place)
    if problems:
        raise SweepError(problems)


def _note(document: Document, value: Any, where: DocPath, place: str) -> None:
    """Note for every part of a value that it was written in this override."""
    document.places[where] = place
    for part, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        _note(document, item, (*where, part), place)


def _key(target: Any, part: str) -> str | int:
    """Return a part of an override's path as a key: only a list is indexed by number, names may look like one."""
    return int(part) if isinstance(target, list) and part.isdecimal() else part

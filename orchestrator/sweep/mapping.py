"""A sweep that is given as values instead of a file, and the file that says the same."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import yaml

from orchestrator.sweep.document import (
    DEEPEST,
    LARGEST,
    MOST_PARTS,
    SCALARS,
    TOO_DEEP,
    TOO_MANY,
    Document,
)
from orchestrator.sweep.problems import DocPath, Problem, SweepError, format_path
from orchestrator.texts import plain_text


def document_of(sweep: Mapping[str, Any], folder: Path) -> Document:
    """Copy a sweep that was given as values. What it holds is what a YAML file could: mappings, lists, scalars.

    Tuples and ranges count as lists, paths as texts.

    Args:
        sweep: the values.
        folder: where relative paths start from, and where modules of stages are looked for.

    Raises:
        SweepError: with every value that YAML has not, and every key that is no text.
    """
    reader = _Reader()
    value = reader.read(sweep, ())
    if reader.problems:
        raise SweepError(reader.problems)
    return Document(folder / "sweep.yaml", value, dict.fromkeys(reader.paths, ""))


class _Reader:
    """Turns values into plain ones, and notes the path of each."""

    def __init__(self) -> None:
        self.paths: list[DocPath] = []
        self.problems: list[Problem] = []
        self._open: set[int] = set()
        self._characters = 0

    def read(self, value: Any, where: DocPath) -> Any:
        """Read a part. Raises SweepError where a file could not hold so much (`orchestrator.sweep.document`)."""
        self.paths.append(where)
        self._characters += len(value) if isinstance(value, str) else 0
        if len(where) > DEEPEST or len(self.paths) > MOST_PARTS or self._characters > LARGEST:
            message = TOO_DEEP if len(where) > DEEPEST else TOO_MANY
            raise SweepError([Problem("", format_path(where[:3]), message)])
        if value is None or isinstance(value, bool):
            return value
        # Other kinds of these, such as enumerations and numpy's int64 and float64, count as what they stand for.
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, Integral):
            return int(value)
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, os.PathLike):
            return os.fsdecode(value)
        if not isinstance(value, Mapping | list | tuple | range):
            wanted = "give a mapping, a list, a text, a plain number, a bool or None"
            return self._refuse(where, f"is of type {type(value).__name__}; {wanted}")
        if id(value) in self._open:
            return self._refuse(where, "contains itself")
        self._open.add(id(value))
        try:
            if isinstance(value, Mapping):
                return self._mapping(value, where)
            return [self.read(item, (*where, index)) for index, item in enumerate(value)]
        finally:
            self._open.discard(id(value))

    def _mapping(self, value: Mapping[Any, Any], where: DocPath) -> dict[str, Any]:
        mapping = {}
        for key, item in value.items():
            if isinstance(key, str):
                name = str.__str__(key)
                mapping[name] = self.read(item, (*where, name))
            else:
                self._refuse(where, f"has the key {key!r}; a key is a text, {str(key)!r}")
        return mapping

    def _refuse(self, where: DocPath, message: str) -> None:
        self.problems.append(Problem("", format_path(where), message))


def to_yaml(document: Document, root: str, comments: Sequence[str] = ()) -> bytes:
    """Write a sweep as the file that says the same, wherever it lies.

    Args:
        document: a sweep whose local files are resolved (`resolve_files`).
        root: its output root, which the file names too.
        comments: lines that the file begins with.
    """
    value = {**_without_digests(document.value), "store": root}
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return "".join([*(f"# {' '.join(plain_text(each).split())}\n" for each in comments), text]).encode()


def _without_digests(value: Any) -> Any:
    """Leave out the digests of local files, which are read anew with the file."""
    if isinstance(value, dict):
        local = value.keys() == {"path", "sha256"}
        return {name: _without_digests(item) for name, item in value.items() if not (local and name == "sha256")}
    return [_without_digests(item) for item in value] if isinstance(value, list) else value


class _Dumper(yaml.SafeDumper):
    """Quotes a text that some version of YAML takes for another value."""

    def ignore_aliases(self, data: object) -> bool:
        """Write a value again wherever it occurs."""
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Escape the ends of lines that only Unicode knows; PyYAML loses them in other texts."""
        style = '"' if re.search("[\x85\u2028\u2029]", data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)
for _tag, _pattern in SCALARS.items():
    _Dumper.add_implicit_resolver(_tag, _pattern, None)

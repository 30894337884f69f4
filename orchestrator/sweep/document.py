"""A YAML text as plain values that remember their lines."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator.sweep.problems import DocPath, Problem, SweepError, format_path
from orchestrator.texts import nearest


@dataclass
class Document:
    """The value of a YAML file with the place of every part of it."""

    path: Path
    value: dict[str, Any]
    places: dict[DocPath, str] = field(default_factory=dict)

    def __contains__(self, path: DocPath) -> bool:
        return path in self.places

    def problem(self, path: DocPath, message: str) -> Problem:
        """Describe a mistake at `path`, placed at the nearest part of the document that was written down."""
        known = path
        while known and known not in self.places:
            known = known[:-1]
        return Problem(self.places.get(known, str(self.path)), format_path(path), message)


def read_document(path: Path) -> Document:
    """Read a sweep file.

    Raises:
        SweepError: the file is missing, empty, not YAML, not a mapping, or names a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        beside = [each.name for each in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        hint = nearest(path.name, beside) if beside else "check the path"
        raise SweepError([Problem(str(path), "", f"no such file; {hint}")]) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SweepError([Problem(str(path), "", f"cannot be read: {reason}")]) from error
    reader = _Reader(path)
    try:
        value = reader.read(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise SweepError([Problem(place, "", f"not valid YAML: {error.problem or error.context}")]) from error
    except yaml.YAMLError as error:
        raise SweepError([Problem(str(path), "", f"not valid YAML: {error}")]) from error
    if reader.problems:
        raise SweepError(reader.problems)
    if value is None:
        raise SweepError([Problem(str(path), "", "the file is empty; sweeps/README.md shows the grammar on one page")])
    if not isinstance(value, dict):
        message = f"a sweep is a mapping (name:, axes:, stages:), found {type(value).__name__}"
        raise SweepError([Problem(f"{path}:1", "", message)])
    return Document(path, value, reader.places)


def parse_value(text: str) -> Any:
    """Read one YAML value, as in `-s axes.seed=[0,1]`.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    return _Reader(Path("-")).read(text)


class _Composer(yaml.SafeLoader):
    """Gives scalars the types of YAML 1.2: `no` is text, `5e-5` is a number, `010` is ten, `1:30` is text."""

    yaml_implicit_resolvers: dict[str | None, Any] = {}  # noqa: RUF012 (PyYAML's own declaration)


_TAG = "tag:yaml.org,2002:"
#: Type -> how its values are written, and what they mean.
_SCALARS: dict[str, tuple[re.Pattern[str], Callable[[str], Any]]] = {
    "null": (re.compile(r"(~|null|Null|NULL|)$"), lambda _: None),
    "bool": (re.compile(r"(true|True|TRUE|false|False|FALSE)$"), lambda text: text.lower() == "true"),
    "int": (re.compile(r"[-+]?[0-9]+$"), int),
    "float": (
        re.compile(r"([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"),
        lambda text: float(re.sub(r"\.(?=[inIN])", "", text)),
    ),
}
for _name, (_pattern, _) in _SCALARS.items():
    _Composer.add_implicit_resolver(_TAG + _name, _pattern, None)


class _Reader:
    """Turns YAML into plain values and notes the line of each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: dict[DocPath, str] = {}
        self.problems: list[Problem] = []
        self._open: set[int] = set()

    def read(self, text: str) -> Any:
        composer = _Composer(text)
        try:
            node = composer.get_single_node()
        finally:
            composer.dispose()
        return None if node is None else self._value(node, ())

    def _value(self, node: yaml.Node, where: DocPath) -> Any:
        self.places.setdefault(where, self._place(node))
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            raise _refusal(node, f"unknown tag {node.tag!r}")
        if id(node) in self._open:
            raise _refusal(node, "a value that contains itself")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, where)
            return [self._value(item, (*where, index)) for index, item in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, where: DocPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _refusal(key_node, "a key must be plain text")
            found = _scalar(key_node)
            key: str = found if isinstance(found, str) else key_node.value
            if key in mapping:
                self.problems.append(
                    Problem(self._place(key_node), format_path((*where, key)), "is written twice; keep one")
                )
            self.places[(*where, key)] = self._place(key_node)
            mapping[key] = self._value(value_node, (*where, key))
        return mapping

    def _place(self, node: yaml.Node) -> str:
        return f"{self.path}:{node.start_mark.line + 1}"


def _scalar(node: yaml.ScalarNode) -> Any:
    kind = node.tag.removeprefix(_TAG)
    if kind == "str":
        return node.value
    if kind not in _SCALARS:
        raise _refusal(node, f"unknown tag {node.tag!r}")
    pattern, convert = _SCALARS[kind]
    try:
        # Only an explicit tag (`!!int abc`) or thousands of digits fail here.
        if not pattern.match(node.value):
            raise ValueError
        return convert(node.value)
    except ValueError as error:
        raise _refusal(node, f"{kind} expected, found {node.value[:40]!r}") from error


def _refusal(node: yaml.Node, message: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, message, node.start_mark)

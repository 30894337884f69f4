"""A sweep as plain values that remember their places: the lines of a YAML text, or nothing but their paths."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator.regular_file import open_file
from orchestrator.sweep.problems import DocPath, Problem, SweepError, format_path
from orchestrator.texts import nearest

#: A sweep file has at most so many bytes: the largest of sweeps/ has 12,000, and data belong in files of their own.
LARGEST = 1_000_000
#: … so many keys and values, with every alias written out, which take a second to read; so many cells need 10^5.
MOST_PARTS = 40_000
#: … and so many mappings and lists inside each other.
DEEPEST = 50


@dataclass
class Document:
    """The value of a sweep with the place of every part of it."""

    path: Path
    """The YAML file. Of a sweep that was given as values, a name in the folder that its relative paths start from."""
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
    text = _read_text(path)
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


def _read_text(path: Path) -> str:
    try:
        with open_file(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            # A file of /proc has no size.
            content = stream.read(LARGEST + 1) if size <= LARGEST else b""
    except FileNotFoundError as error:
        beside = [each.name for each in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        hint = nearest(path.name, beside) if beside else "check the path"
        raise SweepError([Problem(str(path), "", f"no such file; {hint}")]) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SweepError([Problem(str(path), "", f"cannot be read: {reason}; a sweep is a text file")]) from error
    if max(size, len(content)) > LARGEST:
        message = f"has more than {LARGEST:,} bytes; data belong in files of their own, {{path: FILE}}"
        raise SweepError([Problem(str(path), "", message)])
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise SweepError([Problem(str(path), "", f"cannot be read: {error}; write it as UTF-8")]) from error


def parse_value(text: str) -> Any:
    """Read one YAML value, as in `-s axes.seed=[0,1]`.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    return _Reader(Path("-")).read(text)


#: What is said of a value that is too large to be read.
TOO_DEEP = f"below more than {DEEPEST} mappings and lists"
TOO_MANY = (
    f"more than {MOST_PARTS:,} keys and values, or {LARGEST:,} characters, with aliases (*name) written out; data "
    "belong in files of their own, {path: FILE}"
)


class _Composer(yaml.SafeLoader):
    """Gives scalars the types of YAML 1.2: `no` is text, `5e-5` is a number, `010` is ten, `1:30` is text."""

    yaml_implicit_resolvers: dict[str | None, Any] = {}  # noqa: RUF012 (PyYAML's own declaration)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._parts = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse what would take long, or more calls inside each other than Python allows, before it is read."""
        self._parts += 1
        self._depth += 1
        if self._depth > DEEPEST or self._parts > MOST_PARTS:
            message = TOO_DEEP if self._depth > DEEPEST else TOO_MANY
            place = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, message, place)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


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
#: YAML tag -> what is read as a value of it.
SCALARS = {_TAG + name: pattern for name, (pattern, _) in _SCALARS.items()}
for _tag, _pattern in SCALARS.items():
    _Composer.add_implicit_resolver(_tag, _pattern, None)


class _Reader:
    """Turns YAML into plain values and notes the line of each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: dict[DocPath, str] = {}
        self.problems: list[Problem] = []
        self._open: set[int] = set()
        self._parts = self._characters = 0

    def read(self, text: str) -> Any:
        composer = _Composer(text)
        try:
            node = composer.get_single_node()
        except (ValueError, OverflowError) as error:
            # PyYAML hands on what it did not expect: "\UFFFFFFFF", a %YAML of thousands of digits.
            raise yaml.composer.ComposerError(None, None, str(error), composer.get_mark()) from error
        finally:
            composer.dispose()
        return None if node is None else self._value(node, ())

    def _value(self, node: yaml.Node, where: DocPath) -> Any:
        self._count(node)
        if len(where) > DEEPEST:
            # An alias may lie deeper than what it stands for.
            raise _refusal(node, TOO_DEEP)
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
            if key_node.value == "<<" and key_node.style is None:
                raise _refusal(key_node, "YAML 1.2 has no merge key <<; a config may be a list of layers, [$axis, {…}]")
            self._count(key_node)
            found = _scalar(key_node)
            key: str = found if isinstance(found, str) else key_node.value
            if key in mapping:
                self.problems.append(
                    Problem(self._place(key_node), format_path((*where, key)), "is written twice; keep one")
                )
            self.places[(*where, key)] = self._place(key_node)
            mapping[key] = self._value(value_node, (*where, key))
        return mapping

    def _count(self, node: yaml.Node) -> None:
        """Count a part as often as it is meant: an alias of a few characters may stand for very much."""
        self._parts += 1
        self._characters += len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        if self._parts > MOST_PARTS or self._characters > LARGEST:
            raise _refusal(node, TOO_MANY)

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

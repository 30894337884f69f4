"""A YAML text as plain values that remember their lines, and the mistakes found in it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator.redact import redact

#: Where in a document: ("axes", "beta", 2).
DocPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it is, what was found, what to do."""

    place: str
    """"sweeps/full.yaml:12", or "-s axes.seed=…" for an override."""
    path: str
    """"stages.fit.config.epochs"; empty for the whole document."""
    message: str

    def __str__(self) -> str:
        return redact(f"{self.place}: {self.path}: {self.message}" if self.path else f"{self.place}: {self.message}")


class SweepError(Exception):
    """The sweep cannot be run as written. Carries every mistake that was found; nothing has been run."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass
class Document:
    """The value of a YAML file with the place of every part of it."""

    path: Path
    value: dict[str, Any]
    places: dict[DocPath, str] = field(default_factory=dict)

    def problem(self, path: DocPath, message: str) -> Problem:
        """A mistake at `path`, placed at the nearest part of the document that was written down."""
        known = path
        while known and known not in self.places:
            known = known[:-1]
        return Problem(self.places.get(known, str(self.path)), spell_path(path), message)


def spell_path(path: DocPath) -> str:
    """("axes", "beta", 2) -> "axes.beta[2]"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nearest(name: object, valid: Iterable[object]) -> str:
    """A hint for a wrong name: the nearest valid one, or all of them when they are few."""
    names = [str(each) for each in valid]
    folded = {each.casefold(): each for each in names}
    close = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.5)
    if close:
        return f"did you mean {folded[close[0]]!r}?"
    if not names:
        return "there are none to choose from"
    return "choose from " + ", ".join(names[:16]) + (", …" if len(names) > 16 else "")


class _Yaml12Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: `no` is text, `5e-5` is a number, `010` is ten, `1:30` is text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own declaration)


_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
):
    _Yaml12Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _number(kind: type[int] | type[float], construct: Any) -> Any:
    def checked(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
        try:
            return construct(loader, node)
        except ValueError as error:
            # Only an explicit tag (`!!int abc`) or thousands of digits come here.
            found = f"{kind.__name__} expected, found {node.value[:40]!r}"
            raise yaml.constructor.ConstructorError(None, None, found, node.start_mark) from error

    return checked


_Yaml12Loader.add_constructor("tag:yaml.org,2002:int", _number(int, lambda _, node: int(node.value)))
_Yaml12Loader.add_constructor("tag:yaml.org,2002:float", _number(float, yaml.SafeLoader.construct_yaml_float))
_Yaml12Loader.yaml_implicit_resolvers.setdefault("", []).append(("tag:yaml.org,2002:null", re.compile("^$")))


def parse_value(text: str) -> Any:
    """One YAML value, as in `-s axes.seed=[0,1]`.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    loader = _Yaml12Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _Builder(Path("-"), loader).build(node, ())
    finally:
        loader.dispose()


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
        raise SweepError([Problem(str(path), "", f"cannot be read: {error}")]) from error
    try:
        loader = _Yaml12Loader(text)
        try:
            node = loader.get_single_node()
            builder = _Builder(path, loader)
            value = None if node is None else builder.build(node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise SweepError([Problem(place, "", f"not valid YAML: {error.problem or error.context}")]) from error
    except yaml.YAMLError as error:
        raise SweepError([Problem(str(path), "", f"not valid YAML: {error}")]) from error
    if builder.problems:
        raise SweepError(builder.problems)
    if value is None:
        raise SweepError([Problem(str(path), "", "the file is empty; sweeps/README.md shows the grammar on one page")])
    if not isinstance(value, dict):
        raise SweepError(
            [Problem(f"{path}:1", "", f"a sweep is a mapping (name:, axes:, stages:), found {type(value).__name__}")]
        )
    return Document(path, value, builder.places)


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
        if last == "path" and isinstance(value, str) and not value.startswith("$env."):
            value = str(Path(value).expanduser().absolute())
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
        except (KeyError, IndexError, TypeError):
            problems.append(Problem(place, name, "there is no such place in the sweep to set"))
            continue
        for known in [known for known in document.places if known[: len(where)] == where]:
            del document.places[known]
        document.places[where] = place
    if problems:
        raise SweepError(problems)


def _key(target: Any, part: str) -> str | int:
    """A part of an override's path as a key: only a list is indexed by number, names may look like one."""
    return int(part) if isinstance(target, list) and part.isdecimal() else part


class _Builder:
    """Turns YAML nodes into values and notes the line of each."""

    def __init__(self, path: Path, loader: yaml.SafeLoader) -> None:
        self.path = path
        self.loader = loader
        self.places: dict[DocPath, str] = {}
        self.problems: list[Problem] = []
        self._open: set[int] = set()

    def build(self, node: yaml.Node, where: DocPath) -> Any:
        self.places.setdefault(where, f"{self.path}:{node.start_mark.line + 1}")
        if isinstance(node, yaml.ScalarNode):
            return self.loader.construct_object(node)
        if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            raise yaml.constructor.ConstructorError(None, None, f"unknown tag {node.tag!r}", node.start_mark)
        if id(node) in self._open:
            raise yaml.constructor.ConstructorError(None, None, "a value that contains itself", node.start_mark)
        self._open.add(id(node))
        try:
            return self._collection(node, where)
        finally:
            self._open.discard(id(node))

    def _collection(self, node: yaml.Node, where: DocPath) -> Any:
        if isinstance(node, yaml.MappingNode):
            mapping: dict[Any, Any] = {}
            for key_node, value_node in node.value:
                if not isinstance(key_node, yaml.ScalarNode):
                    message = "a key must be plain text"
                    raise yaml.constructor.ConstructorError(None, None, message, key_node.start_mark)
                key = self.loader.construct_object(key_node)
                line = f"{self.path}:{key_node.start_mark.line + 1}"
                if not isinstance(key, str):
                    key = str(key_node.value)
                if key in mapping:
                    self.problems.append(Problem(line, spell_path((*where, key)), "is written twice; keep one"))
                self.places[(*where, key)] = line
                mapping[key] = self.build(value_node, (*where, key))
            return mapping
        return [self.build(item, (*where, index)) for index, item in enumerate(node.value)]

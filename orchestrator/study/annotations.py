"""The types of parameters: read from the text of a module without importing it, and what of them can be in a key."""

from __future__ import annotations

import ast
import collections.abc
import dataclasses
import enum
import pathlib
import typing
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from workers.checkpoints import Checkpoints

#: What a name of another module means in an annotation.
_KNOWN: Mapping[str, Any] = {
    **{each.__name__: each for each in (bool, int, float, str, list, dict, tuple)},
    "pathlib.Path": pathlib.Path,
    "workers.checkpoints.Checkpoints": Checkpoints,
    **{f"typing.{name}": getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union", "Annotated")},
    **{f"typing.{each.__name__.capitalize()}": each for each in (list, dict, tuple)},
    **{
        f"{module}.{name}": getattr(collections.abc, name)
        for module in ("typing", "collections.abc")
        for name in ("Sequence", "Mapping")
    },
}

_SEQUENCES = (list, tuple, collections.abc.Sequence)
_MAPPINGS = (dict, collections.abc.Mapping)


class NeedsImportError(Exception):
    """Only importing the module tells what an expression means."""


class Names:
    """What the names at the top of a module mean, as far as its text tells."""

    def __init__(self, tree: ast.Module) -> None:
        """Read the imports, classes, functions and assignments at the top of the module."""
        self.defined: dict[str, ast.stmt] = {}
        self._imported: dict[str, str] = {}
        for node in tree.body:
            if isinstance(node, ast.Import):
                for each in node.names:
                    self._imported[each.asname or each.name.partition(".")[0]] = (
                        each.name if each.asname else each.name.partition(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom):
                for each in node.names:
                    self._imported[each.asname or each.name] = f"{'.' * node.level}{node.module or ''}.{each.name}"
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.defined[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                self.defined |= {each.id: node for each in targets if isinstance(each, ast.Name)}

    def has(self, name: str) -> bool:
        """Tell whether the module certainly or possibly has a name: an import of * or a condition may make any."""
        return name in self.defined or name in self._imported

    def qualified(self, node: ast.expr) -> str:
        """Return what a dotted name stands for, e.g. `pathlib.Path`.

        Raises:
            NeedsImportError: it is defined in the module, or no dotted name.
        """
        if isinstance(node, ast.Attribute):
            return f"{self.qualified(node.value)}.{node.attr}"
        if not isinstance(node, ast.Name) or node.id in self.defined:
            raise NeedsImportError
        return self._imported.get(node.id, node.id)


def read_type(node: ast.expr, names: Names) -> Any:
    """Return the type that an annotation of built-in and standard types means.

    Raises:
        NeedsImportError: it has others.
    """
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return read_type(ast.parse(node.value, mode="eval").body, names)
        except SyntaxError:
            raise NeedsImportError from None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return Union[read_type(node.left, names), read_type(node.right, names)]  # noqa: UP007
    if isinstance(node, ast.Subscript):
        base = read_type(node.value, names)
        inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if base is Literal:
            return Literal[tuple(read_value(each) for each in inside)]
        if base is Annotated:
            raise NeedsImportError
        arguments = tuple(... if _is_ellipsis(each) else read_type(each, names) for each in inside)
        try:
            return base[arguments if len(arguments) > 1 else arguments[0]]
        except TypeError:
            raise NeedsImportError from None
    found = _KNOWN.get(names.qualified(node), NeedsImportError)
    if found is NeedsImportError:
        raise NeedsImportError
    return found


def read_value(node: ast.expr) -> Any:
    """Return the value of a literal.

    Raises:
        NeedsImportError: it is none.
    """
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise NeedsImportError from None


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def is_path(annotation: Any) -> bool:
    """Tell whether a parameter takes a folder or file: `Path`, or `Path | None`."""
    return annotation is pathlib.Path or set(get_args(annotation)) == {pathlib.Path, NoneType}


def is_paths(annotation: Any) -> bool:
    """Tell whether a parameter takes the folders of several artifacts: `list[Path]`."""
    return get_origin(annotation) in _SEQUENCES and get_args(annotation)[:1] == (pathlib.Path,)


def unfit(annotation: Any, seen: frozenset[Any] = frozenset()) -> str | None:
    """Return the part of a type whose values have no canonical JSON, as a text; None if there is none."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (bool, int, float, str, None, NoneType, Any, list, dict, tuple) or annotation in seen:
        return None
    inner: list[Any]
    if origin is Literal:
        return None
    if origin in (Union, UnionType) or origin in _SEQUENCES:
        inner = [each for each in arguments if each is not ...]
    elif origin in _MAPPINGS and (arguments[0] is str or get_origin(arguments[0]) is Literal):
        inner = [arguments[1]]
    elif origin is Annotated:
        inner = [arguments[0]]
    elif isinstance(annotation, typing.NewType):
        inner = [annotation.__supertype__]
    elif isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        inner = [type(each.value) for each in annotation]
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = [each.annotation for each in annotation.model_fields.values()]
    elif isinstance(annotation, type) and (dataclasses.is_dataclass(annotation) or typing.is_typeddict(annotation)):
        inner = [*typing.get_type_hints(annotation).values()]
    else:
        return shown(annotation)
    return next((found for each in inner if (found := unfit(each, seen | {annotation}))), None)


def shown(annotation: Any) -> str:
    """Write a type as people write it."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation.__name__ if annotation.__module__ == "builtins" else _dotted(annotation)
    return str(annotation).replace("typing.", "").replace("pathlib._local.", "").replace("pathlib.", "")


def _dotted(annotation: type) -> str:
    return "Path" if annotation is pathlib.Path else f"{annotation.__module__}.{annotation.__qualname__}"

"""The signature of a function that is used as a stage: parameters with types and defaults, and the metrics it returns.

It is read from the text of its module. The module is imported only where the text does not tell: a type, a default or
a decorated name that comes from elsewhere.
"""

from __future__ import annotations

import ast
import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from orchestrator.study import StageError
from orchestrator.study.annotations import (
    Names,
    NeedsImportError,
    is_path,
    is_paths,
    read_type,
    read_value,
    shown,
    unfit,
)
from orchestrator.study.modules import Module, Study
from orchestrator.study.source import missing, parse
from orchestrator.texts import nearest
from workers.checkpoints import Checkpoints
from workers.metric import Metric

#: The default of a parameter without one.
REQUIRED = inspect.Parameter.empty
#: The parameter that takes the folder to write into, the one whose fields are the whole config, and the one that takes
#: the checkpoints of the step.
OUT, CONFIG, CHECKPOINTS = "out", "config", "checkpoints"

_NUMBERS = (int, float)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a stage function, `out` excepted."""

    name: str
    annotation: Any
    default: Any = REQUIRED


@dataclass(frozen=True)
class Signature:
    """What a stage function takes and returns."""

    reference: str
    """"module:name"."""
    parameters: tuple[Parameter, ...]
    takes_out: bool
    """Whether it has the parameter `out: Path`, the folder that it writes into."""
    takes_checkpoints: bool
    """Whether it has the parameter `checkpoints: Checkpoints`, from which it goes on when it was stopped."""
    config: type | None
    """The dataclass or pydantic model of its parameter `config`, whose fields are those of the stage's config."""
    metrics: tuple[Metric, ...] | None
    """Those of the TypedDict that it returns, () where it returns None; None where it does not say."""
    doc: str


def read_signature(study: Study, reference: str) -> Signature:
    """Read the signature of a function "module:name".

    Raises:
        StageError: there is no such function, or it cannot be a stage.
    """
    module_name, name = module_of(reference), reference.partition(":")[2]
    module = study.find(module_name)
    if module is None:
        raise missing(study, module_name)
    names = Names(parse(module))
    node = names.defined.get(name)
    if isinstance(node, ast.AsyncFunctionDef | ast.ClassDef):
        what = "a class" if isinstance(node, ast.ClassDef) else "an async function"
        raise StageError(f"{reference} is {what}, not a function ({module.file}:{node.lineno})")
    try:
        if not isinstance(node, ast.FunctionDef):
            raise NeedsImportError
        return _checked(reference, _parameters(reference, node, names), _returned(reference, node, names), _doc(node))
    except NeedsImportError:
        return _imported(study, module, reference, names)


def module_of(reference: str) -> str:
    """Return the module of a function that is written "module:name".

    Raises:
        StageError: it is not written so, or its module is none that workers can import.
    """
    module, _, name = reference.partition(":")
    if not (all(part.isidentifier() for part in module.split(".")) and name.isidentifier()):
        raise StageError(f"{reference!r} is no stage; write the name of one, or module:function")
    if module == "__main__":
        raise StageError(f"{reference}: a stage lies in a module that workers can import; put the function into a file")
    return module


def functions(module: Module) -> list[str]:
    """Return the names of the functions that a module defines and that may be stages."""
    defined = Names(parse(module)).defined
    return [name for name, node in defined.items() if isinstance(node, ast.FunctionDef) and name[0] != "_"]


def function_doc(module: Module, name: str) -> str:
    """Return the docstring of a function of a module, without importing it; empty if there is none."""
    node = Names(parse(module)).defined.get(name)
    return _doc(node) if isinstance(node, ast.FunctionDef) else ""


def check_table_function(study: Study, reference: str, inputs: frozenset[str] = frozenset()) -> None:
    """Check that the function of a stage in a table exists, and takes its inputs.

    Raises:
        StageError: it does not, as far as the text of its module tells.
    """
    module_name, _, name = reference.partition(":")
    module = study.find(module_name)
    if module is None:
        raise missing(study, module_name)
    names = Names(parse(module))
    node = names.defined.get(name)
    if node is None and not names.has(name):
        raise _no_function(module, reference)
    if isinstance(node, ast.FunctionDef) and not node.args.kwarg and not node.decorator_list:
        arguments = [*node.args.args, *node.args.kwonlyargs]
        lacking = sorted(inputs - {each.arg for each in arguments})
        if lacking:
            raise StageError(f"{reference} has no parameter {lacking[0]!r} for the input of that name")


def _no_function(module: Module, reference: str) -> StageError:
    name = reference.partition(":")[2]
    hint = nearest(name, functions(module))
    return StageError(f"module {module.name!r} ({module.file}) has no function {name!r}; {hint}")


# --- from the text


def _parameters(reference: str, node: ast.FunctionDef, names: Names) -> list[Parameter]:
    arguments = node.args
    _refuse_open_ends(
        reference,
        [f"*{arguments.vararg.arg}"] if arguments.vararg else [],
        [f"**{arguments.kwarg.arg}"] if arguments.kwarg else [],
        [each.arg for each in arguments.posonlyargs],
    )
    padding: list[ast.expr | None] = [None] * (len(arguments.args) - len(arguments.defaults))
    defaults = [*padding, *arguments.defaults, *arguments.kw_defaults]
    found = []
    for each, default in zip([*arguments.args, *arguments.kwonlyargs], defaults, strict=True):
        if each.annotation is None:
            raise _untyped(reference, each.arg)
        value = REQUIRED if default is None else read_value(default)
        found.append(Parameter(each.arg, read_type(each.annotation, names), value))
    if node.decorator_list:
        # It may take other parameters than those that are written here.
        raise NeedsImportError
    return found


def _returned(reference: str, node: ast.FunctionDef, names: Names) -> Mapping[str, Any] | None:
    """Return the fields of the TypedDict that a function returns; {} for None, None where it does not say."""
    written = node.returns
    if written is None:
        return None
    if isinstance(written, ast.Constant) and isinstance(written.value, str):
        raise NeedsImportError
    if isinstance(written, ast.Name) and isinstance(made := names.defined.get(written.id), ast.ClassDef):
        bases = [names.qualified(each) for each in made.bases]
        if bases not in (["typing.TypedDict"], ["typing_extensions.TypedDict"]) or made.keywords:
            raise NeedsImportError
        fields = [each for each in made.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
        return {
            each.target.id: read_type(each.annotation, names) for each in fields if isinstance(each.target, ast.Name)
        }
    return _fields_returned(reference, read_type(written, names))


def _doc(node: ast.FunctionDef) -> str:
    return ast.get_docstring(node) or ""


# --- from the module


def _imported(study: Study, module: Module, reference: str, names: Names) -> Signature:
    name = reference.partition(":")[2]
    function = getattr(study.load(module.name), name, None)
    if function is None:
        raise _no_function(module, reference)
    if not inspect.isroutine(function) and not callable(function):
        raise StageError(f"{reference} is of type {type(function).__name__}, not a function")
    try:
        written = inspect.signature(function).parameters.values()
        hints = typing.get_type_hints(function, include_extras=True)
    except (TypeError, ValueError, NameError, AttributeError) as error:
        raise StageError(f"the signature of {reference} cannot be read: {error}") from error
    kinds: dict[Any, list[str]] = {}
    for each in written:
        kinds.setdefault(each.kind, []).append(each.name)
    _refuse_open_ends(
        reference,
        [f"*{each}" for each in kinds.get(inspect.Parameter.VAR_POSITIONAL, [])],
        [f"**{each}" for each in kinds.get(inspect.Parameter.VAR_KEYWORD, [])],
        kinds.get(inspect.Parameter.POSITIONAL_ONLY, []),
    )
    for each in written:
        if each.name not in hints:
            raise _untyped(reference, each.name)
    found = [Parameter(each.name, hints[each.name], each.default) for each in written]
    returned = _fields_returned(reference, hints["return"]) if "return" in hints else None
    return _checked(reference, found, returned, inspect.getdoc(function) or "")


# --- both


def _fields_returned(reference: str, annotation: Any) -> Mapping[str, Any] | None:
    if annotation in (None, NoneType):
        return {}
    if typing.is_typeddict(annotation):
        return typing.get_type_hints(annotation)
    if annotation in (dict, Any, typing.Mapping) or get_origin(annotation) in (dict, Mapping):
        return None
    raise StageError(f"{reference} returns {shown(annotation)}, but a stage returns a dict of metrics: name -> number")


def _refuse_open_ends(reference: str, *kinds: list[str]) -> None:
    refused = [name for names in kinds for name in names]
    if refused:
        raise StageError(f"{reference} takes {refused[0]}, whose fields nobody can know: give it parameters by name")


def _untyped(reference: str, name: str) -> StageError:
    example = "out: Path" if name == OUT else f"{name}: float"
    return StageError(f"parameter {name!r} of {reference} has no type; write e.g. {example}")


def _checked(reference: str, parameters: list[Parameter], returned: Mapping[str, Any] | None, doc: str) -> Signature:
    out = next((each for each in parameters if each.name == OUT), None)
    if out and not is_path(out.annotation):
        raise StageError(f"parameter 'out' of {reference} is the folder that the stage writes into: write out: Path")
    config = next(
        (each.annotation for each in parameters if each.name == CONFIG and _has_fields(each.annotation)), None
    )
    kept = next((each for each in parameters if each.name == CHECKPOINTS and each.annotation is Checkpoints), None)
    given = {OUT} | ({CONFIG} if config else set()) | ({CHECKPOINTS} if kept else set())
    own = tuple(each for each in parameters if each.name not in given)
    for each in own:
        wrong = None if is_path(each.annotation) or is_paths(each.annotation) else unfit(each.annotation)
        if wrong:
            raise StageError(
                f"parameter {each.name!r} of {reference} has the type {wrong}, which cannot be written in a sweep; use "
                "numbers, text, true or false, lists and mappings of these, a dataclass or a pydantic model"
            )
    if config and (wrong := unfit(config)):
        raise StageError(f"a field of the config of {reference} has the type {wrong}, which cannot be in a key")
    metrics = None
    if returned is not None:
        metrics = tuple(_metric(reference, name, annotation) for name, annotation in returned.items())
    return Signature(reference, own, out is not None, kept is not None, config, metrics, doc)


def _has_fields(annotation: Any) -> bool:
    return isinstance(annotation, type) and (is_dataclass(annotation) or issubclass(annotation, BaseModel))


def _metric(reference: str, name: str, annotation: Any) -> Metric:
    if annotation in _NUMBERS:
        return Metric(name)
    if get_origin(annotation) in (Union, UnionType) and set(get_args(annotation)) <= {*_NUMBERS, NoneType}:
        return Metric(name, nullable=True)
    raise StageError(f"metric {name!r} of {reference} is declared as {shown(annotation)}; write float, or float | None")

"""What was written about stages and their configs: docstrings, read from the text of modules without importing them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from orchestrator.namesakes import OUR_NAMES
from orchestrator.study.annotations import Names
from orchestrator.study.function_stage import FunctionConfig
from orchestrator.study.modules import Module, Study
from orchestrator.study.signature import function_doc
from orchestrator.study.source import parse

#: The folder that our own packages lie in, whatever checkout of them a command is given in.
_HOME = Path(__file__).parents[2]


def stage_doc(study: Study, function: str) -> str:
    """Return the docstring of a stage's function "module:name"; empty if there is none.

    Raises:
        StageError: its module cannot be read.
    """
    module, _, name = function.partition(":")
    found = _module(study, module)
    return function_doc(found, name) if found else ""


def field_docs(study: Study, model: type) -> Mapping[str, str]:
    """Return the docstrings of the fields of a class, inherited ones included: the text below each field.

    The fields of a function's config are its parameters, which its docstring may describe below `Args:`.

    Raises:
        StageError: a module cannot be read.
    """
    docs: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if each not in (object, BaseModel):
            docs |= _below_fields(study, each)
    if issubclass(model, FunctionConfig):
        docs |= field_docs(study, model.whole) if model.whole else {}
        docs |= argument_docs(model.__doc__ or "")
    return docs


def summary(doc: str) -> str:
    """Return the first paragraph of a docstring as one line."""
    return " ".join(doc.partition("\n\n")[0].split())


def prose(doc: str) -> str:
    """Return a docstring up to its first section: `Args:`, or a heading with a line below it."""
    section = r"^(?:(?:Args|Returns|Raises|Yields|Examples?):\s*$|\w+\n-{3,}$)"
    return re.split(section, doc, maxsplit=1, flags=re.MULTILINE)[0].strip()


def argument_docs(doc: str) -> Mapping[str, str]:
    """Return what a docstring says below `Args:`, by parameter."""
    section = re.search(r"^Args:\s*\n((?:[ \t]+\S.*\n?|\s*\n)*)", doc, re.MULTILINE)
    if not section:
        return {}
    parts = re.split(r"^(\*{0,2}\w+)(?: \(.*?\))?:\s", inspect.cleandoc(section[1]), flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def _below_fields(study: Study, model: type) -> Mapping[str, str]:
    module = _module(study, model.__module__)
    node = Names(parse(module)).defined.get(model.__name__) if module else None
    if not isinstance(node, ast.ClassDef):
        return {}
    docs = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            text = below.value.value if isinstance(below.value, ast.Constant) else None
            if isinstance(text, str):
                docs[field.target.id] = " ".join(text.split())
    return docs


def _module(study: Study, name: str) -> Module | None:
    if name.partition(".")[0] not in OUR_NAMES:
        return study.find(name)
    place = _HOME.joinpath(*name.split("."))
    is_package = place.is_dir()
    return Module(name, place / "__init__.py" if is_package else place.with_suffix(".py"), _HOME, is_package)

"""Mistakes in a sweep: where each is, what was found, and the nearest valid name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Union, get_args, get_origin

from orchestrator.redact import redact
from orchestrator.texts import nearest

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

#: Of one kind of mistake so many are told at once: to look for what thousands of wrong names may mean takes minutes.
MOST_TOLD = 50
#: Characters of a message, and of the path before it, that are shown; a value in them may be of any length.
_MESSAGE, _PATH = 2000, 300

#: Where in a document: ("axes", "beta", 2).
DocPath = tuple[str | int, ...]

#: How messages of two kinds of mistakes begin, by which they are recognized.
UNKNOWN_FIELD = "unknown field"
MISSING = "is missing"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it is, what was found, what to do."""

    place: str
    """"sweeps/full.yaml:12", or "-s axes.seed=…" for an override; empty in a sweep that is not written in a file."""
    path: str
    """"stages.fit.config.epochs"; empty for the whole document."""
    message: str

    @property
    def line(self) -> int:
        """The line in the file; 0 for what is not in a file, such as overrides."""
        line = self.place.rpartition(":")[2]
        return int(line) if line.isdecimal() and len(line) < 10 and not self.place.startswith("-s ") else 0

    def __str__(self) -> str:
        # What is cut in half can no longer be recognized as a secret.
        parts = ((redact(self.place), _MESSAGE), (redact(self.path), _PATH), (redact(self.message), _MESSAGE))
        return ": ".join(part if len(part) <= limit else f"{part[:limit]} …" for part, limit in parts if part)


def told(problems: Iterable[Problem]) -> list[Problem]:
    """Look for mistakes of one kind until there are `MOST_TOLD`."""
    return list(islice(problems, MOST_TOLD))


class SweepError(Exception):
    """The sweep cannot be run as written. Carries every mistake that was found, by line; nothing has been run."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(dict.fromkeys(problems), key=lambda problem: problem.line))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Written(Protocol):
    """A text that knows which of its parts were written down."""

    def __contains__(self, path: DocPath) -> bool:
        """Whether there is something at a path."""


def format_path(path: DocPath) -> str:
    """Write ("axes", "beta", 2) as "axes.beta[2]"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def validation_messages(
    error: ValidationError, written: Written, prefix: DocPath, model: type[BaseModel]
) -> dict[DocPath, str]:
    """Translate pydantic's errors: one message per place, saying what was found and the nearest valid name.

    Args:
        error: what pydantic raised for a value of `model`.
        written: the text that holds the value.
        prefix: where in the text the value is.
        model: the type that the value should have.
    """
    messages: dict[DocPath, str] = {}
    for detail in error.errors(include_url=False):
        where = prefix
        for part in detail["loc"]:
            # Pydantic puts the tags of unions into its locations; they were not written in the document.
            if (*where, part) in written:
                where = (*where, part)
        if detail["type"] == "extra_forbidden":
            message = f"{UNKNOWN_FIELD}; {_hint(model, detail['loc'])}"
        elif detail["type"] == "missing":
            where, message = (*where, detail["loc"][-1]), MISSING
        elif detail["type"] == "secret":
            message = detail["msg"]
        else:
            shown = repr(detail["input"])
            if len(shown) > 80:
                shown = f"a {type(detail['input']).__name__}"
            message = f"{_in_yaml_terms(detail['type'], detail['msg'])}; found {shown}"
        # A union reports one mistake per member; the first one at a place says enough.
        messages.setdefault(where, message)
    return messages


def _in_yaml_terms(kind: str, message: str) -> str:
    if kind in ("model_type", "dict_type"):
        return "should be a mapping"
    if kind in ("tuple_type", "list_type"):
        return "should be a list"
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return message.partition(", unable to")[0].replace("a valid string", "text")


def _hint(model: type[BaseModel], loc: Sequence[int | str]) -> str:
    """Say where an unknown field belongs: in one of those beside it, if that has it; else the nearest name."""
    *above, name = loc
    beside = _fields_at(model, above)
    inside = [each for each in beside if name in _fields_at(model, (*above, each))]
    return f"did you mean '{inside[0]}.{name}'?" if inside else nearest(name, beside)


def _fields_at(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """Return the names that are valid at a pydantic location below `model`."""
    annotations: list[Any] = [model]
    for part in loc:
        inside = [found for each in annotations for found in _inside(each, part)]
        annotations = inside or annotations
    models = [found for each in annotations for found in _models(each)]
    return sorted({field.alias or name for found in models for name, field in found.model_fields.items()})


def _models(annotation: Any) -> list[type[BaseModel]]:
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Annotated, Union, UnionType):
        return [model for part in get_args(annotation) for model in _models(part)]
    return []


def _inside(annotation: Any, part: int | str) -> list[Any]:
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation.model_fields[part].annotation] if part in annotation.model_fields else []
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Annotated, Union, UnionType):
        return [found for each in arguments for found in _inside(each, part)]
    if origin is dict:
        return [arguments[1]]
    return [arguments[0]] if origin in (list, tuple) else []

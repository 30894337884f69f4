"""A section of the report: its texts, figures and tables."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dashboards.report.figures import Figure
from orchestrator.types import Scalar

#: Characters of the name of a figure; file systems take 255 bytes.
_NAME_LIMIT = 60


@dataclass(frozen=True)
class Table:
    """A table of text."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A chapter of the report."""

    name: str
    title: str
    text: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    code: Sequence[tuple[str, str]] = ()
    """Titles and preformatted texts."""


def sentences(notes: Sequence[str]) -> str:
    """Join notes as sentences."""
    return " ".join(f"{capital(note)}." for note in notes)


def capital(text: str) -> str:
    """Return a text with a capital first letter, unless it begins with a name: those are not changed."""
    first = text.split(" ", 1)[0]
    return text if not first.isalpha() else text[:1].upper() + text[1:]


def title_of(what: str, page: Mapping[str, Scalar]) -> str:
    """Return the title of a figure that is about some cells only."""
    return what + "".join(f", {name} {value}" for name, value in page.items())


def file_name(base: str, page: Mapping[str, Scalar]) -> str:
    """Return the name of the files of a figure that is about some cells only; other cells have another name."""
    text = "-".join([base, *(str(value) for value in page.values())])
    name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text)[:_NAME_LIMIT]
    return name if name == text else f"{name}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"

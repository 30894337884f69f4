"""The grammar of `{tuned: FILE#SEARCH, for: {AXIS: VALUE}}`: what another sweep's search found, in a config."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.sweep.problems import DocPath
from orchestrator.sweep.search import From
from orchestrator.sweep.spec import SweepSpec

#: How it is written.
FORM = "{tuned: FILE#SEARCH, for: {AXIS: VALUE, …}}"


@dataclass(frozen=True)
class Tuned:
    """The best values of one study of another sweep, or one of them."""

    file: str
    """The other sweep, relative to the folder of this one."""
    search: str
    field: str | None
    """The field of the space that is meant; None for all of them, as a mapping."""
    at: Mapping[str, Any]
    """Axis of the studies -> a value of it, or a reference."""

    @property
    def source(self) -> str:
        """The search, as it is written."""
        return f"{self.file}#{self.search}"


def is_tuned(value: object) -> bool:
    """Tell whether a value is written as a tuned result; a config may have a plain field of that name."""
    if not isinstance(value, dict) or "tuned" not in value:
        return False
    text = value["tuned"]
    return "for" in value or (isinstance(text, str) and ("#" in text or text.endswith((".yaml", ".yml"))))


def parse_tuned(value: Mapping[str, Any]) -> Tuned:
    """Read a value that `is_tuned`.

    Raises:
        ValueError: it has mistakes; the message names the first.
    """
    if others := [name for name in value if name not in ("tuned", "for")]:
        raise ValueError(f"has {others[0]!r} too, which a tuned result has not: {FORM}; write other fields in a layer")
    text, at = value["tuned"], value.get("for", {})
    file, _, name = text.rpartition("#") if isinstance(text, str) else ("", "", "")
    search, _, field = name.partition(".")
    if not file or not search or name.endswith(".") or "\0" in file:
        raise ValueError(f"{text!r} names no search of another sweep; write FILE#SEARCH, or FILE#SEARCH.FIELD")
    if not isinstance(at, dict):
        raise ValueError(f"for: is no mapping of axes to values; found {at!r}")
    for axis, each in at.items():
        if not isinstance(each, str | int | float):
            raise ValueError(f"for.{axis}: {each!r} is no value of an axis; write one, or $AXIS")
    return Tuned(file, search, field or None, at)


def tuned_parts(value: Any, where: DocPath = ()) -> Iterator[tuple[DocPath, dict[str, Any]]]:
    """Yield all tuned results inside a value, each with its path."""
    if is_tuned(value):
        yield where, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from tuned_parts(item, (*where, name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from tuned_parts(item, (*where, index))


def other_sweeps(spec: SweepSpec) -> list[Path]:
    """Return the sweep files that a sweep names: those with tuned results, and those whose results it starts from."""
    files: list[str] = []
    for entry in spec.stages.values():
        for _, value in tuned_parts(entry.config):
            with contextlib.suppress(ValueError):
                files.append(parse_tuned(value).file)
    files += [each.from_ for each in (spec.searched.start if spec.searched else ()) if isinstance(each, From)]
    return [spec.document.path.parent / file for file in dict.fromkeys(files)]

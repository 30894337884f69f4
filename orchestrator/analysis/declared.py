"""When a sweep declared its analysis: before there were results, or after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestrator.keys import digest
from orchestrator.session import Session
from orchestrator.store import StoreError
from orchestrator.store.atomic import explained, replace_file
from orchestrator.sweep.analysis import Analysis

#: Hex digits of the digest of an analysis, in the name of its file.
_LENGTH = 16
#: So many differences between two analyses are named.
_NAMED = 6


@dataclass(frozen=True)
class Declared:
    """An analysis that a sweep declared at some time."""

    digest: str
    when: datetime
    results: int
    """Cells that had a result by then."""
    analysis: Mapping[str, Any]


def declare(session: Session, results: int) -> None:
    """Write down the analysis of a sweep, if it was not there before, with the date.

    Args:
        session: the sweep.
        results: cells that have a result by now.

    Raises:
        StoreError: it cannot be written.
    """
    if session.spec.analysis is None:
        return
    analysis = _written(session.spec.analysis)
    file = session.outputs.folder / "analysis" / f"declared-{digest(analysis, _LENGTH)}.json"
    with explained(file):
        there = file.exists()
    if not there:
        when = datetime.now(UTC).isoformat()
        content = {"declared": when, "cells_with_results": results, "analysis": analysis}
        replace_file(file, json.dumps(content, indent=1).encode())


def history(session: Session) -> list[Declared]:
    """Return the analyses that a sweep declared so far, the first one first.

    Raises:
        StoreError: they cannot be read; or a file is none that `declare` wrote.
    """
    folder = session.outputs.folder / "analysis"
    found = []
    with explained(folder):
        files: list[Any] = list(folder.glob("declared-*.json")) if folder.exists() else []
        contents = [(str(file), file.name, file.read_bytes()) for file in files]
    for file, name, content in contents:
        try:
            value = json.loads(content)
            when, results = datetime.fromisoformat(value["declared"]), int(value["cells_with_results"])
            if when.tzinfo is None:
                raise ValueError("a date without a time zone")
            found.append(
                Declared(name.removeprefix("declared-").removesuffix(".json"), when, results, dict(value["analysis"]))
            )
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{file} is no declared analysis ({error}); delete it") from error
    return sorted(found, key=lambda each: (each.when, each.digest))


def notes(session: Session) -> list[str]:
    """Say in sentences without full stop whether the analysis was declared before there were results.

    Raises:
        StoreError: what was declared cannot be read.
    """
    if session.spec.analysis is None:
        return []
    known = history(session)
    mine = digest(_written(session.spec.analysis), _LENGTH)
    current = next((each for each in known if each.digest == mine), None)
    if current is None:
        return ["this analysis was not declared in a run yet"]
    said = []
    if current.results:
        before = "it was declared"
        earlier = [each for each in known if each.when < current.when]
        if earlier:
            before = f"it was changed ({_changes(earlier[-1].analysis, current.analysis)})"
        said.append(
            f"{before} on {_date(current)}, when {current.results:,} cells had a result: what was seen by then may "
            "have shaped it"
        )
    later = [each for each in known if each.when > current.when]
    if later:
        days = ", ".join(dict.fromkeys(map(_date, later)))
        others = "another one was" if len(later) == 1 else f"{len(later)} others were"
        said.append(f"since it was declared on {_date(current)}, {others} declared ({days})")
    return said


def _written(analysis: Analysis) -> dict[str, Any]:
    """Return an analysis as the sweep file has it, which is what is hashed."""
    return analysis.model_dump(mode="json", exclude_unset=True)


def _date(declared: Declared) -> str:
    return declared.when.date().isoformat()


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Name what differs between two analyses: "claims.a, primary.by"."""
    one, other = _leaves(before), _leaves(after)
    names = dict.fromkeys(".".join(path[:2]) for path in sorted({*one, *other}) if one.get(path) != other.get(path))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(list(names)[:_NAMED]) + more


def _leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if isinstance(value, Mapping) and value:
        return {
            where: leaf for name, each in value.items() for where, leaf in _leaves(each, (*path, str(name))).items()
        }
    return {path: value}

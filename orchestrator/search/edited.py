"""Notices that a search was edited after trials were made, so that its studies are others now."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.search.record_files import descriptions, read_history
from orchestrator.search.records import Suggestion
from orchestrator.search.studies import Studies
from orchestrator.store import Store, StoreError
from orchestrator.sweep.search import From
from orchestrator.texts import few

#: What is no part of a study's identity.
_FREE = frozenset({"per", "trials", "concurrency", "fresh", "start", "storage", "importance"})
#: So many studies, and changes, are named.
NAMED = 3


def edited_notes(studies: Studies, store: Store) -> list[str]:
    """Return what people should know where studies have no trials, but others had under the same names.

    Raises:
        StoreError: the store cannot be read, or a record is damaged.
    """
    new = [study for study in studies.all if not study.history.suggestions]
    if not new:
        return []
    known = {study.id for study in studies.all}
    others: dict[str, list[str]] = {}
    found = descriptions(store)
    for id_, each in found.items():
        if id_ not in known:
            others.setdefault(_place(each), []).append(id_)
    kept: dict[str, int] = {}
    changes: dict[str, None] = {}
    again = 0
    for study in new:
        mine = studies.description(study)
        trials = {}
        for id_ in others.get(_place(mine), ()):
            # Of one that is damaged nothing is told; it stops nobody.
            with contextlib.suppress(StoreError):
                trials[id_] = read_history(store, id_).suggestions
        trials = {id_: suggestions for id_, suggestions in trials.items() if suggestions}
        if not trials:
            continue
        again += 1
        kept |= {id_: len(suggestions) for id_, suggestions in trials.items()}
        last = max(trials, key=lambda id_: _made(trials[id_]))
        changes |= dict.fromkeys(_changes(found[last].get("search"), mine["search"]))
    if not again:
        return []
    return [_note(studies, store, again, kept, list(changes))]


def _note(studies: Studies, store: Store, again: int, kept: Mapping[str, int], changes: list[str]) -> str:
    spec = studies.plan.spec
    what = few(changes, NAMED) or "a stage, its config, data or code"
    begin = "its study begins" if again == 1 else f"{again} of its studies begin"
    undo = "undo the edit" if changes else "undo that"
    note = (
        f"search {spec.search_name} was edited after trials were made ({what}), so {begin} anew at trial 0. The "
        f"{sum(kept.values())} trials of before are kept in {store.location}/studies ({few(list(kept), NAMED)}); what "
        f"they computed is used where values coincide. To go on with them, {undo}"
    )
    if spec.searched and any(isinstance(each, From) for each in spec.searched.start):
        return note
    return (
        f"{note}. To tell the new ones their results, do this first: save the sweep as it was under another file "
        "name and with another `name:`, run `sweep results` on it, and write start: [{from: THAT_FILE}] here"
    )


def _place(description: Mapping[str, Any]) -> str:
    """Return what studies have in common that are one to people, edited or not."""
    return json.dumps([description.get(name) for name in ("sweep", "search_name", "coords")], sort_keys=True)


def _made(suggestions: Mapping[int, Suggestion]) -> float:
    return max(each.made for each in suggestions.values())


def _changes(before: Any, now: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs between the descriptions of two searches, as paths with both values."""
    if not isinstance(before, dict):
        return
    for name in dict.fromkeys([*before, *now]):
        if name not in _FREE:
            yield from _differences(before.get(name), now.get(name), name)


def _differences(before: Any, now: Any, path: str) -> Iterator[str]:
    if before == now or path.endswith(".default"):
        return
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*before, *now]):
            yield from _differences(before.get(name), now.get(name), f"{path}.{name}")
    elif before is None:
        yield f"{path} is new"
    elif now is None:
        yield f"{path} is gone"
    else:
        yield f"{path}: {_shown(before)} -> {_shown(now)}"


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}…"

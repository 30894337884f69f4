"""The records of a study as files of the store (`orchestrator.search.records`)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar, cast

from orchestrator.search.records import Earlier, Suggestion, Told, Verdict
from orchestrator.store import Store, StoreError

T = TypeVar("T")

_NAME = re.compile(r"(\d{1,6})(?:\.(\d{1,6}))?\.json")


@dataclass
class History:
    """All that is recorded of a study."""

    suggestions: dict[int, Suggestion] = field(default_factory=dict)
    """By number; there is no gap."""
    verdicts: dict[tuple[int, int], Verdict] = field(default_factory=dict)
    """(Trial, step) -> what the pruner said."""
    earlier: tuple[Earlier, ...] | None = None
    """None where nothing was recorded."""

    told: dict[int, Told] = field(default_factory=dict)
    """Trial -> what the sampler was told of it, by the suggestions so far."""

    def add(self, suggestion: Suggestion) -> None:
        """Take in the next suggestion."""
        self.suggestions[suggestion.number] = suggestion
        self.told |= {told.number: told for told in suggestion.told}


def read_history(store: Store, study: str) -> History:
    """Read all records of a study.

    Raises:
        StoreError: the store cannot be read, or a record is damaged.
    """
    history = History()
    suggestions: dict[int, Suggestion] = {}
    found = store.study_records(study)
    last = max((int(match[1]) for name in found if (match := _NAME.fullmatch(name))), default=-1)
    # One that another driver adds meanwhile may be listed, and one that it added before may not.
    found |= store.study_records(study, [name for n in range(last + 1) if (name := f"{n}.json") not in found])
    for name, content in found.items():
        if name == "earlier.json":
            history.earlier = _parse(store, study, name, content, _all_earlier)
        elif (match := _NAME.fullmatch(name)) and match[2]:
            verdict: Verdict = _parse(store, study, name, content, _verdict)
            history.verdicts[verdict.number, verdict.step] = verdict
        elif match:
            suggestions[int(match[1])] = _parse(store, study, name, content, _suggestion)
    for _, suggestion in sorted(suggestions.items()):
        history.add(suggestion)
    missing = [number for number in range(last + 1) if number not in history.suggestions]
    if missing:
        raise StoreError(f"{store.location}/studies/{study}/{missing[0]}.json is missing, {_remedy(store, study)}")
    return history


def add_suggestion(store: Store, study: str, suggestion: Suggestion) -> Suggestion:
    """Record a suggestion; return it, or the one that another driver recorded under its number before."""
    return _add(store, study, f"{suggestion.number}.json", suggestion, _suggestion)


def add_verdict(store: Store, study: str, verdict: Verdict) -> Verdict:
    """Record a verdict; return it, or the one that another driver recorded before."""
    return _add(store, study, f"{verdict.number}.{verdict.step}.json", verdict, _verdict)


def find_verdict(store: Store, study: str, number: int, step: int) -> Verdict | None:
    """Read what a pruner said of a trial after some of its repetitions, if that was recorded."""
    name = f"{number}.{step}.json"
    content = store.study_records(study, [name]).get(name)
    return None if content is None else _parse(store, study, name, content, _verdict)


def add_earlier(store: Store, study: str, earlier: tuple[Earlier, ...]) -> tuple[Earlier, ...]:
    """Record what a study is told before its first trial; return it, or what was recorded before."""
    content = _encode([asdict(each) for each in earlier])
    if store.add_study_record(study, "earlier.json", content):
        return earlier
    found = store.study_records(study, ["earlier.json"])["earlier.json"]
    read: tuple[Earlier, ...] = _parse(store, study, "earlier.json", found, _all_earlier)
    return read


def describe(store: Store, study: str, description: Mapping[str, Any]) -> None:
    """Record what is searched for, for people and for `edited`, unless that was done before."""
    store.add_study_record(study, "study.json", _encode(description))


def descriptions(store: Store) -> dict[str, dict[str, Any]]:
    """Read what is searched for in all studies of the store; those that cannot be read are left out.

    Raises:
        StoreError: the store cannot be read.
    """
    found = {}
    for study in store.studies():
        for content in store.study_records(study, ["study.json"]).values():
            try:
                found[study] = dict(json.loads(content))
            except (ValueError, TypeError, RecursionError):
                continue
    return found


def _add(store: Store, study: str, name: str, record: T, parse: Callable[[Any], T]) -> T:
    if store.add_study_record(study, name, _encode(asdict(cast(Any, record)))):
        return record
    found = store.study_records(study, [name])
    if name not in found:
        raise StoreError(f"{store.location}/studies/{study}/{name} was there, and is gone; leave the folder alone")
    return _parse(store, study, name, found[name], parse)


def _encode(value: Any) -> bytes:
    """Write JSON, with Python's `Infinity` for numbers that are infinite."""
    return json.dumps(value).encode()


def _parse(store: Store, study: str, name: str, content: bytes, parse: Callable[[Any], T]) -> T:
    try:
        return parse(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        place = f"{store.location}/studies/{study}/{name}"
        raise StoreError(f"{place} is damaged ({error}), {_remedy(store, study)}") from error


def _remedy(store: Store, study: str) -> str:
    return (
        f"so the study cannot go on as it began: restore the file, or delete {store.location}/studies/{study}: the "
        "study then begins anew, and what was computed is kept"
    )


def _suggestion(value: Any) -> Suggestion:
    told = tuple(
        Told(
            int(each["number"]),
            each["state"],
            _numbers(each["objectives"]),
            _numbers(each["excesses"]),
            _numbers(each["steps"]),
            str(each["why"]),
        )
        for each in value["told"]
    )
    return Suggestion(
        int(value["number"]),
        dict(value["values"]),
        told,
        dict(value["attributes"]),
        str(value["origin"]),
        float(value["made"]),
    )


def _verdict(value: Any) -> Verdict:
    return Verdict(int(value["number"]), int(value["step"]), bool(value["prune"]), dict(value["attributes"]))


def _all_earlier(value: Any) -> tuple[Earlier, ...]:
    return tuple(
        Earlier(dict(each["values"]), _numbers(each["objectives"]), _numbers(each["excesses"])) for each in value
    )


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(each) for each in values)

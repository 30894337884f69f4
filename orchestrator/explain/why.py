"""`sweep why`: all that is known of a cell, and why a step of it is not in the store."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from orchestrator.explain.estimator import sample
from orchestrator.plan.select import find_cell
from orchestrator.results.heartbeat import read_heartbeat
from orchestrator.run.schedule import Schedule, State
from orchestrator.session import Session
from orchestrator.store import Store
from orchestrator.types import Attempt, Manifest

#: So many steps of an entry are compared with so many committed ones of the same stage.
_STEPS, _OTHERS = 50, 500

#: So much of a value is shown (characters).
_LENGTH = 40

#: Path of a field in an identity, and its value as JSON.
_Fields = frozenset[tuple[str, str]]


def explain(session: Session, text: str) -> dict[str, Any]:
    """Return all that is known of one cell, as JSON; reads records, changes nothing.

    Args:
        session: the sweep.
        text: names the cell, as `find_cell` reads it.

    Raises:
        SweepError: the text names no cell, or several.
        StoreError: the store cannot be read.
    """
    # `sweep plan` asks for reasons too, and does without Arrow.
    from orchestrator.attempt.outcome import successful_attempt
    from orchestrator.results.table import Results

    plan, store, schedule = session.plan, session.store, session.schedule
    index = find_cell(plan, text)
    cell = plan.cell(index)
    results = Results(plan, store, schedule, session.studies)
    results.read_failures()
    status, failure = results.status_of(index)
    reasons = Reasons(schedule, store, results.failures)
    mine = [artifact for group in cell.steps.values() for artifact in group]
    histories, manifests = store.histories(mine), store.manifests(mine)
    # Dead drivers leave claims behind.
    claims = store.claims() if read_heartbeat(session.outputs.folder, plan.entries) else {}
    steps = []
    for name, group in cell.steps.items():
        for artifact in group:
            number = plan.number(artifact)
            assert number is not None, "a cell is made of steps of its plan"
            committed = schedule.states[number] == State.COMMITTED
            manifest = manifests[artifact]
            history = list(histories.get(artifact, ()))
            if isinstance(manifest, Manifest):
                history.append(successful_attempt(manifest, name))
            steps.append(
                {
                    "entry": name,
                    "stage": artifact.stage,
                    "key": artifact.key,
                    "state": "running" if artifact in claims else str(State(schedule.states[number])),
                    "because": reasons.of_step(number) if schedule.needed[number] else None,
                    "damage": str(manifest) if committed and not isinstance(manifest, Manifest) else None,
                    "cells": int(plan.users[number]),
                    "config": dict(plan.step(number).config),
                    "attempts": [
                        {"number": each.number, "outcome": str(each.outcome), "seconds": each.seconds}
                        | {"error_class": each.error_class, "error": each.error, "log": each.log}
                        for each in history
                    ],
                }
            )
    return {
        "cell_id": cell.id,
        "file": str(session.file),
        "coords": dict(cell.coords),
        "status": status,
        "key": plan.cell_key(index),
        "error_class": failure.error_class if failure else None,
        "error": failure.error if failure else None,
        "log": failure.log if failure else None,
        "steps": steps,
    }


class Reasons:
    """The reasons why steps are not in the store: never run, failed, or a field differs from the nearest one there.

    They are looked for in the plan first, then among the manifests of artifacts that the plan does not know.
    """

    def __init__(self, schedule: Schedule, store: Store, failures: dict[int, Attempt]) -> None:
        """Read nothing yet."""
        self._plan = schedule.plan
        self._schedule = schedule
        self._store = store
        self._failures = failures
        self._others = cache(self._read_others)

    def of_entry(self, name: str) -> Counter[str]:
        """Count the steps that are to be run by reason; where they are many, some speak for the others."""
        plan, schedule = self._plan, self._schedule
        mine = plan.home == plan.entries.index(name)
        numbers = np.flatnonzero(mine & schedule.needed & ~schedule.committed)
        found: Counter[str] = Counter()
        failed = [number for number in numbers.tolist() if number in self._failures]
        found.update(self._failed(number) for number in failed)
        numbers = np.setdiff1d(numbers, failed) if failed else numbers
        if not len(numbers):
            return found
        if not (mine & schedule.committed).any():
            some = sample(numbers, _STEPS)
            sampled = Counter(self._compared(int(number)) for number in some)
            for reason, count in sampled.items():
                found[reason] += round(len(numbers) * count / len(some))
            return found
        for reason, count in self._new_labels(name, numbers).items():
            found[reason] += count
        return found

    def of_step(self, number: int) -> str:
        """Return why one step is not there."""
        if number in self._failures:
            return self._failed(number)
        home = int(self._plan.home[number])
        if ((self._plan.home == home) & self._schedule.committed).any():
            return next(iter(self._new_labels(self._plan.entries[home], np.array([number]))))
        return self._compared(number)

    def _failed(self, number: int) -> str:
        attempt = self._failures[number]
        return f"failed before: {attempt.error_class}"

    def _new_labels(self, name: str, numbers: np.ndarray) -> Counter[str]:
        """Count steps by the labels at which no step of the entry is committed."""
        plan = self._plan
        entry, grid = plan.by_entry[name], plan.grid
        committed = np.flatnonzero((plan.home == plan.home[numbers[0]]) & self._schedule.committed)
        reasons = np.full(len(numbers), "", object)
        for axis in entry.wired.axes:
            of_points = grid.project(entry.wired.axes, (axis,))
            known = np.unique(of_points[plan.at[committed]])
            own = of_points[plan.at[numbers]]
            for label in np.setdiff1d(own, known):
                reasons[own == label] += f", {grid.names[axis]} = {grid.labels[axis][label]}"
        return Counter(f"never run with {reason[2:]}" if reason else "not run yet" for reason in reasons)

    def _compared(self, number: int) -> str:
        step = self._plan.step(number)
        others = self._others(step.stage)
        if not others:
            return "never run"
        mine = _fields(step.identity)
        nearest = min(others, key=lambda fields: len(fields ^ mine))
        before, now = dict(nearest), dict(mine)
        paths = {path for path, _ in nearest ^ mine}
        inputs = {path for path in paths if path.startswith("inputs.")}
        changed = sorted({_common(path, before, now) for path in paths - inputs})
        # Other inputs are the consequence of a change further up, unless nothing else differs.
        if not changed:
            return f"changed inputs: {', '.join(sorted(path.removeprefix('inputs.') for path in inputs))}"
        shown = [_change(path, before, now) for path in changed]
        return "; ".join(shown[:4]) + (f"; {len(shown) - 4} more fields" if len(shown) > 4 else "")

    def _read_others(self, stage: str) -> list[_Fields]:
        """Read the identities of some artifacts of the stage that this sweep does not ask for."""
        plan = self._plan
        others = sorted(each for each in self._store.committed([stage]) if plan.number(each) is None)
        some = sample(np.arange(len(others)), _OTHERS)
        found = self._store.manifests([others[index] for index in some.tolist()])
        return [_fields(each.identity) for each in found.values() if isinstance(each, Manifest)]


def _change(path: str, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    if path == "source" and path in before and path in now:
        # Digests tell nobody anything.
        return "its code was edited"
    return f"{path.removeprefix('config.')}: {_value(before, path)} -> {_value(now, path)}"


def _common(path: str, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return the innermost field around a path that both identities have, or else the field of the config."""
    while path.count(".") > 1 and "nothing" in (_value(before, path), _value(now, path)):
        path = path.rpartition(".")[0]
    return path


def _value(fields: Mapping[str, str], path: str) -> str:
    """Format a field's value: JSON, or {name: value, …} with the fields inside; "nothing" if there is none."""
    if path in fields:
        return _short(fields[path])
    inside: dict[str, str] = {}
    for name, value in sorted(fields.items()):
        if name.startswith(path + "."):
            head, deeper, _ = name.removeprefix(path + ".").partition(".")
            inside[head] = "…" if deeper else _short(value)
    return f"{{{', '.join(f'{name}: {value}' for name, value in inside.items())}}}" if inside else "nothing"


def _short(value: str) -> str:
    return value if len(value) <= _LENGTH else f"{value[: _LENGTH - 1]}…"


def _fields(identity: str) -> _Fields:
    """List the fields of an identity, with their paths."""
    fields: list[tuple[str, str]] = []

    def visit(path: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for name, item in value.items():
                visit(f"{path}.{name}" if path else name, item)
        else:
            fields.append((path, json.dumps(value)))

    visit("", json.loads(identity))
    return frozenset(fields)

"""Why a step is not in the store: never run, or which field differs from the nearest one that is."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from typing import Any

import numpy as np

from orchestrator.run.schedule import Schedule
from orchestrator.store import Store
from orchestrator.types import Attempt, Manifest

#: So many steps of an entry are compared with so many committed ones of the same stage.
_STEPS, _OTHERS = 50, 500

#: Path of a field in an identity, and its value as JSON.
_Fields = frozenset[tuple[str, str]]


class Reasons:
    """Looks for reasons in the plan first, then among the manifests of artifacts that the plan does not know."""

    def __init__(self, schedule: Schedule, store: Store, failures: dict[int, Attempt]) -> None:
        """Nothing is read before it is asked for."""
        self._plan = schedule.plan
        self._schedule = schedule
        self._store = store
        self._failures = failures
        self._others = cache(self._read_others)

    def of_entry(self, name: str) -> Counter[str]:
        """Reason -> how many of the steps that are to be run; where they are many, some speak for the others."""
        plan, schedule = self._plan, self._schedule
        mine = plan.home == plan.entries.index(name)
        numbers = np.flatnonzero(mine & schedule.needed & ~schedule.committed)
        found: Counter[str] = Counter()
        failed = [number for number in numbers.tolist() if number in self._failures]
        found.update(self._failed(number) for number in failed)
        numbers = np.setdiff1d(numbers, failed)
        if not len(numbers):
            return found
        if not (mine & schedule.committed).any():
            some = numbers[np.linspace(0, len(numbers) - 1, min(_STEPS, len(numbers))).astype(np.int64)]
            sampled = Counter(self._compared(int(number)) for number in some)
            for reason, count in sampled.items():
                found[reason] += round(len(numbers) * count / len(some))
            return found
        for reason, count in self._new_labels(name, numbers).items():
            found[reason] += count
        return found

    def of_step(self, number: int) -> str:
        """Why one step is not there."""
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
        """Steps by the labels at which no step of the entry is committed."""
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
        before, now = dict(nearest - mine), dict(mine - nearest)
        said = [
            f"{path} was {before.get(path, 'not there')}, is {now.get(path, 'not there')}"
            for path in sorted(before.keys() | now.keys())
            if not path.startswith("inputs.")
        ]
        # Other inputs are the consequence of a change further up, unless nothing else differs.
        inputs = sorted(
            path.removeprefix("inputs.") for path in before.keys() | now.keys() if path.startswith("inputs.")
        )
        if not said:
            return f"reads other {' and '.join(inputs)}"
        return "; ".join(said[:4]) + (f"; {len(said) - 4} more fields" if len(said) > 4 else "")

    def _read_others(self, stage: str) -> list[_Fields]:
        """What some artifacts of the stage are that this sweep does not ask for."""
        plan = self._plan
        others = sorted(each for each in self._store.committed([stage]) if plan.number(each) is None)
        some = [others[int(i)] for i in np.linspace(0, len(others) - 1, min(_OTHERS, len(others)))]
        found = self._store.manifests(some)
        return [_fields(each.identity) for each in found.values() if isinstance(each, Manifest)]


def _fields(identity: str) -> _Fields:
    """The fields of an identity, with their paths."""
    fields: list[tuple[str, str]] = []

    def visit(path: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for name, item in value.items():
                visit(f"{path}.{name}" if path else name, item)
        else:
            fields.append((path, json.dumps(value)))

    visit("", json.loads(identity))
    return frozenset(fields)

"""Failures: how the steps that are not committed ended last, what waits for them, and cells grouped by their errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from orchestrator.plan.needed import needed_steps
from orchestrator.run.breaker import Breaker, signature
from orchestrator.run.schedule import Schedule, State
from orchestrator.store import Store
from orchestrator.types import Attempt

#: Stands for the error class of a failed or blocked cell of which none is on record.
UNKNOWN_ERROR = "unknown"


def read_failures(schedule: Schedule, store: Store) -> dict[int, Attempt]:
    """Read the last attempt of each step that failed; the schedule learns what has failed and what that blocks.

    Returns:
        step -> its last attempt.
    """
    plan, states = schedule.plan, schedule.states
    # Few steps have a record, and a plan may have millions.
    tried = {address: plan.number(address) for address in store.tried(plan.stages)}
    if not tried:
        return {}
    missing = needed_steps(plan, schedule.committed)
    unfinished = [address for address, number in tried.items() if number is not None and missing[number]]
    failures: dict[int, Attempt] = {}
    for address, history in store.histories(unfinished).items():
        number = tried[address]
        if history and number is not None:
            failures[number] = history[-1]
            states[number] = State.FAILED
    if not failures:
        return failures
    stopped = stopped_entries(schedule, failures)
    for number in np.flatnonzero(missing).tolist():
        if states[number] == State.PENDING and (
            plan.entry_of(number) in stopped
            or any(states[parent] in (State.FAILED, State.BLOCKED) for parent in plan.parents(number))
        ):
            states[number] = State.BLOCKED
    return failures


def stopped_entries(schedule: Schedule, failures: Mapping[int, Attempt]) -> dict[str, Attempt]:
    """Find the entries that the breaker stops, judged by the failures on record.

    Returns:
        entry -> one of its failures, with the breaker's reason as its error.
    """
    plan = schedule.plan
    breaker = Breaker(plan.spec.limits.breaker)
    works = {plan.entries[home] for home in np.unique(plan.home[schedule.committed])}
    stopped: dict[str, Attempt] = {}
    for number, attempt in sorted(failures.items()):
        name = plan.entry_of(number)
        reason = breaker.failed(attempt) if name not in works else None
        if reason:
            stopped.setdefault(name, replace(attempt, error_class="breaker", error=reason))
    return stopped


class ErrorGroup(NamedTuple):
    """Unfinished cells that ended alike."""

    status: str
    error_class: str
    cells: int
    """How many."""
    example: str
    """One of their messages."""
    log: str | None
    """Its log."""


def error_groups(rows: Iterable[tuple[str, str | None, str | None, str | None]]) -> list[ErrorGroup]:
    """Group unfinished cells by their status and the `signature` of their error, the largest group first.

    Args:
        rows: (status, error class, message, log) of each cell; those that succeeded are left out.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    examples: dict[tuple[str, str, str], tuple[str, str | None]] = {}
    for status, kind, message, log in rows:
        if status != "succeeded":
            group = (status, kind or unnamed_error(status), signature(kind, message))
            counts[group] += 1
            examples.setdefault(group, (message or "", log))
    return [ErrorGroup(*group[:2], count, *examples[group]) for group, count in counts.most_common()]


def unnamed_error(status: str) -> str:
    """Return what stands for the error class of an unfinished cell that has none."""
    return UNKNOWN_ERROR if status in ("failed", "blocked") else "not run yet"

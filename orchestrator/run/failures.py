"""Failures on record: the last attempts of failed steps, the steps that they block, and cells grouped by error."""

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

#: Error class of a failed or blocked cell that has none on record.
UNKNOWN_ERROR = "unknown"


def read_failures(schedule: Schedule, store: Store) -> dict[int, Attempt]:
    """Read the last attempt of each failed step, and mark failed and blocked steps in the schedule.

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
    """Find the entries that the breaker stops, given the failures on record.

    Returns:
        entry -> one of its failures, with the breaker's reason as its error.
    """
    plan = schedule.plan
    breaker = Breaker(plan.spec.limits.breaker)
    works = {plan.entries[home] for home in set(plan.home[schedule.committed].tolist())}
    stopped: dict[str, Attempt] = {}
    for number, attempt in sorted(failures.items()):
        name = plan.entry_of(number)
        reason = breaker.failed(attempt) if name not in works else None
        if reason:
            stopped.setdefault(name, replace(attempt, error_class="breaker", error=reason))
    return stopped


class ErrorGroup(NamedTuple):
    """A group of unfinished cells with similar errors."""

    status: str
    error_class: str
    cells: int
    """Number of cells."""
    example: str
    """Message of the first of them."""
    log: str | None
    """Path of the log of that one."""


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
    """Return the substitute for the error class of an unfinished cell that has none."""
    return UNKNOWN_ERROR if status in ("failed", "blocked") else "not run yet"

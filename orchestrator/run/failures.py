"""How the steps that are not committed ended last, and what waits for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from orchestrator.plan.needed import needed_steps
from orchestrator.run.breaker import Breaker
from orchestrator.run.schedule import Schedule, State
from orchestrator.store import Store
from orchestrator.types import Attempt


def read_failures(schedule: Schedule, store: Store) -> dict[int, Attempt]:
    """Step -> its last attempt on record; the schedule learns what has failed and what is blocked by that."""
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
    """Entries that the breaker stops, judged by the failures on record -> one of those, which says so."""
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

"""Which steps can start, which wait, and which wait for what will never come."""

from __future__ import annotations

from pathlib import Path

import toy_sweep

from orchestrator.run.ready import ReadySteps
from orchestrator.run.schedule import Schedule, State
from orchestrator.session import open_session
from orchestrator.types import Runtime


def test_a_step_whose_damaged_input_cannot_be_made_again_is_blocked_with_all_that_wait_for_it(tmp_path: Path) -> None:
    session = open_session(toy_sweep.write_sweep(tmp_path), outputs=str(tmp_path / "outputs"))
    schedule: Schedule = session.schedule
    ready = ReadySteps(schedule, lambda number: Runtime())
    plan = session.plan
    source, double = plan.by_entry["source"].first, plan.by_entry["double"].first
    for number in range(len(plan)):
        if number not in (source, double):
            ready.add(number)
    # Its entry was stopped by the breaker after this one had been made; now it is damaged.
    schedule.states[source] = State.BLOCKED
    ready.add(double)
    assert schedule.states[double] == State.BLOCKED
    states = {str(State(schedule.states[number])) for number in range(*_bounds(plan, "total"))}
    assert states == {"blocked", "pending"}


def _bounds(plan: object, entry: str) -> tuple[int, int]:
    found = plan.by_entry[entry]  # type: ignore[attr-defined]
    return found.first, found.last

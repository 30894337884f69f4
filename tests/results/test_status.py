"""The status of a cell follows from the states of its steps, and the statuses of all cells travel as a short text."""

from __future__ import annotations

import numpy as np
import pytest
import toy_sweep
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.results.heartbeat import pack_codes, unpack_codes
from orchestrator.results.status import STATUSES
from orchestrator.results.table import Results
from orchestrator.run.schedule import State
from orchestrator.session import Session, open_session
from orchestrator.types import Attempt, Outcome

#: So many steps of an entry that died alike stop it.
BREAKER = 2
STATES = [State.COMMITTED, State.PENDING, State.RUNNING, State.FAILED, State.BLOCKED, State.ELSEWHERE]


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Four cells that were never run; two of them share a source of two shards, whose numbers are reported too."""
    folder = tmp_path_factory.mktemp("blank")
    text = toy_sweep.SWEEP.replace("x: [1, 2, 3]", "x: [1, 2]").replace("results: [total]", "results: [source, total]")
    file = toy_sweep.write_sweep(folder, text + f"limits: {{breaker: {BREAKER}}}\n")
    return open_session(file, outputs=str(folder / "out"))


def failure(session: Session, number: int) -> Attempt:
    address, entry = session.plan.address(number), session.plan.entry_of(number)
    # All of an entry die alike: the breaker takes no heed of numbers.
    return Attempt(address, entry, 1, Outcome.FAILED, 0.0, 0.0, "here", "", "Error", f"step {number}")


def literal(session: Session, index: int, failures: dict[int, Attempt]) -> tuple[str, str]:
    """The rule restated for one cell, step by step: its status, and how the message of its failure begins."""
    plan, states = session.plan, session.schedule.states
    steps = {
        name: [number for each in group if (number := plan.number(each)) is not None]
        for name, group in plan.cell(index).steps.items()
    }
    if all(states[number] == State.COMMITTED for name in plan.wanted for number in steps[name]):
        return "succeeded", ""
    mine = [number for group in steps.values() for number in group]
    failed = [number for number in mine if states[number] == State.FAILED]
    if alone := [number for number in failed if plan.users[number] == 1]:
        return "failed", f"step {alone[0]}"
    if failed:
        return "blocked", f"step {failed[0]}"
    works = {plan.entry_of(number) for number in range(len(plan)) if states[number] == State.COMMITTED}
    for name, group in steps.items():
        died = [number for number in failures if plan.entry_of(number) == name]
        if name not in works and len(died) >= BREAKER and any(states[number] == State.BLOCKED for number in group):
            return "blocked", f"the first {BREAKER} steps of {name!r} all ended with Error"
    return ("running" if {states[each] for each in mine} & {State.RUNNING, State.ELSEWHERE} else "pending"), ""


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_the_status_of_a_cell_and_its_failure_follow_from_the_states_of_its_steps(
    blank: Session, data: st.DataObject
) -> None:
    size, count = len(blank.plan), len(blank.plan.points)
    # Of one entry at a time all states are seldom drawn alike, so that the breaker would seldom stop it.
    usual = [data.draw(st.sampled_from(STATES)) for _ in blank.plan.entries]
    states = [
        usual[home] if data.draw(st.booleans()) else data.draw(st.sampled_from(STATES)) for home in blank.plan.home
    ]
    blank.schedule.codes[:] = states
    results = Results(blank.plan, blank.store, blank.schedule)
    results.failures = {number: failure(blank, number) for number in range(size) if states[number] == State.FAILED}
    expected = [literal(blank, index, results.failures) for index in range(count)]
    found = results.statuses()
    assert [status for status, _ in found] == [status for status, _ in expected]
    for (_, each), (_, message) in zip(found, expected, strict=True):
        assert (each is None) == (message == "")
        assert each is None or (each.error or "").startswith(message)
    # The same for all cells, for some, and for one.
    assert [STATUSES[code] for code in results.codes()] == [status for status, _ in found]
    assert results.statuses([3, 1]) == [found[3], found[1]]
    assert [results.status_of(index) for index in range(count)] == found


@given(st.lists(st.integers(0, len(STATUSES) - 1), max_size=200))
def test_packed_statuses_come_back_as_they_were(codes: list[int]) -> None:
    assert unpack_codes(pack_codes(np.array(codes, np.uint8))).tolist() == codes

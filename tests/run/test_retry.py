"""What follows from an attempt that did not succeed, by table: no executor, no store, no clock."""

from __future__ import annotations

import pytest

from orchestrator.run.retry import (
    FRESH,
    LOST_LIMIT,
    Again,
    Failed,
    StopSweep,
    Tries,
    Wait,
    begin,
    decide,
    not_begun,
)
from orchestrator.types import Artifact, Attempt, Outcome


def ended(outcome: Outcome, error_class: str | None = None) -> Attempt:
    return Attempt(Artifact("stage", "a" * 32), "entry", 1, outcome, 1.0, 0.0, "host", "abc", error_class, "the reason")


@pytest.mark.parametrize("outcome", [Outcome.CRASHED, Outcome.OUT_OF_MEMORY, Outcome.IO_ERROR, Outcome.DAMAGED_INPUT])
def test_what_may_pass_is_tried_again_with_growing_pauses_until_no_try_is_left(outcome: Outcome) -> None:
    tries, pauses = FRESH, []
    while True:
        tries = begin(tries)
        decision = decide(tries, ended(outcome), allowed=9)
        tries = decision.tries
        if not isinstance(decision, Again):
            break
        pauses.append(decision.pause)
    assert isinstance(decision, Failed)
    assert tries.counted == 9
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.REJECTED, Outcome.TIMED_OUT])
def test_what_would_end_alike_is_not_tried_again(outcome: Outcome) -> None:
    assert decide(begin(FRESH), ended(outcome), allowed=9) == Failed(Tries(counted=1))


def test_a_lost_node_costs_no_try_and_is_forgiven_a_hundred_times() -> None:
    tries = FRESH
    for _ in range(LOST_LIMIT - 1):
        decision = decide(begin(tries), ended(Outcome.LOST), allowed=1)
        assert isinstance(decision, Again)
        tries = decision.tries
    assert (tries.counted, tries.made) == (0, LOST_LIMIT - 1)
    assert isinstance(decide(begin(tries), ended(Outcome.LOST), allowed=1), Failed)


@pytest.mark.parametrize("outcome", [Outcome.CRASHED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY])
def test_what_another_step_of_the_bundle_may_have_done_costs_no_try_and_the_next_one_is_made_alone(
    outcome: Outcome,
) -> None:
    decision = decide(begin(FRESH), ended(outcome), allowed=1, neighbours=8, shared=True)
    assert isinstance(decision, Again)
    assert (decision.tries.counted, decision.tries.lost, decision.tries.alone) == (0, 1, True)
    alone = decide(begin(decision.tries), ended(outcome), allowed=1, neighbours=1)
    assert isinstance(alone, Failed)


def test_a_step_that_died_among_others_is_tried_alone() -> None:
    among = decide(begin(FRESH), ended(Outcome.CRASHED), allowed=3, neighbours=2)
    assert among == Again(Tries(counted=1, alone=True), 1.0)
    assert decide(begin(FRESH), ended(Outcome.CRASHED), allowed=3) == Again(Tries(counted=1), 1.0)


def test_a_step_that_ran_out_of_memory_remembers_how_often() -> None:
    once = decide(begin(FRESH), ended(Outcome.OUT_OF_MEMORY), allowed=3).tries
    assert once.out_of_memory == 1
    # Giving up asks for no more.
    last = decide(begin(begin(once)), ended(Outcome.OUT_OF_MEMORY), allowed=3)
    assert last == Failed(Tries(counted=3, out_of_memory=1))


def test_a_step_that_another_driver_computes_is_looked_at_again_and_costs_no_try() -> None:
    assert decide(begin(FRESH), ended(Outcome.CLAIMED), allowed=1) == Wait(FRESH, 2.0)


@pytest.mark.parametrize(("outcome", "error"), [(Outcome.STORE_ERROR, None), (Outcome.FAILED, "CodeChangedError")])
def test_what_every_other_step_would_meet_too_stops_the_sweep(outcome: Outcome, error: str | None) -> None:
    assert decide(begin(FRESH), ended(outcome, error), allowed=9) == StopSweep(Tries(counted=1), "the reason")


def test_a_step_that_was_not_begun_has_made_no_attempt() -> None:
    assert not_begun(begin(FRESH), suspect=False) == FRESH
    assert not_begun(begin(FRESH), suspect=True) == Tries(alone=True)

"""Waiting for a store that is away: how long, what is told, and what is not waited for."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from orchestrator.attempt import outage as module
from orchestrator.attempt.outage import Outage
from orchestrator.store.errors import StoreAwayError, StoreError


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.002)
    monkeypatch.setattr(module, "TOLD_AFTER", 0.0)


def store_error(cause: Exception) -> StoreError:
    try:
        raise StoreError("the store cannot be reached") from cause
    except StoreError as error:
        return error


STALE = OSError(errno.ESTALE, "Stale file handle")


def failing(*errors: Exception) -> Callable[[], str]:
    left = list(errors)

    def action() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return action


@pytest.mark.parametrize(
    "error",
    [
        store_error(STALE),
        STALE,
        OSError(errno.EIO, "Input/output error"),
        store_error(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")),
        store_error(TimeoutError()),
        store_error(type("EndpointConnectionError", (Exception,), {})("no answer")),
    ],
)
def test_what_fails_because_the_store_is_away_is_done_again(error: Exception) -> None:
    assert Outage().endure(failing(error, error, error)) == "done"


@pytest.mark.parametrize(
    "error",
    [
        store_error(OSError(errno.ENOSPC, "No space left on device")),
        store_error(PermissionError("no access")),
        OSError(errno.EMFILE, "Too many open files"),
        store_error(OSError(errno.EMFILE, "Too many open files")),
        store_error(ValueError("a bug")),
        StoreError("a store of another kind"),
        StoreAwayError("waited for already"),
        ValueError("a bug"),
    ],
)
def test_what_waiting_does_not_help_is_not_waited_for(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        Outage().endure(failing(error))
    assert raised.value is error


def test_an_outage_is_told_once_and_once_more_when_it_is_over() -> None:
    told: list[str] = []
    outage = Outage()
    with outage.telling(told.append):
        outage.endure(failing(STALE, STALE, STALE))
        outage.endure(failing())
    away, back = told
    assert "the store has been away for 0 s ([Errno 116] Stale file handle); it is waited for, up to 10 min" in away
    assert back == "the store is back after 0 s; the sweep goes on"
    outage.endure(failing(STALE))
    assert len(told) == 2


def test_a_short_outage_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOLD_AFTER", 60.0)
    told: list[str] = []
    outage = Outage()
    with outage.telling(told.append):
        outage.endure(failing(STALE, STALE))
    assert told == []


def test_patience_is_that_of_the_process_and_is_new_once_the_store_was_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.02)
    outage, tries = Outage(), []

    def never() -> None:
        tries.append(1)
        raise STALE

    with pytest.raises(StoreAwayError, match="Stale file handle"):
        outage.endure(never)
    assert len(tries) > 1
    tries.clear()
    with pytest.raises(StoreAwayError):
        outage.endure(never)
    assert len(tries) == 1
    outage.endure(failing(), proof=False)
    with pytest.raises(StoreAwayError):
        outage.endure(never)
    outage.endure(failing())
    assert outage.endure(failing(STALE)) == "done"


def test_an_outage_long_after_another_is_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.02)
    monkeypatch.setattr(module, "_CALM", -1.0)
    outage = Outage()
    for _ in range(2):
        # A process that was idle in the meantime has not seen that the store was back.
        assert not outage.look(failing(STALE))
        assert outage.endure(failing(STALE)) == "done"


def test_a_look_waits_for_nothing_and_a_refusal_is_an_answer() -> None:
    outage = Outage()
    assert not outage.look(failing(STALE))
    assert outage.look(failing(store_error(PermissionError("no access"))))
    assert outage.look(failing())


def test_what_a_step_takes_leaves_out_how_long_it_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    outage, before = Outage(), 0.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: 100.0)
    before = outage.clock()
    outage.endure(failing(STALE, STALE))
    assert outage.clock() < before


def test_a_forked_process_tells_nobody_of_its_outage() -> None:
    outage = module.OUTAGE
    with outage.telling(lambda _: os._exit(1)):
        child = os.fork()
        if child == 0:
            try:
                outage.endure(failing(STALE))
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0

"""Recovers the attempts of a bundle whose process died, from what its steps left in the store."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from orchestrator.attempt.attempt import record_attempt
from orchestrator.attempt.capture import rescue_log
from orchestrator.attempt.outcome import InterpreterError, failed_attempt, successful_attempt
from orchestrator.attempt.request import Request
from orchestrator.store import StoreError, open_store
from orchestrator.types import Attempt, Manifest, Outcome


class UnreadableError(Exception):
    """The process that was to run steps cannot import what they name."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the process of the steps cannot import what they name: {reason}")


class UnplaceableError(Exception):
    """No node of the cluster can hold a step."""


def attempts_after(requests: Sequence[Request], error: Exception, submitted: float) -> Iterator[Attempt]:
    """Yield the attempts of a bundle whose process could not run it, or ended while it did so.

    Args:
        requests: the bundle.
        error: an `InterpreterError` or `UnreadableError`; anything else is how the process ended.
        submitted: Unix time in seconds.
    """
    if not isinstance(error, InterpreterError | UnreadableError):
        yield from recovered_attempts(requests, error, Outcome.CRASHED, submitted)
        return
    for request in requests:
        told = error
        if isinstance(error, InterpreterError):
            told = InterpreterError(
                f"runtime.{request.step.entry}.python: {error}; correct the path, or install there what steps need "
                "(docs/cluster.md)"
            )
        yield record_failure(request, Outcome.FAILED, told, submitted)


def recovered_attempts(
    requests: Sequence[Request], error: Exception, outcome: Outcome, submitted: float
) -> Iterator[Attempt]:
    """Yield the attempts of a bundle whose process died, from the store: each step left a manifest or a record.

    Steps ran in order: the first one without a trace was running when the process died, and gets a record now; those
    after it were not begun.

    Args:
        requests: the bundle.
        error: why the process died.
        outcome: the outcome of the step that was running.
        submitted: Unix time in seconds.
    """
    store = open_store(requests[0].store)
    addresses = [request.step.address for request in requests]
    try:
        manifests, histories = store.manifests(addresses), store.histories(addresses)
    except StoreError as unread:
        # A retry finds what is committed.
        for request in requests:
            yield record_failure(request, Outcome.LOST, unread, submitted)
        return
    for request in requests:
        manifest = manifests[request.step.address]
        # The worker's own watchdog also records how a step ended before it kills the process. Other drivers may have
        # made attempts with this number.
        recorded = [
            each
            for each in histories.get(request.step.address, ())
            if (each.driver, each.number) == (request.driver, request.number)
        ]
        if isinstance(manifest, Manifest):
            # It may have died between publishing the artifact and ending the claim.
            with contextlib.suppress(StoreError):
                store.end_claim(request.step.address, request.driver)
            yield successful_attempt(manifest, request.step.entry)
        elif recorded:
            yield recorded[-1]
            if recorded[-1].outcome in (Outcome.TIMED_OUT, Outcome.CRASHED):
                return
        else:
            steps = [(each.step.address, each.number) for each in requests[: requests.index(request) + 1]]
            yield record_failure(request, outcome, error, submitted, rescue_log(store, steps))
            return


def record_failure(
    request: Request, outcome: Outcome, error: Exception, submitted: float, log: str | None = None
) -> Attempt:
    """Record and return the failed attempt of a step whose worker died before it did."""
    seconds = time.time() - submitted
    attempt = failed_attempt(request, outcome, error, submitted, seconds, _message(outcome, error), log)
    return replace(attempt, unrecorded=not record_attempt(attempt, request.store))


def _message(outcome: Outcome, error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    first, last = lines[0], lines[-1]
    if outcome is Outcome.OUT_OF_MEMORY:
        return f"the node ran out of memory: {first}"
    if outcome is Outcome.TIMED_OUT or isinstance(error, UnreadableError | UnplaceableError | InterpreterError):
        return str(error)
    if outcome is Outcome.FAILED:
        # Ray's text is a traceback.
        return f"a Ray worker could not start the step: {last}; are the packages installed on its node?\n{error}"
    if isinstance(error, StoreError):
        return f"the worker process died, and its results cannot be read ({first})"
    if outcome is Outcome.LOST:
        return f"the node of the step was lost ({first})"
    return f"the worker process died ({first})"

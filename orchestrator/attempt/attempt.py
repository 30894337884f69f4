"""Runs one attempt at a step, on any machine: call its stage, commit its output, record the outcome."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path

from orchestrator.attempt import signals
from orchestrator.attempt.checkpoints import StepCheckpoints
from orchestrator.attempt.outage import OUTAGE
from orchestrator.attempt.outcome import (
    DamagedInputsError,
    RejectedError,
    classify,
    explain,
    failed_attempt,
    successful_attempt,
)
from orchestrator.attempt.process import PROCESS
from orchestrator.attempt.request import Request
from orchestrator.attempt.seal import detach, make_read_only
from orchestrator.attempt.stage_call import call_stage
from orchestrator.store import (
    ClaimedError,
    DamagedArtifactError,
    Lease,
    Store,
    StoreError,
    UnfitError,
    list_files,
    open_store,
)
from orchestrator.store.errors import StoreAwayError
from orchestrator.types import Artifact, Attempt, Manifest, Outcome
from workers.artifacts import REFERENCE, is_placed, referred
from workers.checkpoints import NONE
from workers.metric import Undefined


def run_attempt(
    request: Request,
    fetched: dict[Artifact, Path] | None = None,
    guard: Callable[[Request], AbstractContextManager[object]] = nullcontext,
) -> Attempt:
    """Try a step and return how it ended, whatever the stage raises, `sys.exit` and its like included.

    A success is recorded by the committed manifest, everything else by a record of the attempt. While the store is
    away, it is waited for, with what the step has made in its folder.

    Args:
        request: the step, and how to run it.
        fetched: artifact -> folder of inputs that were verified already; those that are fetched are added.
        guard: context manager entered around the work of the stage, for time limits; what the store takes is no fault
            of the step.

    Raises:
        BaseException: what a signal handler raised to end this process.
    """
    started = time.time()
    clock = OUTAGE.clock()
    try:
        store = store_at(request.store)
        address = request.step.address
        with OUTAGE.entered(lambda: store.lease(address, request.driver, request.stale_claim, request.number)) as lease:
            # Another driver may have finished it since ours listed the store.
            known = OUTAGE.endure(lambda: store.manifests([address])[address])
            if isinstance(known, Manifest):
                return successful_attempt(known, request.step.entry)
            manifest = _try_step(request, store, lease, {} if fetched is None else fetched, guard, started, clock)
        return successful_attempt(manifest, request.step.entry)
    except BaseException as caught:
        error = caught
    outcome = classify(error, request)
    message = explain(error, outcome)
    signals.reraise()
    seconds = OUTAGE.clock() - clock
    attempt = failed_attempt(request, outcome, error, started, seconds, message, PROCESS.end_log(request))
    attempt = replace(
        attempt,
        damaged=error.addresses if isinstance(error, DamagedInputsError) else (),
        holder=error.holder if isinstance(error, ClaimedError) else None,
    )
    if outcome is Outcome.CLAIMED or isinstance(error, StoreAwayError):
        # The step has not failed.
        return attempt
    return replace(attempt, unrecorded=not record_attempt(attempt, request.store))


def _try_step(
    request: Request,
    store: Store,
    lease: Lease,
    fetched: dict[Artifact, Path],
    guard: Callable[[Request], AbstractContextManager[object]],
    started: float,
    clock: float,
) -> Manifest:
    """Call the stage and commit its output."""
    OUTAGE.endure(lambda: PROCESS.begin_log(request), proof=False)
    checkpoints = None
    if request.step.definition.checkpoints:
        checkpoints = OUTAGE.endure(lambda: StepCheckpoints(request, store))
    try:
        metrics = call_stage(request, store, lease.folder, fetched, guard, checkpoints or NONE)
    except BaseException as error:
        PROCESS.log_error()
        if checkpoints and checkpoints.resumed and classify(error, request) in (Outcome.FAILED, Outcome.REJECTED):
            # They may be why.
            checkpoints.clear()
        raise
    # A stage that swallowed Ctrl-C has not finished.
    signals.reraise()
    manifest = commit(request, store, lease, metrics, started, OUTAGE.clock() - clock)
    if checkpoints:
        checkpoints.clear()
    return manifest


def commit(
    request: Request, store: Store, lease: Lease, metrics: dict[str, float | Undefined], started: float, seconds: float
) -> Manifest:
    """Publish the output of a stage, read-only from now on; return the manifest of what the store has then.

    Args:
        request: the step.
        store: where to publish.
        lease: the lease on the step, with the folder that the stage wrote into.
        metrics: checked metrics of the stage.
        started: Unix time in seconds.
        seconds: how long the stage took.

    Raises:
        RejectedError: the folder has something other than regular files, or refers to an artifact that is not among the
            inputs of the step.
        DamagedInputsError: another process published the artifact first, and it is damaged.
        StoreError: the store cannot be written; StoreAwayError: it was waited for.
    """
    address = request.step.address
    try:
        files = OUTAGE.endure(lambda: list_files(lease.folder), proof=False)
        if PROCESS.spoilt:
            detach(lease.folder, files)
            files = OUTAGE.endure(lambda: list_files(lease.folder), proof=False)
        make_read_only(lease.folder, files)
        refers_to = referred(lease.folder)
    except UnfitError as error:
        raise RejectedError(str(error)) from error
    if refers_to and not is_placed(refers_to):
        raise RejectedError(f"its {REFERENCE} names the artifact {'/'.join(refers_to)}, which is none of its inputs")
    manifest = Manifest(
        address=address,
        identity=request.step.identity,
        files=files,
        metrics={name: value for name, value in metrics.items() if not isinstance(value, Undefined)},
        undefined={name: value.reason for name, value in metrics.items() if isinstance(value, Undefined)},
        attempt=request.number,
        seconds=seconds,
        finished=started + seconds,
        host=socket.gethostname(),
        code_commit=request.code_commit,
        log=PROCESS.end_log(request),
        versions=PROCESS.versions(),
        source=request.step.definition.origin.source if request.step.definition.origin else None,
        refers_to=refers_to and Artifact(*refers_to),
    )
    if OUTAGE.endure(lambda: lease.commit(manifest)):
        return manifest
    # Another process published first, and its artifact is what everybody will read; or we did, and the answer was lost.
    published = OUTAGE.endure(lambda: store.manifests([address])[address])
    if isinstance(published, DamagedArtifactError):
        OUTAGE.endure(lambda: store.discard(address))
        raise DamagedInputsError([published])
    return published


def record_attempt(attempt: Attempt, location: str) -> bool:
    """Append an attempt to the history; return whether the store can be written now.

    A full disk must not hide how the attempt ended, and a worker need not wait: the driver records it later.
    """
    try:
        store_at(location).record(attempt)
    except StoreError:
        return False
    return True


def record_once(attempt: Attempt, store: Store) -> None:
    """Append an attempt to the history, unless an earlier try did and only its answer was lost.

    Raises:
        StoreError: the store cannot be read or written.
    """
    attempt = replace(attempt, unrecorded=False)
    if attempt not in store.histories([attempt.address]).get(attempt.address, ()):
        store.record(attempt)


@cache
def store_at(location: str) -> Store:
    """Open the store at a location, once per process."""
    return open_store(location)

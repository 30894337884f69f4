"""Runs one attempt at a step, on any machine: call its stage, commit its output, record the outcome."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path

from orchestrator.attempt import signals
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
from orchestrator.attempt.seal import make_read_only
from orchestrator.attempt.stage_call import call_stage
from orchestrator.store import (
    DamagedArtifactError,
    Store,
    StoreError,
    UnfitError,
    list_files,
    open_store,
    output_folder,
)
from orchestrator.store.claims import ClaimedError, claimed
from orchestrator.types import Artifact, Attempt, Manifest, Outcome
from workers.metric import Undefined


def run_attempt(
    request: Request,
    fetched: dict[Artifact, Path] | None = None,
    guard: Callable[[Request], AbstractContextManager[object]] = nullcontext,
) -> Attempt:
    """Try a step and return how it ended, whatever the stage raises, `sys.exit` and its like included.

    A success is recorded by the committed manifest, everything else by a record of the attempt.

    Args:
        request: the step, and how to run it.
        fetched: artifact -> folder of inputs that were verified already; those that are fetched are added.
        guard: context manager entered around the work, for time limits.

    Raises:
        BaseException: what a signal handler raised to end this process.
    """
    started = time.time()
    clock = time.perf_counter()
    try:
        store = store_at(request.store)
        with claimed(store, request.step.address, request.driver, request.stale_claim):
            # Another driver may have finished it since ours listed the store.
            known = store.manifests([request.step.address])[request.step.address]
            if isinstance(known, Manifest):
                return successful_attempt(known, request.step.entry)
            with guard(request):
                manifest = _try_step(request, store, {} if fetched is None else fetched, started, clock)
        return successful_attempt(manifest, request.step.entry)
    except BaseException as caught:
        error = caught
    outcome = classify(error, request)
    message = explain(error, outcome)
    signals.reraise()
    seconds = time.perf_counter() - clock
    attempt = failed_attempt(request, outcome, error, started, seconds, message, PROCESS.end_log(request))
    attempt = replace(
        attempt,
        damaged=error.addresses if isinstance(error, DamagedInputsError) else (),
        holder=error.holder if isinstance(error, ClaimedError) else None,
    )
    if outcome is not Outcome.CLAIMED:
        record_attempt(attempt, request.store)
    return attempt


def _try_step(request: Request, store: Store, fetched: dict[Artifact, Path], started: float, clock: float) -> Manifest:
    """Call the stage and commit its output."""
    with output_folder(store, request.step.address, request.driver) as out:
        PROCESS.begin_log(request)
        try:
            metrics = call_stage(request, store, out, fetched)
        except BaseException:
            PROCESS.log_error()
            raise
        # A stage that swallowed Ctrl-C has not finished.
        signals.reraise()
        return commit(request, store, out, metrics, started, time.perf_counter() - clock)


def commit(
    request: Request, store: Store, out: Path, metrics: dict[str, float | Undefined], started: float, seconds: float
) -> Manifest:
    """Publish the output of a stage, read-only from now on; return the manifest of what the store has then.

    Args:
        request: the step.
        store: where to publish.
        out: the folder that the stage wrote into.
        metrics: checked metrics of the stage.
        started: Unix time in seconds.
        seconds: how long the stage took.

    Raises:
        RejectedError: the folder has something other than regular files.
        DamagedInputsError: another process published the artifact first, and it is damaged.
        StoreError: the store cannot be written.
    """
    address = request.step.address
    try:
        files = list_files(out)
        make_read_only(out, files)
    except UnfitError as error:
        raise RejectedError(str(error)) from error
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
    )
    if store.commit(out, manifest):
        return manifest
    # Another process published first, and its artifact is what everybody will read.
    published = store.manifests([address])[address]
    if isinstance(published, DamagedArtifactError):
        store.discard(address)
        raise DamagedInputsError([published])
    return published


def record_attempt(attempt: Attempt, location: str) -> None:
    """Append an attempt to the history if the store can be written: a full disk must not hide how the attempt ended."""
    with contextlib.suppress(StoreError):
        store_at(location).record(attempt)


@cache
def store_at(location: str) -> Store:
    """Open the store at a location, once per process."""
    return open_store(location)

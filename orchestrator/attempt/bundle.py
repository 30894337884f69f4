"""Runs a bundle: several steps tried by one process, one after another or together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from orchestrator.attempt import signals
from orchestrator.attempt.attempt import commit, run_attempt, store_at
from orchestrator.attempt.outage import OUTAGE
from orchestrator.attempt.outcome import RejectedError, error_class_of, store_outcome, successful_attempt
from orchestrator.attempt.process import PROCESS
from orchestrator.attempt.request import Request, shares_work
from orchestrator.attempt.seal import same_folder, sealed, sealed_bundle
from orchestrator.attempt.stage_call import (
    check_metrics,
    config_of,
    input_folders,
    keep_declared_files,
    prepared_function,
)
from orchestrator.store import ClaimedError, StoreError
from orchestrator.types import Artifact, Attempt, Manifest, Outcome
from workers.stage import Call


def run_bundle(
    requests: Sequence[Request], guard: Callable[[Request], AbstractContextManager[object]] = nullcontext
) -> list[Attempt]:
    """Try the steps of a bundle one after another; each commits and fails by itself.

    An artifact is published as soon as its step ends, so that it survives if this process is killed later; all
    artifacts of a bundle are flushed to disk together, before the first of them is reported.

    Args:
        requests: the steps, and how to run them.
        guard: context manager entered around each attempt, for time limits.

    Returns:
        The attempts that were made, at least one. If the GPU failed or is missing, the last one is `CRASHED`: then this
        process may run no further step, and the rest of the bundle was not begun. The same is true where
        `PROCESS.spoilt` is set afterwards.

    Raises:
        BaseException: what a signal handler raised to end this process; never what a stage raised.
    """
    fetched: dict[Artifact, Path] = {}
    store = store_at(requests[0].store)
    with OUTAGE.deferring(), signals.watched(), PROCESS.capturing(store), sealed_bundle():
        together = _run_together(requests, guard, fetched) if shares_work(requests) else ()
        done = {attempt.address: attempt for attempt in together}
        attempts: list[Attempt] = []
        for request in requests:
            attempt = done.get(request.step.address)
            if attempt is None and not (attempts and _must_end(attempts)):
                attempt = run_attempt(request, fetched, guard)
            if attempt is not None:
                attempts.append(attempt)
    committed = {attempt.address for attempt in attempts if attempt.outcome is Outcome.SUCCEEDED}
    try:
        if committed:
            OUTAGE.endure(lambda: store_at(requests[0].store).flush(committed), proof=False)
    except StoreError as error:
        kind = store_outcome(error)
        name = error_class_of(error, kind)
        return [
            replace(each, outcome=kind, error_class=name, error=str(error)) if each.address in committed else each
            for each in attempts
        ]
    return attempts


def _must_end(attempts: Sequence[Attempt]) -> bool:
    return PROCESS.spoilt is not None or any(attempt.outcome is Outcome.CRASHED for attempt in attempts)


def _run_together(
    requests: Sequence[Request],
    guard: Callable[[Request], AbstractContextManager[object]],
    fetched: dict[Artifact, Path],
) -> Iterator[Attempt]:
    """Yield the successes of a stage that does several steps at once; the others count as not tried."""
    store = store_at(requests[0].store)
    with contextlib.ExitStack() as stack:
        try:
            known = OUTAGE.endure(lambda: store.manifests([request.step.address for request in requests]))
            begun = []
            for request in requests:
                address = request.step.address
                if isinstance(known[address], Manifest):
                    continue
                with contextlib.suppress(ClaimedError):
                    taking = partial(store.lease, address, request.driver, request.stale_claim, request.number)
                    lease = stack.enter_context(OUTAGE.entered(taking))
                    call = Call(config_of(request), lease.folder, input_folders(request, store, fetched))
                    begun.append((request, lease, call))
            if len(begun) < 2:
                return
            function = prepared_function(requests[0].step.definition.together, requests[0])
            OUTAGE.endure(lambda: PROCESS.begin_log(requests[0]), proof=False)
            # Between two results the stage has not ended.
            stack.enter_context(sealed())
            clock = time.perf_counter()
            with guard(_with_timeout_of(requests[0], len(requests))), same_folder():
                results = function([call for _, _, call in begun])
            shared = (time.perf_counter() - clock) / len(begun)
            for request, lease, call in begun:
                OUTAGE.endure(partial(PROCESS.begin_log, request), proof=False)
                clock = time.perf_counter()
                with contextlib.suppress(RejectedError):
                    with guard(request):
                        with same_folder():
                            metrics = next(results)
                        if metrics is None:
                            continue
                        seconds = shared + time.perf_counter() - clock
                        checked = check_metrics(metrics, call.config.declared(), request.step)
                        keep_declared_files(call.out, request.step.definition.files)
                    manifest = commit(request, store, lease, checked, time.time() - seconds, seconds)
                    yield successful_attempt(manifest, request.step.entry)
            # It ends what it kept for all of them, such as a pool of threads, which else would count as left.
            next(results, None)
        except BaseException:
            signals.reraise()
            # The steps are tried one by one next, which shows what is wrong with each.
            PROCESS.log_error()


def _with_timeout_of(request: Request, steps: int) -> Request:
    """Return a request with the time limit of several steps."""
    timeout = request.runtime.timeout
    return replace(request, runtime=replace(request.runtime, timeout=timeout and timeout * steps))

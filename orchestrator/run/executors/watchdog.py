"""Limits the time of a step from another thread of its process."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time

import psutil

from orchestrator.attempt.attempt import record_once, store_at
from orchestrator.attempt.outage import OUTAGE
from orchestrator.attempt.outcome import failed_attempt, timeout_error
from orchestrator.attempt.process import PROCESS
from orchestrator.attempt.request import Request
from orchestrator.attempt.silence import Silence, describe_silence, silence_limit, silent_error
from orchestrator.store import StoreError
from orchestrator.types import Outcome


class Watchdog:
    """A time limit: it kills this worker and its children, since a hang inside C code ends in no other way."""

    def __init__(self, request: Request) -> None:
        """Prepare for a step; the time runs from here on."""
        self._request = request
        self._started = time.time()
        self._over = threading.Event()

    def __enter__(self) -> None:
        if self._request.runtime.timeout or silence_limit(self._request.runtime):
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        request, told = self._request, False
        limit = silence_limit(request.runtime)
        silence = Silence(os.getpid(), limit) if limit else None
        deadline = time.monotonic() + (request.runtime.timeout or math.inf)
        while not self._over.wait(min(deadline - time.monotonic(), silence.pause if silence else math.inf)):
            if time.monotonic() >= deadline:
                self._kill(timeout_error(request))
            seconds = silence.look() if silence else None
            if seconds is not None and request.runtime.silent_ends:
                self._kill(silent_error(request, seconds))
            if seconds is not None and not told:
                told = True
                sentence = describe_silence(request, os.getpid(), seconds)
                PROCESS.log(f"{sentence}\n")
                # For the driver, which may be on another machine.
                with contextlib.suppress(StoreError):
                    store_at(request.store).leave_notice(request.step.address, request.number, sentence)

    def _kill(self, error: TimeoutError) -> None:
        request = self._request
        seconds = time.time() - self._started
        attempt = failed_attempt(
            request, Outcome.TIMED_OUT, error, self._started, seconds, str(error), PROCESS.end_log(request)
        )
        # The driver learns it from the store alone. Where it cannot, the step counts as crashed.
        with contextlib.suppress(StoreError):
            OUTAGE.endure(lambda: record_once(attempt, store_at(request.store)))
        for child in psutil.Process().children(recursive=True):
            child.kill()
        os._exit(1)

"""Runs steps one after another in this process: for notebooks and tests."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType

from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.outcome import timeout_error
from orchestrator.attempt.process import PROCESS
from orchestrator.attempt.request import Request
from orchestrator.run.executors import NO_TURNS, Ended, ExecutorLostError, OnePlace, Slot
from orchestrator.types import Outcome, Runtime


class InlineExecutor(OnePlace):
    """An executor without Ray, in this process, which a step that crashes takes with it; `child` is safe from that."""

    def __init__(self) -> None:
        self.cpus = 1.0
        self.bundle_seconds = 0.0
        self._queue: deque[tuple[Request, ...]] = deque()
        self._model: str | None = None
        self._gpu_failure: str | None = None
        """Error of a GPU in this process, which may run no further step; None if there was none."""

    def slots(self, runtime: Runtime) -> int:
        """Return 1: steps run one at a time."""
        return 1

    def find_slot(self, runtime: Runtime, ready: Mapping[str, int], turns: Mapping[str, int] = NO_TURNS) -> Slot | None:
        """Return a slot if no bundle is queued, for the model that was loaded last if it has ready steps."""
        return None if self._queue else self._slot(ready)

    def _slot(self, ready: Mapping[str, int]) -> Slot:
        return Slot(self._model if self._model in ready else next(iter(ready), None))

    def submit(self, requests: Sequence[Request], slot: Slot) -> None:
        """Queue a bundle for the next `wait`."""
        self._model = slot.model or self._model
        self._queue.append(tuple(requests))

    def wait(self, seconds: float) -> list[Ended]:
        """Run the queued bundle in this thread.

        Raises:
            ExecutorLostError: a GPU failed or was missing in an earlier bundle.
        """
        if self._gpu_failure:
            raise ExecutorLostError(self._gpu_failure)
        if not self._queue:
            return []
        requests = self._queue.popleft()
        attempts = tuple(run_bundle(requests, alarm))
        # There is no other process.
        PROCESS.spoilt = None
        for attempt in attempts:
            if attempt.outcome is Outcome.CRASHED:
                self._gpu_failure = f"no step can run in this process after {attempt.entry}: {attempt.error}"
        return [Ended(requests, attempts)]

    def stop(self) -> None:
        """Clear the queue."""
        self._queue.clear()


@contextlib.contextmanager
def alarm(request: Request) -> Iterator[None]:
    """Raise TimeoutError in the main thread after the timeout; other threads have none, and steps run on."""
    seconds = request.runtime.timeout
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise timeout_error(request)

    before = signal.getsignal(signal.SIGALRM)
    try:
        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

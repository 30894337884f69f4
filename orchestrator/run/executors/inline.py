"""Runs steps one after another in this process: for tests, for `--inline`, and for the debugger."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType

from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.request import Request
from orchestrator.run.executors import Ended, ExecutorLostError, Slot, Snapshot
from orchestrator.types import Outcome, Runtime


class InlineExecutor:
    """An executor without Ray; a step that is killed takes the whole process with it."""

    def __init__(self) -> None:
        self.cpus = 1.0
        self.bundle_seconds = 0.0
        self._queue: deque[tuple[Request, ...]] = deque()
        self._model: str | None = None
        self._spoilt: str | None = None
        """How a GPU failed in this process, which runs no step any more."""

    def slots(self, runtime: Runtime) -> int:
        """One at a time."""
        return 1

    def place(self, runtime: Runtime, ready: Mapping[str, int]) -> Slot | None:
        """One at a time; the model that was loaded last first."""
        if self._queue:
            return None
        return Slot(self._model if self._model in ready else next(iter(ready), None))

    def submit(self, requests: Sequence[Request], place: Slot) -> None:
        """Queue a bundle for the next `wait`."""
        self._model = place.model or self._model
        self._queue.append(tuple(requests))

    def wait(self, seconds: float) -> list[Ended]:
        """Run the queued bundle here and now.

        Raises:
            ExecutorLostError: a GPU failed under an earlier one, or was not there.
        """
        if self._spoilt:
            raise ExecutorLostError(self._spoilt)
        if not self._queue:
            return []
        requests = self._queue.popleft()
        attempts = tuple(run_bundle(requests, _alarm))
        for attempt in attempts:
            if attempt.outcome is Outcome.CRASHED:
                self._spoilt = f"no step can run in this process after {attempt.entry}: {attempt.error}"
        return [Ended(requests, attempts)]

    def unschedulable(self) -> str | None:
        """This process takes every step."""
        return None

    def usage(self) -> Mapping[str, tuple[float, float]]:
        """Nothing is reserved in one process."""
        return {}

    def publish(self, sweep: str, standing: Snapshot) -> None:
        """Nobody monitors one process."""

    def stop(self) -> None:
        """Forget what was queued."""
        self._queue.clear()


@contextlib.contextmanager
def _alarm(request: Request) -> Iterator[None]:
    """Raise TimeoutError in the main thread after the timeout; elsewhere there is no way, and steps run on."""
    seconds = request.runtime.timeout
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"the step ran longer than its timeout of {seconds:g} s (runtime.timeout)")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

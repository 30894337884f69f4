"""Runs steps one after another in this process: for tests, for `--inline`, and for the debugger."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections import deque
from collections.abc import Iterator
from types import FrameType

from orchestrator.attempt import Request, run_attempt
from orchestrator.types import Attempt


class InlineExecutor:
    """An executor without Ray; a step that is killed takes the whole process with it."""

    def __init__(self) -> None:
        self.cpus = 1.0
        self._queue: deque[Request] = deque()

    def has_room(self, request: Request) -> bool:
        """One at a time."""
        return not self._queue

    def submit(self, request: Request) -> None:
        """Queue an attempt for the next `wait`."""
        self._queue.append(request)

    def wait(self, seconds: float) -> list[Attempt]:
        """Run the queued attempt here and now."""
        if not self._queue:
            return []
        request = self._queue.popleft()
        with _alarm(request.runtime.timeout):
            return [run_attempt(request)]

    def stop(self) -> None:
        """Forget what was queued."""
        self._queue.clear()


@contextlib.contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """Raise TimeoutError in the main thread after `seconds`; elsewhere there is no way, and steps run on."""
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

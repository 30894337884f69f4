"""Ends a run early: SIGTERM (`ray job stop`) grants running steps a grace period, Ctrl-C does not wait."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

from orchestrator.run.schedule import Schedule

#: Exit codes, as of a process that dies of SIGINT or SIGTERM (128 + signal).
INTERRUPTED, TERMINATED = 130, 143
#: Seconds from SIGTERM until Ray kills a job, unless it was submitted with RAY_JOB_STOP_WAIT_TIME_S.
_RAY_STOP_WAIT = 3.0
#: Seconds of them that are reserved for writing the table.
_RESERVE = 2.0


class Shutdown:
    """The early end of a run; as a context manager it listens for SIGTERM, which only the main thread can."""

    def __init__(self, schedule: Schedule, drains: bool) -> None:
        """Prepare to listen; signals are handled inside the context manager only.

        Args:
            schedule: is stopped by SIGTERM.
            drains: whether steps run in other processes, so that SIGTERM can wait for them; else they are abandoned.
        """
        self._schedule = schedule
        self._drains = drains
        self._deadline: float | None = None
        self.exit_code: int | None = None
        """Exit code of the run if a signal ended it early."""

    def __enter__(self) -> Shutdown:
        self._listens = threading.current_thread() is threading.main_thread()
        if self._listens:
            self._before = signal.signal(signal.SIGTERM, self._terminate)
        return self

    def __exit__(self, *_: object) -> None:
        if self._listens:
            signal.signal(signal.SIGTERM, self._before)

    def check(self) -> None:
        """Raise KeyboardInterrupt if the grace period is over; call this regularly.

        Raises:
            KeyboardInterrupt: the grace period is over.
        """
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise KeyboardInterrupt

    def interrupt(self) -> None:
        """Set the exit code of a run that Ctrl-C (or the end of the grace period) interrupted."""
        self.exit_code = self.exit_code or INTERRUPTED

    def _terminate(self, _signal: int, _frame: FrameType | None) -> None:
        self.exit_code = TERMINATED
        if not self._drains:
            raise KeyboardInterrupt
        grace = max(1.0, float(os.environ.get("RAY_JOB_STOP_WAIT_TIME_S") or _RAY_STOP_WAIT) - _RESERVE)
        self._deadline = time.monotonic() + grace
        self._schedule.stopped = f"SIGTERM: no further steps are started; running steps have {grace:g} s to finish"

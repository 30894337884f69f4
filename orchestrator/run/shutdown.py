"""How a run ends early: SIGTERM (`ray job stop`) lets running steps end within a grace time, Ctrl-C does not wait."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

from orchestrator.run.schedule import Schedule

#: Exit codes, as a shell gives them to a process that died of the signal.
INTERRUPTED, TERMINATED = 130, 143
#: A job is killed so many seconds after SIGTERM unless it was submitted with RAY_JOB_STOP_WAIT_TIME_S.
_RAY_WAITS = 3.0
#: What remains for writing the table when the grace time is over (seconds).
_RESERVE = 2.0


class Shutdown:
    """The early end of a run; as a context manager it listens for SIGTERM."""

    def __init__(self, schedule: Schedule, drains: bool) -> None:
        """Prepare to listen.

        Args:
            schedule: gets no new steps once the signal came.
            drains: whether steps run in other processes, so that one can wait for them; else they are abandoned.
        """
        self._schedule = schedule
        self._drains = drains
        self._deadline: float | None = None
        self.exit_code: int | None = None
        """Set when the run was told to end early."""

    def __enter__(self) -> Shutdown:
        self._before = signal.signal(signal.SIGTERM, self._terminate)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def check(self) -> None:
        """Raise KeyboardInterrupt if the grace time is over; call this now and then."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise KeyboardInterrupt

    def interrupt(self) -> None:
        """Note that the run was abandoned."""
        self.exit_code = self.exit_code or INTERRUPTED

    def _terminate(self, _signal: int, _frame: FrameType | None) -> None:
        self.exit_code = TERMINATED
        if not self._drains:
            raise KeyboardInterrupt
        grace = max(1.0, float(os.environ.get("RAY_JOB_STOP_WAIT_TIME_S") or _RAY_WAITS) - _RESERVE)
        self._deadline = time.monotonic() + grace
        self._schedule.stopped = f"SIGTERM: no step is started any more, running ones have {grace:g} s to end"

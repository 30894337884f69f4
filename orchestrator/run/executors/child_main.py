"""A process that runs the steps of `--inline`, or those of another interpreter, and ends with who started it."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.process import PROCESS
from orchestrator.attempt.request import Request
from orchestrator.attempt.silence import silence_limit
from orchestrator.run.executors.inline import alarm
from orchestrator.run.executors.watchdog import Watchdog
from orchestrator.study.modules import study_at, use_copy
from orchestrator.types import Artifact, Attempt, Outcome

#: Outcomes after which nothing more is begun here: with this process something is wrong, or with the store.
_LAST = frozenset({Outcome.CRASHED, Outcome.STORE_ERROR})


class Listening(NamedTuple):
    """The process is there: from now on an interrupt lets its step clean up."""


class Watched(NamedTuple):
    """A step runs from now on that the driver has to watch; without an address it does so no more."""

    address: Artifact | None
    timeout: float | None = None


class Done(NamedTuple):
    """The bundle ended by itself."""

    attempts: tuple[Attempt, ...]
    last: bool
    """Whether the process ends now, and begins nothing more of what it was sent."""


class Unreadable(NamedTuple):
    """The bundle names what cannot be imported here."""

    reason: str


class Ordered(NamedTuple):
    """A bundle as it is sent: its classes are found by pickle once the study that they are of is active."""

    study: str | None
    """Folder of the study; None for stages of this package."""
    requests: bytes
    copy: str | None = None
    """Folder of a copy of the study, which is used in its place."""


def main(descriptor: int, driver: int, python: str | None = None, watched: bool = True) -> None:
    """Run the bundles that a driver sends, and do not return.

    Args:
        descriptor: the file descriptor of our end of the connection.
        driver: process number of the process that sends them.
        python: the interpreter that this is, as sweeps name it; None for the driver's.
        watched: whether that process watches over time limits, too; else a thread of this one does so.
    """
    PROCESS.python = python
    os.set_inheritable(descriptor, False)
    _end_with(driver)
    # Standard output is for the answer of the command; what modules print when they are imported is none of it.
    with contextlib.suppress(OSError):
        os.dup2(2, 1)
    # Where a crash in C happened is then the last word of the step's log.
    with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
        faulthandler.enable(all_threads=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    # A driver that is gone, or has closed its end, wants nothing any more.
    with contextlib.suppress(KeyboardInterrupt, EOFError, OSError):
        _serve(Connection(descriptor), watched)
    with contextlib.suppress(KeyboardInterrupt):
        atexit._run_exitfuncs()
    # What threads of stages do is no reason to stay.
    os._exit(0)


def _serve(connection: Connection[Any, Any], watched: bool) -> None:
    @contextlib.contextmanager
    def told(request: Request) -> Iterator[None]:
        """Have the driver watch, too: while C code keeps hold of this process, no alarm is heard."""
        if request.runtime.timeout is None and silence_limit(request.runtime) is None:
            yield
            return
        connection.send(Watched(request.step.address, request.runtime.timeout))
        try:
            with alarm(request):
                yield
        finally:
            with contextlib.suppress(OSError):
                connection.send(Watched(None))

    connection.send(Listening())
    last = False
    while not last:
        ordered: Ordered = connection.recv()
        try:
            if ordered.study and ordered.copy:
                use_copy(Path(ordered.copy), Path(ordered.study))
            elif ordered.study:
                study_at(Path(ordered.study)).activate()
            requests: list[Request] = pickle.loads(ordered.requests)  # noqa: S301 (from the process that started this one)
        # Whatever a person's module raises while it is imported.
        except (Exception, SystemExit) as error:
            connection.send(Unreadable(f"{type(error).__name__}: {error}"))
            continue
        attempts = tuple(run_bundle(requests, told if watched else Watchdog))
        last = PROCESS.spoilt is not None or any(each.outcome in _LAST for each in attempts)
        connection.send(Done(attempts, last))


def _end_with(driver: int) -> None:
    """Have the kernel kill this process when its driver dies, however that dies: nobody else would hear of the end.

    Elsewhere than on Linux a process whose driver is gone ends after the step at hand.
    """
    if sys.platform == "linux":
        # prctl(2): PR_SET_PDEATHSIG is 1.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != driver:
            os._exit(1)


_interrupted = False


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Interrupt once: what a step cleans up is not interrupted in turn; the driver ends what takes too long."""
    global _interrupted
    if not _interrupted:
        _interrupted = True
        raise KeyboardInterrupt

"""Sees steps that hang: no output, no computing and no I/O, for longer than the sweep finds likely."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from orchestrator.attempt.request import Request
from orchestrator.types import Runtime

#: Seconds of silence after which a step counts as hanging that uses GPUs, or is to be ended then.
_LIMIT = 1800.0
#: Looks per limit, and the longest pause between two in seconds.
_LOOKS, _PAUSE = 10, 60.0
#: What counts as idle between two looks: a share of a core, bytes per second of I/O, and a bit of each. Signs of life
#: go on in every process: an idle worker of Ray took 0.15 % of a core and moved 22 bytes per second.
_CPU, _CPU_ONCE = 0.01, 0.05
_BYTES, _BYTES_ONCE = 256.0, 8192


def silence_limit(runtime: Runtime) -> float | None:
    """Return the seconds of silence after which a step counts as hanging; None if none of them do."""
    return runtime.silent or (_LIMIT if runtime.gpus or runtime.silent_ends else None)


def silent_error(request: Request, seconds: float) -> TimeoutError:
    """Make the error of a step that was ended since it hangs."""
    limit = silence_limit(request.runtime)
    return TimeoutError(
        f"the step was silent for {seconds:.0f} s: no output, no computing, no I/O; its limit is {limit:g} s "
        "(runtime.silent), and the sweep ends such steps (runtime.silent_ends)"
    )


def describe_silence(request: Request, process: int, seconds: float) -> str:
    """Say that a step seems to hang, and what to do: one sentence."""
    name = request.step.entry
    return (
        f"{name} {request.step.key[:8]} seems to hang: no output, no computing and no I/O for {seconds:.0f} s, "
        f"in process {process} on {socket.gethostname()}; runtime.{name}.silent_ends: true ends such steps, "
        f"runtime.{name}.timeout ends all that take too long"
    )


class _Usage(NamedTuple):
    """What a process and those below it have used so far."""

    cpu: float
    """Seconds."""
    bytes: int
    """Bytes read and written, by whatever means but sockets."""
    output: tuple[tuple[int, int], ...]
    """(File, size) of the standard output and error."""


class Silence:
    """A watch over one process while it runs a step."""

    def __init__(self, process: int, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin to watch.

        Args:
            process: number of the process.
            limit: seconds of silence that are told.
            clock: returns the time in seconds.
        """
        self.pause = min(limit / _LOOKS, _PAUSE)
        """Seconds between two looks."""
        self._process, self._limit, self._clock = process, limit, clock
        self._looked = self._since = clock()
        self._usage = _usage(process)

    def look(self) -> float | None:
        """Return for how many seconds the process has been silent, if that is as long as the limit; else None.

        May be called at any time; looks no more often than every `pause` seconds.
        """
        now = self._clock()
        passed = now - self._looked
        if passed >= self.pause:
            before, self._usage, self._looked = self._usage, _usage(self._process), now
            if not _idle(before, self._usage, passed):
                self._since = now
        return now - self._since if now - self._since >= self._limit else None


def _idle(before: _Usage | None, after: _Usage | None, seconds: float) -> bool:
    """Tell whether nothing happened; what cannot be seen is not taken for silence."""
    if before is None or after is None or before.output != after.output:
        return False
    # Less, where a process below ended that nobody waited for.
    cpu, moved = abs(after.cpu - before.cpu), abs(after.bytes - before.bytes)
    return cpu <= _CPU * seconds + _CPU_ONCE and moved <= _BYTES * seconds + _BYTES_ONCE


def _usage(process: int) -> _Usage | None:
    """Read what a process and those below it have used; None if that cannot be seen."""
    import psutil

    try:
        top = psutil.Process(process)
        cpu, moved = 0.0, 0
        for each in (top, *top.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                cpu += sum(each.cpu_times()[:4])
                # Not on macOS.
                if hasattr(each, "io_counters"):
                    counters = each.io_counters()
                    moved += getattr(counters, "read_chars", counters.read_bytes)
                    moved += getattr(counters, "write_chars", counters.write_bytes)
        if process == os.getpid():
            # To look is no sign of life.
            cpu, moved = cpu - time.thread_time(), moved - _moved_by_this_thread()
    except psutil.Error:
        return None
    return _Usage(cpu, moved, tuple(_output(process, number) for number in (1, 2)))


def _moved_by_this_thread() -> int:
    """Return the bytes that this thread read and wrote (proc(5)); 0 where that is not counted."""
    try:
        lines = Path("/proc/thread-self/io").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("rchar", "wchar")))


def _output(process: int, number: int) -> tuple[int, int]:
    with contextlib.suppress(OSError):
        found = os.stat(f"/proc/{process}/fd/{number}")  # noqa: PTH116 (it need not be a file)
        return found.st_ino, found.st_size
    return 0, 0

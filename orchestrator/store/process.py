"""Processes, distinguished from those of other machines and containers, and from earlier ones of the same number."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from orchestrator.keys import digest

#: The space of a process where the platform does not name one.
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Process:
    """A process."""

    space: str
    """Where its number is unique: a digest of the machine's boot and the namespaces, or `unknown`."""
    pid: int
    started: int
    """Clock ticks between the machine's boot and its creation; no change of a clock alters them."""

    def gone(self) -> bool:
        """Whether it certainly exists no more; False also where that cannot be seen from here."""
        if self.space == UNKNOWN or self.space != this_process().space:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            # It belongs to another user, or the number is none of a process.
            pass
        started = _started(self.pid)
        return started is not None and started != self.started


@cache
def this_process() -> Process:
    """Identify the process that calls this."""
    pid = os.getpid()
    try:
        # In a container that sees the host's /proc, numbers there are not those that the container uses.
        if os.readlink("/proc/self") != str(pid):  # noqa: PTH115
            return Process(UNKNOWN, pid, 0)
        parts = [Path("/proc/sys/kernel/random/boot_id").read_text().strip()]
        # Starts are counted by the clock of the time namespace, which older kernels do not have.
        for kind in ("pid", "time"):
            path = Path("/proc/self/ns", kind)
            parts.append(os.readlink(path) if kind == "pid" or path.is_symlink() else "")  # noqa: PTH115
    except OSError:
        return Process(UNKNOWN, pid, 0)
    started = _started(pid)
    if not parts[0] or started is None:
        return Process(UNKNOWN, pid, 0)
    return Process(digest(parts, 12), pid, started)


os.register_at_fork(after_in_child=this_process.cache_clear)


def _started(pid: int) -> int | None:
    """Read field 22 of `/proc/<pid>/stat` (proc(5)); None if there is no such process, or it is hidden."""
    try:
        # The name of the program, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        # A zombie has ended, and waits for its parent to hear of it.
        return -1 if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, IndexError):
        return None

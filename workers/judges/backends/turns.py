"""A rate that processes on several machines keep together."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

#: A next turn further away than so many of them was written by a clock that has been set back since.
_FAR = 10_000


class Turns:
    """Turns, one every `interval` seconds, shared by all processes that name the same file.

    The file holds the time of the next turn. It is read and written under a lock (flock(2)), which the system takes
    back from a process that dies. Time is that of the file's server, so clocks of machines need not agree. Where locks
    do not reach other machines (NFS mounted with `local_lock`), each machine has turns of its own.
    """

    def __init__(self, path: Path, interval: float) -> None:
        """Set the file, which need not exist, and the interval in seconds."""
        self._path = path
        self._interval = interval

    def take(self) -> float:
        """Take the next turn, and return the seconds until it comes.

        Raises:
            OSError: the file cannot be written or locked.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666), "r+", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                remedy = "requests_per_minute needs a file system with locks: name one in SWEEP_ANSWERS"
                raise OSError(error.errno, f"{error.strerror}; {remedy}", str(self._path)) from error
            os.utime(file.fileno())
            now = os.fstat(file.fileno()).st_mtime
            turn = self._next(file.read(), now)
            file.seek(0)
            file.truncate()
            file.write(repr(turn + self._interval))
            file.flush()
        return turn - now

    def _next(self, text: str, now: float) -> float:
        """Read the time of the next turn from the text of the file."""
        try:
            known = float(text)
        except ValueError:  # the first one, or its writer died
            return now
        return max(known, now) if known - now <= _FAR * self._interval else now

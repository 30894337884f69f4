"""Folders that steps write into before they are committed, and the end of those that nobody writes into any more.

A folder belongs to one process, in one run of a driver; its name says which. Its time of change is set anew every
`BEAT` seconds, as a sign of life. It is swept away

- when the run of its driver has ended,
- when its process belongs to this machine and container, where processes can be looked up, and exists no more,
- when it was seen unchanged for long enough by our own clock.

What is swept is first moved to `trash/`, so that no half of a folder is ever seen in its place; whoever comes next
deletes what is there. A step that woke up late, and writes into a new folder of the old name, is detected when it
commits: it is not the folder that was made for it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from pathlib import Path
from time import monotonic
from types import TracebackType

from orchestrator.store.errors import LostOutputError
from orchestrator.store.heartbeat import Heartbeat
from orchestrator.store.process import Process, this_process

#: Seconds between two signs of life.
BEAT = 15.0
#: The end of the names that this module gives: driver, process, and what distinguishes the folders of one process.
_OWNER = re.compile(r"-(?P<driver>[^-]+)-(?P<space>[^-]+)-(?P<pid>\d+)-(?P<started>\d+)-[0-9a-f]{16}\Z")
#: Errors that mean that a folder, or one on the way to it, is not there; on NFS also after it was opened.
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})
#: Errors of deleting what others delete too, or what NFS keeps under another name while somebody has it open.
_TOLERABLE = frozenset({errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY, errno.ESTALE})
#: Folders that this process writes into -> a descriptor of each, since the inode number of a deleted one is reused.
_open: dict[str, int] = {}
os.register_at_fork(after_in_child=_open.clear)


def _touch_all() -> None:
    for path in list(_open):
        with contextlib.suppress(OSError):
            os.utime(path)


#: Shows that the folders of this process are alive.
heartbeat = Heartbeat("scratch", BEAT, _touch_all)


class Scratch:
    """The output folders below one place of the file system."""

    def __init__(self, place: Path) -> None:
        """Remember the place, which need not exist yet; `scratch` and `trash` will be in it."""
        self._folder, self._trash = f"{place}/scratch", f"{place}/trash"
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}
        """Name -> how it looked, and for how many seconds it has."""
        self._looked = 0.0

    def name(self, what: str, driver: str) -> str:
        """Make up a path that nobody else has; what is there is swept like output folders if its process dies."""
        me = this_process()
        return f"{self._folder}/{what}-{driver}-{me.space}-{me.pid}-{me.started}-{secrets.token_hex(8)}"

    def make(self, what: str, driver: str) -> Path:
        """Make a folder, which shows life until it is dropped or moved away.

        Raises:
            OSError: it cannot be made.
        """
        path = self.name(what, driver)
        os.mkdir(path)  # noqa: PTH102 (thousands of times a second)
        _open[path] = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        heartbeat.start()
        return Path(path)

    def descriptor(self, folder: Path) -> int:
        """Get the descriptor of a folder that was made here; files created through it are never in another one.

        Raises:
            LostOutputError: there is none.
        """
        found = _open.get(str(folder))
        if found is None:
            raise LostOutputError(folder)
        return found

    def confirm(self, folder: Path) -> None:
        """Make sure that a folder is the one that was made, unless it was dropped or published.

        Raises:
            LostOutputError: it is not there, or is another one.
            OSError: that cannot be found out.
        """
        descriptor = _open.get(str(folder))
        if descriptor is None:
            return
        try:
            if os.path.samestat(os.fstat(descriptor), os.lstat(folder)):
                return
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
        raise LostOutputError(folder)

    def forget(self, folder: Path) -> bool:
        """Give up a folder that was moved elsewhere; returns whether it was still ours."""
        descriptor = _open.pop(str(folder), None)
        if descriptor is None:
            return False
        os.close(descriptor)
        return True

    def drop(self, folder: Path) -> None:
        """Delete a folder, unless it was moved away."""
        if self.forget(folder):
            with contextlib.suppress(OSError):
                delete(str(folder))

    def sweep(self, patience: float, ended: str | None = None) -> None:
        """Drop folders that nobody writes into any more.

        Args:
            patience: seconds for which one must have been seen unchanged. Between two calls no more than `BEAT` counts:
                a longer pause may have been everybody's.
            ended: a driver whose run is over: all of its folders go.
        """
        now = monotonic()
        passed, self._looked = min(now - self._looked, BEAT), now
        seen = {}
        for name in _names(self._folder):
            path, owner = f"{self._folder}/{name}", _OWNER.search(name)
            if owner is None or path in _open:
                continue
            process = Process(owner["space"], int(owner["pid"]), int(owner["started"]))
            if owner["driver"] != ended and not process.gone():
                look = _look(path)
                if look is None:
                    continue
                before, still = self._seen.get(name, (None, 0.0))
                still = still + passed if look == before else 0.0
                if still < patience:
                    seen[name] = look, still
                    continue
            with contextlib.suppress(OSError):
                self._move_away(path)
        self._seen = seen
        for name in _names(self._trash):
            with contextlib.suppress(OSError):
                delete(f"{self._trash}/{name}")

    def throw_away(self, folder: Path) -> None:
        """Delete a folder that others may be reading; they find all of it or nothing.

        Raises:
            OSError: it cannot be deleted.
        """
        delete(self._move_away(str(folder)))

    def _move_away(self, path: str) -> str:
        aside = f"{self._trash}/{secrets.token_hex(8)}"
        try:
            os.rename(path, aside)  # noqa: PTH104
        except FileNotFoundError:
            os.makedirs(self._trash, exist_ok=True)  # noqa: PTH103
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, aside)  # noqa: PTH104
        return aside


def _look(path: str) -> tuple[int, int] | None:
    """Read what a sign of life alters. Opening the folder makes NFS ask its server; a look at the name does not."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        stat = os.fstat(descriptor)
        return stat.st_ino, stat.st_mtime_ns
    finally:
        os.close(descriptor)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except FileNotFoundError:
        return []


def delete(path: str) -> None:
    """Delete a file, or a folder with all that is in it, which others may be deleting too."""

    def go_on(_function: object, _path: str, caught: tuple[type[BaseException], BaseException, TracebackType]) -> None:
        if not isinstance(caught[1], OSError) or caught[1].errno not in _TOLERABLE:
            raise caught[1]

    if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114
        try:
            shutil.rmtree(path, onerror=go_on)
        except RecursionError:
            _flatten(path)
            shutil.rmtree(path, onerror=go_on)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108


def _flatten(folder: str) -> None:
    """Move all folders below a folder right into it, however deep they are: Python deletes by recursion."""
    ahead, count = [folder], 0
    while ahead:
        here = ahead.pop()
        with os.scandir(here) as listing:
            below = [item.path for item in listing if item.is_dir(follow_symlinks=False)]
        for path in below:
            count += 1
            flat = f"{folder}/.flat-{os.getpid()}-{count}"
            os.rename(path, flat)  # noqa: PTH104
            ahead.append(flat)

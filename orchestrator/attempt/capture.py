"""Captures what the steps of a bundle print, C libraries and child processes included: one log per step that prints."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from orchestrator.attempt.outage import OUTAGE
from orchestrator.store import Store, StoreError, remedy
from orchestrator.types import Artifact

#: Python's output streams, names in `sys`.
_STREAMS = ("stdout", "stderr", "__stdout__", "__stderr__")
#: Bytes that a log may have, and those that are kept of the beginning and of the end of a longer one.
LOG_LIMIT, _KEPT = 16 * 2**20, 4 * 2**20


class Capture:
    """A redirection of the output of this process while a bundle runs; a context manager.

    Creating a file costs more than a small step, so a log that is empty at the end of a step is used for the next one.
    The log of the running step is therefore the last one that exists among those of the bundle so far (`rescue_log`).
    """

    def __init__(self, store: Store) -> None:
        """Prepare the capture; nothing is redirected before `begin`."""
        self._store = store
        self._path: Path | None = None
        self._log: int | None = None
        """File descriptor of the log, unknown to stages."""
        self._text: TextIO | None = None
        self._saved: tuple[int, int] | None = None
        self._streams: dict[str, TextIO | None] = {}

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        for name, stream in self._streams.items():
            setattr(sys, name, stream)
        # A stage may have closed these descriptors.
        for number, descriptor in zip((1, 2), self._saved or (), strict=False):
            with contextlib.suppress(OSError):
                os.dup2(descriptor, number)
                os.close(descriptor)
        if self._text:
            with contextlib.suppress(OSError, ValueError):
                self._text.close()
        if self._log is not None:
            with contextlib.suppress(OSError):
                os.close(self._log)
        if self._path:
            # This log belongs to no step.
            with contextlib.suppress(OSError):
                self._path.unlink()

    def begin(self, address: Artifact, number: int) -> None:
        """Start the log of a step, whatever the previous step did to the output streams.

        Raises:
            StoreError: the log cannot be written.
        """
        path = self._path or self._store.log_path(address, number)
        try:
            if self._path is None:
                log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
                if self._log is None:
                    self._log = log
                else:
                    os.dup2(log, self._log, inheritable=False)
                    os.close(log)
            self._path = path
            self._redirect()
        except OSError as error:
            raise StoreError(f"the log {path} cannot be written: {error.strerror}; {remedy(error)}") from error

    def write(self, text: str) -> None:
        """Append to the log of the running step, if there is one, whatever the step did to its output streams."""
        if self._log is not None and self._path is not None:
            self._flush()
            with contextlib.suppress(OSError):
                os.write(self._log, text.encode("utf-8", "backslashreplace"))

    def end(self, address: Artifact, number: int) -> str | None:
        """End the log of a step; return its path in the store, None if the step printed nothing."""
        self._flush()
        path = self._path
        with contextlib.suppress(OSError, StoreError):
            self._point(1, 2)
            if path and path.stat().st_size:
                self._path = None
                _shorten(path)
                path.rename(self._store.log_path(address, number))
                return OUTAGE.endure(lambda: self._store.keep_log(address, number))
        return None

    def _redirect(self) -> None:
        assert self._log is not None, "`begin` has opened it"
        if self._saved is None:
            self._flush()
            self._saved = os.dup(1), os.dup(2)
            self._streams = {name: getattr(sys, name) for name in _STREAMS}
        # First of all: another file must not get the number of a descriptor that a stage closed.
        self._point(1, 2)
        if self._text is None or not _open(self._text):
            self._text = os.fdopen(os.dup(self._log), "a", buffering=1, encoding="utf-8", errors="replace")
        self._point(self._text.fileno())
        # Where sys.stdout is not descriptor 1 (notebooks, test runners), Python's own output is redirected separately;
        # and a stage that closes it must not close the terminal's.
        for name in _STREAMS:
            setattr(sys, name, self._text)

    def _point(self, *numbers: int) -> None:
        """Redirect file descriptors to the log."""
        if self._log is not None:
            for number in numbers:
                os.dup2(self._log, number, inheritable=number < 3)

    def _flush(self) -> None:
        # Neither a full disk nor a stage's replacement of a stream may change the outcome of the step.
        for each in (sys.stdout, sys.stderr):
            with contextlib.suppress(BaseException):
                each.flush()


def _open(stream: TextIO) -> bool:
    try:
        return not stream.closed
    except ValueError:
        # A stage has detached its buffer.
        return False


def _shorten(path: Path) -> None:
    """Cut the middle out of a log that is too long: a loop that prints must not fill the store."""
    size = path.stat().st_size
    if size <= LOG_LIMIT:
        return
    with path.open("r+b") as log:
        log.seek(size - _KEPT)
        end = log.read(_KEPT)
        log.seek(_KEPT)
        log.write(f"\n\n[{size - 2 * _KEPT:,} bytes were left out here]\n\n".encode() + end)
        log.truncate()


def rescue_log(store: Store, steps: Sequence[tuple[Artifact, int]]) -> str | None:
    """Keep the log of the last of the steps that a dead process has begun; return its path, None if there is none.

    Args:
        store: where the log is.
        steps: (address, attempt number) of the bundle's steps, up to the one that was running.
    """
    if not steps:
        return None
    last = steps[-1]
    with contextlib.suppress(OSError, StoreError):
        for address, number in reversed(steps):
            path = store.log_path(address, number)
            if path.exists():
                _shorten(path)
                path.rename(store.log_path(*last))
                break
        return store.keep_log(*last)
    return None

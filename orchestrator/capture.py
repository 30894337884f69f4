"""What the steps of a bundle print, C libraries and child processes included: a log for each that prints anything."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from orchestrator.store import Store, StoreError
from orchestrator.types import Artifact


class Capture:
    """Redirects the output of this process while a bundle runs.

    Creating a file costs more than a small step, so a log that is still empty at the end of a step serves the next one.
    The log of the step at hand is therefore the last one that exists among those of the bundle so far (`rescue_log`).
    """

    def __init__(self, store: Store) -> None:
        """Nothing is redirected before `begin`."""
        self._store = store
        self._path: Path | None = None
        self._text: TextIO | None = None
        self._saved: tuple[int, int] | None = None
        self._redirects = contextlib.ExitStack()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._redirects.close()
        if self._saved:
            for number, descriptor in zip((1, 2), self._saved, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
        if self._text:
            with contextlib.suppress(OSError):
                self._text.close()
        if self._path:
            # What is left was printed by no step.
            with contextlib.suppress(OSError):
                self._path.unlink()

    def begin(self, address: Artifact, number: int) -> None:
        """A step starts.

        Raises:
            StoreError: its log cannot be written.
        """
        if self._path is not None:
            return
        path = self._store.log_path(address, number)
        try:
            text = path.open("a", buffering=1, encoding="utf-8", errors="replace")
            if self._text is None:
                self._redirect(text)
            else:
                os.dup2(text.fileno(), self._text.fileno())
                self._point_outputs(self._text)
                text.close()
        except OSError as error:
            raise StoreError(f"the log {path} cannot be written: {error.strerror}") from error
        self._path = path

    def cut(self, address: Artifact, number: int) -> str | None:
        """A step ended: keep what it printed; returns where, None if it printed nothing."""
        self._flush()
        path = self._path
        with contextlib.suppress(OSError, StoreError):
            if path and path.stat().st_size:
                self._path = None
                path.rename(self._store.log_path(address, number))
                return self._store.keep_log(address, number)
        return None

    def _redirect(self, text: TextIO) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._saved = os.dup(1), os.dup(2)
        self._text = text
        self._point_outputs(text)
        # Where sys.stdout is not descriptor 1 (notebooks, test runners), Python's own output must be sent separately.
        self._redirects.enter_context(contextlib.redirect_stdout(text))
        self._redirects.enter_context(contextlib.redirect_stderr(text))

    def _point_outputs(self, text: TextIO) -> None:
        for number in (1, 2):
            os.dup2(text.fileno(), number)

    def _flush(self) -> None:
        # A full disk must not replace the outcome of the step by that of its log.
        for each in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                each.flush()


def rescue_log(store: Store, steps: Sequence[tuple[Artifact, int]]) -> str | None:
    """Keep the log of the last of some steps (address, attempt number) of a bundle whose process is gone."""
    if not steps:
        return None
    last = steps[-1]
    with contextlib.suppress(OSError, StoreError):
        for address, number in reversed(steps):
            path = store.log_path(address, number)
            if path.exists():
                path.rename(store.log_path(*last))
                break
        return store.keep_log(*last)
    return None

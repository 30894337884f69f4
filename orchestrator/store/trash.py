"""Deletes folders that others may be reading or writing: they find all of one or nothing."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from orchestrator.store.errors import NOT_THERE, TOLERABLE


class Trash:
    """A folder for what is being deleted; whoever comes next deletes what a crash left there."""

    def __init__(self, folder: str, system: Any = os) -> None:
        """Remember the folder, which need not exist yet; `system` has `rename` as `os` has it."""
        self._folder = folder
        self._system = system

    def take(self, path: str) -> str | None:
        """Move something here; return its place, None if it was not there any more. Raises OSError."""
        place = f"{self._folder}/{secrets.token_hex(8)}"
        for _ in range(2):
            try:
                self._system.rename(path, place)
                return place
            except OSError as error:
                if error.errno not in NOT_THERE:
                    raise
                os.makedirs(self._folder, exist_ok=True)  # noqa: PTH103
        return None

    def throw_away(self, path: str | Path) -> bool:
        """Delete something, unless it is gone; return whether it was there. Raises OSError."""
        place = self.take(str(path))
        if place:
            delete(place)
        return place is not None

    def empty(self) -> None:
        """Delete what is here, as far as that can be done."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self._folder):  # noqa: PTH208
                with contextlib.suppress(OSError):
                    delete(f"{self._folder}/{name}")


def delete(path: str) -> None:
    """Delete a file, or a folder with all that is in it, which others may be deleting too."""

    def go_on(_function: object, _path: str, caught: tuple[type[BaseException], BaseException, TracebackType]) -> None:
        if not isinstance(caught[1], OSError) or caught[1].errno not in TOLERABLE:
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

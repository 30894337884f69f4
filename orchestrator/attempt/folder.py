"""The working directory of the process, which a stage may change and does not leave to the next step."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def same_folder() -> Iterator[None]:
    """Go back to the working directory in the end, whatever a stage did.

    After `os.chdir(out)` the relative paths of the next step would lead into a committed artifact. It costs 5 µs.
    """
    before = _folder()
    try:
        yield
    finally:
        if before is not None and _folder() != before:
            # Where somebody removed it, there is none to go back to.
            with contextlib.suppress(OSError):
                os.chdir(before)


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 (a third of the time, for each step)
    except OSError:
        return None

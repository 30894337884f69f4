"""Whether a signal told this process to end: what its handler raises is no outcome of the stage that it interrupts."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: Ctrl-C, a cancelled Ray task; `ray job stop`, a machine that is shut down.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: What a handler raised, since `watched` began.
_told: BaseException | None = None


@contextmanager
def watched() -> Iterator[None]:
    """Note what the handlers of signals raise, whoever set them; they are put back where a stage replaced them.

    Only the main thread can do that: elsewhere nothing is noted, and no signal interrupts a stage.
    """
    global _told
    _told = None
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, _noting(handler))
    try:
        yield
    finally:
        for number, handler in before.items():
            # None is a handler that was not set by Python, and cannot be.
            if handler is not None:
                signal.signal(number, handler)


def heed() -> None:
    """Raise what the handler of a signal raised, in case a stage took that for something else."""
    if _told is not None:
        raise _told


def _noting(handler: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], Any]:
    def note(number: int, frame: FrameType | None) -> None:
        global _told
        try:
            handler(number, frame)
        except BaseException as told:
            _told = told
            raise

    return note

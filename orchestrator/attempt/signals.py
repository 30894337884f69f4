"""Tells signals from stage errors: what a signal handler raises ends the process, even if the stage swallows it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: Ctrl-C, a cancelled Ray task; `ray job stop`, a machine that is shut down.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: What a handler raised since `watched` began.
_raised: BaseException | None = None


@contextmanager
def watched() -> Iterator[None]:
    """Remember what signal handlers raise, for `reraise`; restore the handlers in the end if a stage replaced them.

    Does nothing outside the main thread, where no signal interrupts a stage.
    """
    global _raised
    _raised = None
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, _remembering(handler))
        yield
    finally:
        try:
            _restore(before)
        except BaseException:
            # Ctrl-C came between two of them.
            _restore(before)
            raise


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        # None is a handler that was not set by Python, and cannot be restored.
        if handler is not None:
            signal.signal(number, handler)


def reraise() -> None:
    """Raise again what a signal handler raised, in case a stage has caught it."""
    if _raised is not None:
        raise _raised


def _remembering(handler: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], Any]:
    def call(number: int, frame: FrameType | None) -> None:
        global _raised
        try:
            handler(number, frame)
        except BaseException as error:
            _raised = error
            raise

    return call

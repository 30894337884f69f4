"""Signal handlers are as they were, whenever a signal comes."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from orchestrator.attempt.signals import watched


@pytest.mark.parametrize("moment", range(4))
def test_ctrl_c_while_handlers_are_set_or_restored_leaves_none_behind(
    monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    real, before = signal.signal, [signal.getsignal(number) for number in numbers]
    calls: list[int] = []

    def interrupted(number: int, handler: Any) -> Any:
        calls.append(number)
        if len(calls) == moment + 1:
            raise KeyboardInterrupt
        return real(number, handler)

    # What runs the tests in the background has them ignore SIGINT.
    real(signal.SIGINT, signal.default_int_handler)
    real(signal.SIGTERM, lambda *_: None)
    mine = [signal.getsignal(number) for number in numbers]
    try:
        monkeypatch.setattr(signal, "signal", interrupted)
        with pytest.raises(KeyboardInterrupt), watched():
            pass
        assert [signal.getsignal(number) for number in numbers] == mine
    finally:
        monkeypatch.undo()
        for number, handler in zip(numbers, before, strict=True):
            real(number, handler)

"""Lines of progress: how far, and how long still."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import progress


def test_lines_say_how_far_a_step_is_and_how_long_the_rest_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = progress.Progress("texts", 4)
    shown.show(1)
    assert capsys.readouterr().out == ""  # too early
    monkeypatch.setattr(progress, "EVERY", 0.0)
    shown._start = time.monotonic() - 3700
    shown.show(2)
    assert capsys.readouterr().out == "texts: 2 of 4 in 3700 s, about 1 h 1 min left\n"
    shown._start = time.monotonic() - 270
    shown.show(3)
    assert capsys.readouterr().out == "texts: 3 of 4 in 270 s, about 1 min 30 s left\n"
    shown.show(4)
    assert capsys.readouterr().out == "texts: 4 of 4 in 270 s, about 0 s left\n"


def test_a_log_says_how_far_the_step_is_and_how_long_the_whole_will_take() -> None:
    log = "prompts: 1 of 4 in 9 s, about 27 s left\nwords\ntexts: 300 of 400 in 30 s, about 10 s left\n{'loss': 1}\n"
    assert progress.read_progress(log) == (0.75, 40)
    assert progress.read_progress("texts: 300 of 400 in 3") is None


@given(st.integers(0, 10**30), st.integers(0, 10**30), st.integers(0, 10**30))
def test_whatever_a_log_holds_is_read_as_a_finite_time_or_not_at_all(done: int, total: int, took: int) -> None:
    found = progress.read_progress(f"x: {done} of {total} in {took} s, about 1 s left")
    assert found is None or (0 < found.share <= 1 and 0 <= found.seconds < math.inf)

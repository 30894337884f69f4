"""Lines of progress in the log of a step, and the time to its end that follows from them."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

#: Seconds between two lines.
EVERY = 15.0
#: Anything may be printed into a log: no zeros to divide by, no numbers too large for a float.
_LINE = re.compile(r": ([1-9]\d{0,11}) of ([1-9]\d{0,11}) in (\d{1,9}) s, about [^\n]* left$", re.MULTILINE)


class Progress:
    """A printer of the progress of a step and the time left, at most one line every `EVERY` seconds."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        """Start the clock.

        Args:
            what: name of what is counted.
            total: how many there are.
            done: how many of them an earlier attempt has done.
        """
        self.what = what
        self.total = total
        self._before = done
        self._start = self._printed = time.monotonic()

    def show(self, done: int) -> None:
        """Report that `done` of the total, at least one, are done."""
        now = time.monotonic()
        if now - self._printed > EVERY:
            # As if this attempt had done them all, at its pace.
            took = (now - self._start) * done / max(1, done - self._before)
            left = _format(took * (self.total - done) / done)
            print(f"{self.what}: {done} of {self.total} in {took:.0f} s, about {left} left", flush=True)
            self._printed = now


class StepProgress(NamedTuple):
    """Progress of a running step."""

    share: float
    """Share of the step that is done, above 0 and at most 1."""
    seconds: float
    """Estimated duration of the whole step."""


def read_progress(log: str) -> StepProgress | None:
    """Read the progress of a step from the last line of progress in its log; None if there is none."""
    found = _LINE.findall(log)
    if not found:
        return None
    done, total, took = map(int, found[-1])
    return StepProgress(min(done / total, 1.0), took * total / done)


def _format(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"

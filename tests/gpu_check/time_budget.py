"""The time that all checks together may take, and how much of it is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable


class Budget:
    """A number of seconds that began when this was made."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._began = clock()

    def spent(self) -> float:
        """Return the seconds since the beginning."""
        return self._clock() - self._began

    def left(self) -> float:
        """Return the seconds that are left, 0 if none are."""
        return max(0.0, self.seconds - self.spent())

    def eta(self, expected: Iterable[float]) -> float:
        """Return the seconds to the end, given what each check that is left is expected to take."""
        return min(self.left(), sum(expected))


def duration(seconds: float) -> str:
    """Return a duration for people."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"

"""The time that is left, and the one rule by which it is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

#: A range whose ends are further apart than this factor says less than its lower end alone.
_WIDEST = 4.0
#: Ends as close as this count as one.
_CLOSE = 0.8


@dataclass(frozen=True, slots=True)
class Eta:
    """The time that some steps still take, in seconds: probably between `low` and `high` for those that are known."""

    low: float
    high: float
    unknown: int
    """Steps that come on top: none like them has finished or logged its progress."""
    steps: int
    """All steps that are left, the unknown ones included."""

    def ends(self) -> tuple[float | None, float | None]:
        """Return the ends that are worth telling.

        Both where they lie within a factor of 4 of each other; the lower one alone where they do not, or where steps
        of unknown length come on top; the upper one alone where the lower one rounds to nothing; neither where nothing
        is known.
        """
        low = self.low if round(self.low) else None
        if self.unknown:
            return low, None
        near = low is not None and self.high <= _WIDEST * low
        if near or round(self.high) == round(self.low):
            return self.low, self.high
        return low, None if low else self.high


def format_eta(eta: Eta) -> str:
    """Format the time left as a phrase: "1 min 00 s to 4 min 00 s left", "at least 1 h 06 min left"."""
    low, high = eta.ends()
    if low is not None and high is not None:
        start, end = format_duration(low), format_duration(high)
        return f"{end} left" if start == end or low > _CLOSE * high else f"{start} to {end} left"
    if high is not None:
        return f"less than {format_duration(math.ceil(high))} left"
    least = "" if low is None else f"at least {format_duration(low)}"
    if not eta.unknown:
        return f"{least} left"
    return "; ".join(filter(None, [least, f"no estimate yet for {eta.unknown:,} of {eta.steps:,} steps"]))


def format_left(eta: Eta, may_come: int) -> str:
    """Format the time left, and what may come on top: "4 s left; up to 6 more cells may come on top".

    Args:
        eta: of the steps that are decided.
        may_come: how many cells the studies of a search may still add; 0 where nothing is searched.
    """
    if not may_come:
        return format_eta(eta)
    more = f"up to {may_come:,} more cell{'s' if may_come > 1 else ''} may come"
    return f"{format_eta(eta)}; {more} on top" if eta.steps else more


def format_duration(seconds: float) -> str:
    """Format a duration with its two largest units: "4 s", "1 min 15 s", "1 h 06 min", "2 d 07 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def format_eta_short(eta: Eta, duration: Callable[[float], str] = format_duration) -> str:
    """Format the time left for a column: "4 min 00 s" (at most), "≥ 1 h 06 min", "< 9 min 07 s", "?" or nothing.

    Args:
        eta: the time left.
        duration: formats a number of seconds.
    """
    low, high = eta.ends()
    if not eta.steps:
        return ""
    if high is not None:
        return duration(high) if low is not None else f"< {duration(math.ceil(high))}"
    return "?" if low is None else f"≥ {duration(low)}"

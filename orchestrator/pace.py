"""How long the steps of each entry take, and what that says of the time left."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: Steps are counted per so many seconds, and a rate is taken over so many of these.
_BUCKET, _BUCKETS = 10, 30


@dataclass(frozen=True, slots=True)
class Left:
    """Time that is left, in seconds: the truth is probably between `low` and `high`."""

    low: float
    high: float
    unknown: int
    """Steps on top, of entries of which none has finished or told how far it is: nobody knows how long they take."""


class Guess(NamedTuple):
    """What the running steps of an entry say of themselves."""

    seconds: float
    """One of them will probably take; counts until the first has finished."""
    running: int
    share: float
    """Of each is done."""


@dataclass(slots=True)
class _Entry:
    slots: float
    """How many of its steps run at once."""
    on_gpu: bool
    steps: int = 0
    mean: float = 0.0
    """Seconds."""
    squares: float = 0.0
    """Sum of squared distances from the mean (Welford)."""
    guess: Guess | None = None
    ended: Counter[int] = field(default_factory=Counter)
    """Bucket of time -> steps that ended in it."""

    def rounds(self, steps: int) -> float:
        """How many steps come one after another if so many are ahead; fewer than slots take as long as one of them."""
        if not steps:
            return 0.0
        if not self.guess:
            return max(steps / self.slots, 1.0)
        if steps <= self.guess.running:
            return 1.0 - self.guess.share
        return max((steps - self.guess.running * self.guess.share) / self.slots, 1.0)

    def bounds(self) -> tuple[float, float]:
        """The mean seconds of a step, minus and plus two standard errors.

        A single step may be as far from the mean as the mean from nothing, one that is running half as far.
        """
        if not self.steps and self.guess:
            return self.guess.seconds / 2, self.guess.seconds * 1.5
        error = math.sqrt(self.squares / (self.steps - 1) / self.steps) if self.steps > 1 else self.mean / 2
        return max(self.mean - 2 * error, 0.0), self.mean + 2 * error


class Pace:
    """What was seen of the speed of a sweep."""

    def __init__(self, slots: Mapping[str, float], on_gpu: frozenset[str]) -> None:
        """Nothing is known yet.

        Args:
            slots: entry -> how many of its steps the machines run at once.
            on_gpu: the entries that use GPUs; their time passes beside that of the others.
        """
        self._entries = {name: _Entry(count, name in on_gpu) for name, count in slots.items()}
        self._started = time.time()

    def note(self, name: str, seconds: float) -> None:
        """A step of an entry took so long, now or in the past."""
        entry = self._entries[name]
        entry.steps += 1
        distance = seconds - entry.mean
        entry.mean += distance / entry.steps
        entry.squares += distance * (seconds - entry.mean)

    def guess(self, name: str, guess: Guess | None) -> None:
        """What the running steps of an entry say, if they say anything."""
        self._entries[name].guess = guess

    def ended(self, name: str, seconds: float, now: float | None = None) -> None:
        """A step of an entry has just succeeded."""
        self.note(name, seconds)
        entry = self._entries[name]
        if entry.guess:
            entry.guess = entry.guess._replace(running=max(entry.guess.running - 1, 0))
        ended = entry.ended
        ended[int((now or time.time()) / _BUCKET)] += 1
        if len(ended) > _BUCKETS:
            del ended[min(ended)]

    def per_minute(self, name: str, now: float | None = None) -> float:
        """Steps of an entry that succeed in a minute, as of the last five."""
        now = now or time.time()
        first = int(now / _BUCKET) - _BUCKETS + 1
        count = sum(steps for bucket, steps in self._entries[name].ended.items() if bucket >= first)
        return 60 * count / max(min(now - self._started, _BUCKET * _BUCKETS), 1.0)

    def seconds(self, name: str) -> float | None:
        """Mean seconds of a step of an entry; None before the first has finished."""
        entry = self._entries[name]
        return entry.mean if entry.steps else None

    def left(self, ahead: Mapping[str, int]) -> Left:
        """The time that some steps will take.

        At best GPUs and CPUs work side by side and steps are quick, at worst one waits for the other and they are
        slow; quick and slow are two standard errors of the mean.

        Args:
            ahead: entry -> how many of its steps are not done.
        """
        quick, slow, unknown = {True: 0.0, False: 0.0}, 0.0, 0
        for name, steps in ahead.items():
            entry = self._entries[name]
            if not entry.steps and not entry.guess:
                unknown += steps
                continue
            rounds = entry.rounds(steps)
            shortest, longest = entry.bounds()
            quick[entry.on_gpu] += rounds * shortest
            slow += rounds * longest
        return Left(max(quick.values()), slow, unknown)

    def dump(self) -> dict[str, Any]:
        """As JSON, for other processes."""
        return {
            name: {
                "slots": each.slots,
                "on_gpu": each.on_gpu,
                "steps": each.steps,
                "mean": each.mean,
                "squares": each.squares,
                "guess": each.guess,
                "per_minute": self.per_minute(name),
            }
            for name, each in self._entries.items()
        }


def load_pace(dumped: Mapping[str, Any]) -> Pace:
    """The pace that another process dumped; its rates stay behind."""
    pace = Pace({name: each["slots"] for name, each in dumped.items()}, frozenset())
    pace._entries = {
        name: _Entry(
            each["slots"],
            each["on_gpu"],
            each["steps"],
            each["mean"],
            each["squares"],
            Guess(*each["guess"]) if each["guess"] else None,
        )
        for name, each in dumped.items()
    }
    return pace


def spell_seconds(seconds: float) -> str:
    """A duration as people say it."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def spell_left(left: Left) -> str:
    """The time that is left, as a range where its ends differ, and what is not known."""
    low, high = spell_seconds(left.low), spell_seconds(left.high)
    known = high if low == high or left.low > 0.8 * left.high else f"{low} to {high}"
    unknown = f"{left.unknown:,} steps of stages not timed yet"
    if left.unknown and not left.high:
        return unknown
    return f"{known} left" + (f" + {unknown}" if left.unknown else "")

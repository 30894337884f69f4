"""How long the steps of each entry take, and what that says of the time left."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

#: Steps are counted per so many seconds, and a rate is taken over so many of these.
_BUCKET, _BUCKETS = 10, 30


@dataclass(frozen=True, slots=True)
class Left:
    """Time that is left, in seconds: the truth is probably between `low` and `high`, for what is known."""

    low: float
    high: float
    unknown: int
    """Steps on top of which nobody knows how long they take: none like them has finished or told how far it is."""
    steps: int
    """That are left, those of unknown length included."""


class Guess(NamedTuple):
    """What running steps that cost alike say of themselves."""

    seconds: float
    """One of them will probably take; counts until the first has finished."""
    running: int
    share: float
    """Of each is done."""


@dataclass(slots=True)
class _Kind:
    """What is known of the steps of an entry that cost alike."""

    steps: int = 0
    mean: float = 0.0
    """Seconds."""
    squares: float = 0.0
    """Sum of squared distances from the mean (Welford)."""
    guess: Guess | None = None

    def note(self, seconds: float) -> None:
        self.steps += 1
        distance = seconds - self.mean
        self.mean += distance / self.steps
        self.squares += distance * (seconds - self.mean)

    def ahead(self, steps: int) -> tuple[float, float]:
        """How many whole steps of work some steps still are, and the part of a step that the last of them takes."""
        if not self.guess:
            return steps, 1.0
        running, share = self.guess.running, self.guess.share
        return steps - min(steps, running) * share, 1.0 - share if steps <= running else 1.0

    def bounds(self) -> tuple[float, float]:
        """The mean seconds of a step, minus and plus two standard errors.

        The mean may be half or twice what a single step took; a step that is running may be off by a half.
        """
        if not self.steps and self.guess:
            return self.guess.seconds / 2, self.guess.seconds * 1.5
        if self.steps == 1:
            return self.mean / 2, self.mean * 2
        error = math.sqrt(self.squares / (self.steps - 1) / self.steps)
        return max(self.mean - 2 * error, 0.0), self.mean + 2 * error


@dataclass(slots=True)
class _Entry:
    slots: float
    """How many of its steps run at once."""
    on_gpu: bool
    kinds: dict[str, _Kind] = field(default_factory=dict)
    ended: Counter[int] = field(default_factory=Counter)
    """Bucket of time -> steps that ended in it."""

    def of(self, kind: str) -> _Kind:
        return self.kinds.setdefault(kind, _Kind())


class Pace:
    """What was seen of the speed of a sweep. A step tells of those of its own kind (`Likeness`) only."""

    def __init__(self, slots: Mapping[str, float], on_gpu: frozenset[str]) -> None:
        """Nothing is known yet.

        Args:
            slots: entry -> how many of its steps the machines run at once.
            on_gpu: the entries that use GPUs; their time passes beside that of the others.
        """
        self._entries = {name: _Entry(count, name in on_gpu) for name, count in slots.items()}
        self._started = time.time()

    def note(self, name: str, kind: str, seconds: float) -> None:
        """A step of an entry took so long, now or in the past."""
        self._entries[name].of(kind).note(seconds)

    def guess(self, name: str, guesses: Mapping[str, Guess]) -> None:
        """What the running steps of an entry say, by kind, of those that say anything."""
        for kind in {*self._entries[name].kinds, *guesses}:
            self._entries[name].of(kind).guess = guesses.get(kind)

    def ended(self, name: str, kind: str, seconds: float, now: float | None = None) -> None:
        """A step of an entry has just succeeded."""
        self.note(name, kind, seconds)
        known = self._entries[name].of(kind)
        if known.guess:
            known.guess = known.guess._replace(running=max(known.guess.running - 1, 0))
        ended = self._entries[name].ended
        ended[int((now or time.time()) / _BUCKET)] += 1
        if len(ended) > _BUCKETS:
            del ended[min(ended)]

    def per_minute(self, name: str, now: float | None = None) -> float:
        """Steps of an entry that succeed in a minute, as of the last five."""
        now = now or time.time()
        first = int(now / _BUCKET) - _BUCKETS + 1
        count = sum(steps for bucket, steps in self._entries[name].ended.items() if bucket >= first)
        return 60 * count / max(min(now - self._started, _BUCKET * _BUCKETS), 1.0)

    def seconds(self, name: str, kind: str | None = None) -> float | None:
        """Mean seconds of the steps of an entry, or of one kind of them; None before the first has finished."""
        kinds = self._entries[name].kinds
        chosen = [each for key, each in kinds.items() if each.steps and kind in (None, key)]
        steps = sum(each.steps for each in chosen)
        return sum(each.steps * each.mean for each in chosen) / steps if steps else None

    def left(self, ahead: Mapping[str, Mapping[str, int]]) -> Left:
        """The time that some steps will take.

        At best GPUs and CPUs work side by side and steps are quick, at worst one waits for the other and they are
        slow; quick and slow are two standard errors of the mean.

        Args:
            ahead: entry -> kind -> how many of its steps are not done.
        """
        quick, slow, unknown, total = {True: 0.0, False: 0.0}, 0.0, 0, 0
        for name, kinds in ahead.items():
            entry = self._entries[name]
            quicks, slows, longest = 0.0, 0.0, (0.0, 0.0)
            for kind, steps in kinds.items():
                known = entry.kinds.get(kind)
                total += steps
                if known is None or not (known.steps or known.guess):
                    unknown += steps
                elif steps:
                    work, last = known.ahead(steps)
                    low, high = known.bounds()
                    quicks, slows = quicks + work * low, slows + work * high
                    longest = max(longest[0], last * low), max(longest[1], last * high)
            # Several machines do not finish one step faster.
            quick[entry.on_gpu] += max(quicks / entry.slots, longest[0])
            slow += max(slows / entry.slots, longest[1])
        return Left(max(quick.values()), slow, unknown, total)

    def dump(self, ahead: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
        """As JSON, for other processes: per entry its rate, the mean seconds of a step, and the time left.

        Args:
            ahead: as for `left`.
        """
        return {
            name: {
                "per_minute": self.per_minute(name),
                "seconds": self.seconds(name),
                "left": asdict(self.left({name: ahead[name]})),
            }
            for name in self._entries
        }


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
    """The time that is left, as a range where its ends differ but not by much, and what is not known."""
    low, high = spell_seconds(left.low), spell_seconds(left.high)
    if left.unknown:
        unknown = f"no estimate yet for {left.unknown:,} of {left.steps:,} steps"
        return f"at least {low}; {unknown}" if round(left.low) else unknown
    if low == high or left.low > 0.8 * left.high:
        return f"{high} left"
    if left.high <= 4 * left.low:
        return f"{low} to {high} left"
    return f"at least {low} left" if round(left.low) else f"less than {high} left"

"""How fast the steps of each entry are done, and the time that the rest takes at that speed."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator.explain.eta import Eta
from workers.progress import StepProgress

#: Steps are counted per bucket of so many seconds, and a rate is taken over so many buckets.
_BUCKET, _BUCKETS = 10, 30
#: So many kinds of an entry must be known for the quickest and the slowest of them to tell of the others.
_ENOUGH_KINDS = 3


@dataclass(slots=True)
class _Kind:
    """What is known of the steps of an entry that cost alike."""

    steps: int = 0
    mean: float = 0.0
    """Seconds."""
    squares: float = 0.0
    """Sum of squared distances from the mean (Welford)."""
    running: tuple[int, StepProgress] | None = None
    """How many steps are running, and how far they are on average; None if no log says so."""

    def add(self, seconds: float) -> None:
        self.steps += 1
        distance = seconds - self.mean
        self.mean += distance / self.steps
        self.squares += distance * (seconds - self.mean)

    def work(self, steps: int) -> tuple[float, float]:
        """Return how many whole steps of work some steps still are, and the part of a step that the last one takes."""
        if not self.running:
            return steps, 1.0
        count, progress = self.running
        return steps - min(steps, count) * progress.share, 1.0 - progress.share if steps <= count else 1.0

    def bounds(self) -> tuple[float, float]:
        """Return the mean seconds of a step, minus and plus two standard errors.

        The mean may be half or twice what a single step took; what a running step logs may be off by a half.
        """
        if not self.steps and self.running:
            seconds = self.running[1].seconds
            return seconds / 2, seconds * 1.5
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

    def bounds(self) -> tuple[float, float] | None:
        """Return what kinds may take of which nothing is known; None where too few are known to tell of them.

        Between half of what the quickest kind takes and twice what the slowest does.
        """
        bounds = [each.bounds() for each in self.kinds.values() if each.steps]
        if len(bounds) < _ENOUGH_KINDS:
            return None
        return min(low for low, _ in bounds) / 2, max(high for _, high in bounds) * 2


class Throughput:
    """The speed of a sweep as seen so far. A step tells only of those of its own kind (`Likeness`)."""

    def __init__(self, slots: Mapping[str, float], on_gpu: frozenset[str]) -> None:
        """Start with nothing known.

        Args:
            slots: entry -> how many of its steps the machines run at once.
            on_gpu: the entries that use GPUs; their time passes beside that of the others.
        """
        self._entries = {name: _Entry(count, name in on_gpu) for name, count in slots.items()}
        self._started = time.time()

    def add(self, entry: str, kind: str, seconds: float) -> None:
        """Take in that a step took so long, now or in the past."""
        self._entries[entry].of(kind).add(seconds)

    def set_running(self, entry: str, running: Mapping[str, tuple[int, StepProgress]]) -> None:
        """Take in what running steps log: by kind how many there are and how far they are on average.

        A kind that is left out has no running steps, or none that says anything.
        """
        for kind in {*self._entries[entry].kinds, *running}:
            self._entries[entry].of(kind).running = running.get(kind)

    def finish(self, entry: str, kind: str, seconds: float, now: float | None = None) -> None:
        """Take in that a step has just succeeded."""
        self.add(entry, kind, seconds)
        known = self._entries[entry].of(kind)
        if known.running:
            known.running = max(known.running[0] - 1, 0), known.running[1]
        ended = self._entries[entry].ended
        ended[int((now or time.time()) / _BUCKET)] += 1
        if len(ended) > _BUCKETS:
            del ended[min(ended)]

    def per_minute(self, entry: str, now: float | None = None) -> float:
        """Return how many steps of an entry succeed in a minute, over the last five."""
        now = now or time.time()
        first = int(now / _BUCKET) - _BUCKETS + 1
        count = sum(steps for bucket, steps in self._entries[entry].ended.items() if bucket >= first)
        return 60 * count / max(min(now - self._started, _BUCKET * _BUCKETS), 1.0)

    def seconds(self, entry: str, kind: str | None = None) -> float | None:
        """Return the mean seconds of the steps of an entry, or of one kind of them; None before the first finished."""
        kinds = self._entries[entry].kinds
        chosen = [each for name, each in kinds.items() if each.steps and kind in (None, name)]
        steps = sum(each.steps for each in chosen)
        return sum(each.steps * each.mean for each in chosen) / steps if steps else None

    def eta(self, ahead: Mapping[str, Mapping[str, int]]) -> Eta:
        """Return the time that some steps take.

        A kind of which nothing is known may take half of the quickest of its entry or twice the slowest, once three
        of them are known.

        At best GPUs and CPUs work side by side and steps are quick, at worst one waits for the other and they are
        slow; quick and slow are two standard errors of the mean.

        Args:
            ahead: entry -> kind -> how many of its steps are not done.
        """
        quick, slow, unknown, total = {True: 0.0, False: 0.0}, 0.0, 0, 0
        for name, kinds in ahead.items():
            entry = self._entries[name]
            quicks, slows, longest = 0.0, 0.0, (0.0, 0.0)
            others = entry.bounds()
            for kind, steps in kinds.items():
                known = entry.kinds.get(kind)
                total += steps
                if known and (known.steps or known.running):
                    work, last = known.work(steps)
                    low, high = known.bounds()
                elif others:
                    work, last = steps, 1.0
                    low, high = others
                else:
                    unknown += steps
                    continue
                if steps:
                    quicks, slows = quicks + work * low, slows + work * high
                    longest = max(longest[0], last * low), max(longest[1], last * high)
            # Several machines do not finish one step faster.
            quick[entry.on_gpu] += max(quicks / entry.slots, longest[0])
            slow += max(slows / entry.slots, longest[1])
        return Eta(max(quick.values()), slow, unknown, total)

    def to_json(self, ahead: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
        """Return, per entry, its rate per minute, the mean seconds of a step, and the time left.

        Args:
            ahead: as for `eta`.
        """
        return {
            name: {
                "per_minute": self.per_minute(name),
                "seconds": self.seconds(name),
                "left": asdict(self.eta({name: ahead[name]})),
            }
            for name in self._entries
        }

"""Shares: how the drivers on one cluster divide its cores and GPUs, each by the weight of its sweep.

Every driver writes into Ray's own key-value store what it could use, and reads what the others could. What one does not
want is for the others. Nobody takes away what another has: a driver that has more than its share starts nothing new.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

#: Seconds between two looks, and after which a driver that has not written is gone.
_EVERY, _GONE_AFTER = 2.0, 15.0
#: The resources that are divided.
RESOURCES = ("CPU", "GPU")


class Board(Protocol):
    """Where the drivers of a cluster write."""

    def put(self, driver: str, text: str) -> None:
        """Write what a driver says, in place of what it said before."""

    def remove(self, driver: str) -> None:
        """Remove what a driver said."""

    def read(self) -> Mapping[str, str]:
        """Return what each driver said last."""


class _Said(NamedTuple):
    """What another driver said."""

    weight: float
    wants: Mapping[str, float]
    seats: float
    """Cores that its seats have."""
    waiting: float
    """Cores that its seats wait for, and for nothing else."""
    gpus: float
    """GPUs that its seats have."""


class Share:
    """The share of one driver."""

    def __init__(self, board: Board, driver: str, weight: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Write nothing yet.

        Args:
            board: where the drivers write.
            driver: name of this one, unique in the cluster.
            weight: its weight (`limits.share`).
            clock: returns the time in seconds.
        """
        self._board = board
        self._driver = driver
        self._weight = weight
        self._clock = clock
        self._due = clock()
        self._beat = 0
        self._seen: dict[str, tuple[str, float]] = {}
        """Other driver -> what it said last, and when that was new by this clock."""
        self._allowed: dict[str, float | None] = dict.fromkeys(RESOURCES)
        self._exact = False
        """Whether nobody begins what takes more than is left of his share."""
        self.owes = False
        """Whether this driver has more than its share of the GPUs while another that wants some has less."""

    def look(
        self,
        wants: Mapping[str, float],
        totals: Mapping[str, float],
        *,
        seats: float = 0.0,
        waiting: float = 0.0,
        gpus: float = 0.0,
    ) -> None:
        """Say what this driver could use, and read what the others say; does so every two seconds only.

        Args:
            wants: resource -> how much of it this driver could use now, what it has included; cores without those of
                its seats.
            totals: resource -> how much of it the cluster has.
            seats: cores that belong to the seats of this driver.
            waiting: cores that its seats wait for whose GPUs are free.
            gpus: GPUs that its seats have.
        """
        now = self._clock()
        if now < self._due:
            return
        self._due = now + _EVERY
        self._beat += 1
        wants = {name: wants.get(name, 0.0) for name in RESOURCES}
        mine = _Said(self._weight, wants, seats, waiting, gpus)
        self._board.put(self._driver, json.dumps({"beat": self._beat, **mine._asdict()}))
        found = self._board.read()
        self._seen = {driver: seen for driver, seen in self._seen.items() if driver in found}
        for driver, text in found.items():
            if driver != self._driver and self._seen.get(driver, ("", 0.0))[0] != text:
                self._seen[driver] = (text, now)
        others = [said for text, when in self._seen.values() if now - when < _GONE_AFTER for said in _read(text)]
        everybody = [mine, *others]
        self._exact = any(each.waiting for each in everybody)
        for name in RESOURCES:
            total = totals.get(name, 0.0)
            if name == "CPU":
                # The cores of seats follow from the GPUs.
                total = max(0.0, total - sum(each.seats + each.waiting for each in everybody))
            given = divide(total, [(each.weight, each.wants[name]) for each in everybody])
            self._allowed[name] = given[0] if others else None
            if name == "GPU":
                short = any(
                    each.gpus < min(part, each.wants[name]) - 1e-6 for each, part in zip(others, given[1:], strict=True)
                )
                self.owes = short and gpus > given[0] + 1e-6

    def allowed(self, name: str) -> float | None:
        """Return how much of a resource this driver may have now, of cores without those of seats; None means all."""
        return self._allowed[name]

    def room(self, name: str, each: float, had: float) -> float:
        """Return how many more of a size this driver may begin; infinite if nobody else is there.

        Whoever has less than his share may begin one more, which then takes more than is left of it: of two cores
        three drivers have two thirds each, and none of them could ever begin anything. Not while a seat of anybody
        waits for cores, which would have none ever: all would always have a little more than there is.

        Args:
            name: a resource, cores without those of seats.
            each: how much of it one takes.
            had: how much of it this driver has.
        """
        allowed = self._allowed[name]
        if allowed is None:
            return math.inf
        count = (allowed - had) / each
        return max(0, math.floor(count + 1e-6) if self._exact else math.ceil(count - 1e-6))

    def leave(self) -> None:
        """Leave all to the others."""
        self._board.remove(self._driver)


def _read(text: str) -> list[_Said]:
    """Return what a driver said; nothing if it is not what a driver says: a stranger costs nobody a share."""
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        said = json.loads(text)
        weight, seats, waiting, gpus = (float(said[name]) for name in ("weight", "seats", "waiting", "gpus"))
        wants = {name: float(said["wants"][name]) for name in RESOURCES}
        if weight > 0 and all(0 <= each < math.inf for each in (weight, seats, waiting, gpus, *wants.values())):
            return [_Said(weight, wants, seats, waiting, gpus)]
    return []


def divide(total: float, asked: list[tuple[float, float]]) -> list[float]:
    """Divide an amount max-min fairly: nobody gets more than he asks for while others get less than their weight.

    What nobody asks for is for whoever may yet ask: it is added by weight.

    Args:
        total: the amount.
        asked: weight and wish of each.
    """
    given = [0.0] * len(asked)
    left, open_ = total, set(range(len(asked)))
    while open_ and left > 0:
        unit = left / sum(asked[each][0] for each in open_)
        content = {each for each in open_ if asked[each][1] <= unit * asked[each][0]}
        if not content:
            for each in open_:
                given[each] = unit * asked[each][0]
            return given
        for each in content:
            given[each] = asked[each][1]
            left -= asked[each][1]
        open_ -= content
    weights = sum(weight for weight, _ in asked)
    return [amount + left * weight / weights for amount, (weight, _) in zip(given, asked, strict=True)]

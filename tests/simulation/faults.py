"""What may go wrong with an operation: it is slow, fails, or is done and its answer lost; its process stops or dies.

Each history has a subset of these faults only (swarm testing, Groce et al. 2012): some hide each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from world import World

T = TypeVar("T")

#: Fault -> the share of operations that meet it, where a history has it at all.
SHARES = {
    "is slow": 0.05,
    "is very slow": 0.004,
    "fails": 0.006,
    "loses its answer": 0.006,
    "stops before": 0.002,
    "stops after": 0.002,
    "dies before": 0.001,
    "dies after": 0.001,
}
#: How much likelier these are where it matters most: around a look at a claim, and a change of one.
_CRITICAL = 4
#: Operations that change nothing of what the story is about.
_LOOKS = frozenset({"reads", "lists", "opens", "listdirs", "scandirs", "mkdirs", "rmdirs", "unlinks", "shows"})


class Faults:
    """The faults of a history."""

    def __init__(self, world: World) -> None:
        """Choose which there are."""
        self.world = world
        chooses = world.choices.stream("faults")
        self.shares = {name: share for name, share in SHARES.items() if chooses.below(2)}
        self.share = sum(self.shares.values())
        self.seen: set[tuple[str, ...]] = set()
        """Pairs of faults that followed each other, with the kinds of operations that they met."""
        self._last = ""
        self.away_until: dict[str, float] = {}
        """Place (`store`, `outputs`, `mlflow`) -> when it can be reached again."""

    def _pick(self, chosen: float | None) -> tuple[str, float]:
        """Turn a choice into a fault and a number between 0 and 1 for how bad it is."""
        if chosen is not None:
            left = chosen * self.share
            for name, share in self.shares.items():
                if left < share:
                    return name, left / share
                left -= share
        return "", 0.0

    def is_away(self, place: str) -> bool:
        """Tell whether the acting process cannot reach a place now."""
        now = self.world.now
        if place == "store" and self.world.actor.node.cut_off_until > now:
            return True
        return self.away_until.get(place, -math.inf) > now

    def act(
        self,
        place: str,
        what: str,
        do: Callable[[], T],
        fails: Callable[[], Exception],
        lost: Callable[[float], Exception] | None = None,
        critical: bool = False,
    ) -> T:
        """Do something for the acting process, or let it go wrong.

        Args:
            place: what it touches.
            what: the operation, for people.
            do: does it.
            fails: makes the error where it cannot be done.
            lost: makes the error of one that is done, and whose answer is lost, from a number between 0 and 1; None
                where that cannot be.
            critical: whether it is one at which faults matter most.
        """
        world = self.world
        if not world.acts:
            return do()
        world.operations += place == "store"
        actor = world.actor
        if not world.faults:
            world.sleep(0.001)
            done = do()
            self._tell(what, critical)
            return done
        name, badness = self._pick(actor.stream.rare(self.share * (_CRITICAL if critical else 1)))
        if name == "is slow":
            world.sleep(0.01 + 0.5 * badness)
        elif name == "is very slow":
            world.sleep(1 + 10 * badness)
        elif name == "stops before":
            self._stop(badness, f"stops before it {what}")
        elif name == "dies before":
            world.tell(f"dies before it {what}")
            world.kill(actor)
        else:
            world.sleep(0.002 * actor.pace)
        if name:
            meets = f"{name} {what.split()[0]}"
            self.seen.add((self._last, meets))
            self._last = meets
        if self.is_away(place):
            world.sleep(0.5)
            actor.facts["hurt"] = max(world.now, actor.facts.get("hurt", 0.0))
            raise fails()
        if name == "fails":
            world.tell(f"fails when it {what}")
            actor.facts["hurt"] = max(world.now, actor.facts.get("hurt", 0.0))
            raise fails()
        done = do()
        self._tell(what, critical)
        if name == "stops after":
            self._stop(badness, f"stops after it {what}")
        elif name == "dies after":
            world.tell(f"dies after it {what}")
            world.kill(actor)
        elif name == "loses its answer" and lost:
            world.tell(f"loses the answer when it {what}")
            raise lost(badness)
        return done

    def _tell(self, what: str, critical: bool) -> None:
        if critical and what.split()[0] not in _LOOKS:
            self.world.tell(what)

    def _stop(self, badness: float, text: str) -> None:
        seconds = 2 + 120 * badness**2
        self.world.tell(f"{text}, for {seconds:.0f} s")
        self.world.actor.asleep_until = self.world.now + seconds
        self.world.sleep(0.0)

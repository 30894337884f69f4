"""The choices of a history: a number between 0 and 1 for each, drawn from a seed, and nearly always without effect.

Every process has a stream of its own, so that what is altered of one leaves those of the others as they were. A choice
of 0 is the harmless one: a history is shrunk by making more and more of its choices harmless.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

#: The place of a choice: the name of its stream, and its number there.
Place = tuple[str, int]
#: A seed, and the numbers of the alterations that were made to its history, one after the other.
Seed = tuple[int, ...]

#: The share of its choices that an alteration draws anew.
_ALTERED = 0.03


class Stream:
    """The choices of one process."""

    def __init__(
        self, name: str, seed: Seed, kept: Mapping[Place, float] | None, effective: dict[Place, float]
    ) -> None:
        """Start with none made; see `Choices`."""
        self.name = name
        self._draws = [random.Random(f"{number} {name}").random for number in seed]
        self._kept = kept
        self._effective = effective
        self._count = 0

    def draw(self) -> float:
        """Make the next choice."""
        self._count += 1
        if self._kept is not None:
            return self._kept.get((self.name, self._count), 0.0)
        chosen = self._draws[0]()
        for draw in self._draws[1:]:
            another = draw()
            if draw() < _ALTERED:
                chosen = another
        return chosen

    def keep(self, chosen: float) -> None:
        """Note that the last choice had an effect."""
        self._effective[self.name, self._count] = chosen

    def rare(self, share: float) -> float | None:
        """Return None, but in a share of all choices a number between 0 and 1."""
        chosen = self.draw()
        if share <= 0 or chosen <= 1 - share:
            return None
        self.keep(chosen)
        return (chosen - (1 - share)) / share

    def below(self, count: int) -> int:
        """Choose a number below another one; 0 is the harmless one."""
        found = int(self.draw() * count)
        if found:
            self.keep((found + 0.5) / count)
        return found


class Choices:
    """All choices of a history."""

    def __init__(self, seed: Seed, kept: Mapping[Place, float] | None = None) -> None:
        """Make choices from a seed.

        Args:
            seed: what they are drawn from.
            kept: the choices that are to have an effect, as `effective` of an earlier history; None for all.
        """
        self.seed = seed
        self._kept = kept
        self.effective: dict[Place, float] = {}
        """The choices that had an effect, in their order."""

    def stream(self, name: str) -> Stream:
        """Begin the choices of a process."""
        return Stream(name, self.seed, self._kept, self.effective)

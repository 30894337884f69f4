"""Health: a place at which steps die, whatever the error says, is told from steps that die everywhere.

A step that dies is tried at another place, free of charge, wherever there is one. Only if it dies there too it is
the step's own fault. A place at which a second step died without one succeeding between them is sick.
"""

from __future__ import annotations

from orchestrator.run.executors import Place

#: Different steps that die at a place before it is sick.
_DEATHS = 2


class Health:
    """The steps that died at each place since one succeeded there."""

    def __init__(self) -> None:
        """Start with every place healthy."""
        self._died: dict[Place, dict[int, str]] = {}
        """Place -> step -> how it died."""
        self.first: dict[int, Place] = {}
        """Step that died once -> where; it is to be tried elsewhere."""

    def died(self, place: Place, step: int, error: str) -> None:
        """Note that a step died for the first time.

        Args:
            place: where it died.
            step: its number.
            error: a line on how.
        """
        self.first[step] = place
        self._died.setdefault(place, {})[step] = error

    def acquit(self, step: int) -> Place:
        """Note that a step died elsewhere too; return the first place, which was not to blame."""
        place = self.first[step]
        self._died.get(place, {}).pop(step, None)
        return place

    def succeeded(self, place: Place) -> None:
        """Note that a step succeeded at a place."""
        self._died.pop(place, None)

    def verdict(self, place: Place) -> str | None:
        """Return why a place, or a node as a whole, is sick; None if it is not.

        Args:
            place: a place; a node is one without a seat, and sick too if steps died at different seats of it.
        """
        own = {place}
        if place.seat is None:
            own = {each for each, steps in self._died.items() if each.node == place.node and steps}
        deaths = {step: error for each in own for step, error in self._died.get(each, {}).items()}
        # Steps that died at one device of a node say nothing of the node.
        if len(deaths) < _DEATHS or (place.seat is None and own != {place} and len(own) < _DEATHS):
            return None
        return (
            f"{len(deaths)} different steps died there, none succeeded between; the last: {list(deaths.values())[-1]}"
        )

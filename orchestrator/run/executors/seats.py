"""Seats: the places on GPU nodes at which steps that use GPUs run, reserved before the steps are ready.

A seat reserves the cores, the GPUs and the memory of one shape (in Ray: a placement group of one bundle). While it is
there, no CPU step takes its cores, and while it waits for a node, an autoscaler sees the demand. It has the same
device for all its life, so that a sick device is kept from work by keeping its seat free.

Pure bookkeeping without Ray: `make`, `remove` and `look` do the rest.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.run.executors import Place
from orchestrator.run.executors.nodes import Nodes, Shape

#: Seconds between looks at seats that wait for cores, at those that wait for a GPU, and at those that have both.
_LOOK_EVERY, _LOOK_SELDOM, _CHECK_EVERY = 0.05, 0.5, 5.0
#: Seconds in which each driver has a seat once that they have in turns, for so long as is its part of it: models are
#: loaded anew at each turn. And those for which it then asks for none: Ray places what waits within one second.
CYCLE, _PAUSE = 1200.0, 3.0


@dataclass(eq=False, slots=True)
class Seat:
    """A seat."""

    shape: Shape
    group: Any
    """What reserves it."""
    number: int
    node: str | None = None
    """Id of its node; None while it waits for one."""
    device: str | None = None
    """Indices of its GPUs on the node; None until a step has told."""
    taken: bool = False
    """Whether a process or a bundle has it."""
    sick: bool = False
    """Whether it is kept from work."""

    @property
    def place(self) -> Place | None:
        """Where steps at it run; None while it waits for a node."""
        return Place(self.node, self.number) if self.node else None


class Seats:
    """The seats of one driver."""

    def __init__(
        self,
        make: Callable[[Shape, str | None], Any],
        remove: Callable[[Any], None],
        look: Callable[[Any], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without seats.

        Args:
            make: begins to reserve a shape, off a node if one is given, and returns what stands for it.
            remove: gives it back.
            look: returns the id of its node, None while it has none.
            clock: returns the time in seconds.
        """
        self._make = make
        self._remove = remove
        self._look = look
        self._clock = clock
        self.all: list[Seat] = []
        self._made = 0
        self.surplus: Counter[Shape] = Counter()
        """Shape -> number of seats that somebody has and that are to be given back as soon as may be."""
        self.clearing: str | None = None
        """Node that is to be empty for a seat that takes nearly all of one."""
        self.others = 0.0
        """GPUs that other drivers and strangers have."""
        self._look_due = self._check_due = 0.0
        self._turn = 0.0
        """Seconds for which this driver has the seat that all have in turns."""
        self._turn_began = self._pause_ends = -math.inf

    def keep(self, wanted: Mapping[Shape, int], nodes: Nodes, gpus: float | None = None, owes: bool = False) -> None:
        """Make the seats that are wanted and remove those that are not, as far as nobody has them.

        Args:
            wanted: shape -> how many bundles of it could run now, running ones included; the first come first.
            nodes: the cluster.
            gpus: the share of its GPUs that this driver has; None means all. Of a seat that takes more than is left of
                it, all drivers have one in turns: no GPU that somebody wants is idle.
            owes: whether another driver waits for its turn.
        """
        self._read_nodes(nodes)
        targets = self._targets(wanted, nodes, gpus, self._pauses(gpus, owes))
        self.clearing = self._node_to_clear(nodes)
        there = Counter(seat.shape for seat in self.all if self._counts(seat, nodes))
        for shape in dict.fromkeys([*targets, *there]):
            surplus = there[shape] - targets.get(shape, 0)
            for _ in range(-surplus):
                self._made += 1
                self._look_due = 0.0
                self.all.append(Seat(shape, self._make(shape, self._off(shape, nodes)), self._made))
            self.surplus[shape] = max(0, surplus)
            # Those that wait for a node first.
            idle = [seat for seat in self.all if seat.shape == shape and not seat.taken and not seat.sick]
            for seat in sorted(idle, key=lambda seat: seat.node is not None)[: max(0, surplus)]:
                self._drop(seat)
                self.surplus[shape] -= 1
        if not wanted:
            for seat in [seat for seat in self.all if seat.sick and not seat.taken]:
                self._drop(seat)
        leaving = {node.id for node in nodes.all} - {node.id for node in nodes.ready} | {self.clearing}
        for seat in [seat for seat in self.all if seat.node in leaving and seat.node and not seat.taken]:
            self._drop(seat)

    def free(self, shape: Shape) -> list[Seat]:
        """Return the seats of a shape that a process or a bundle can have now."""
        return [
            seat
            for seat in self.all
            if seat.shape == shape and seat.node not in (None, self.clearing) and not (seat.taken or seat.sick)
        ]

    def cpus(self, nodes: Nodes) -> float:
        """Return the cores that seats hold, and that those take which the GPUs of the nodes have room for."""
        return self.cpus_held + self.cpus_awaited(nodes)

    @property
    def cpus_held(self) -> float:
        """The cores that seats hold."""
        return sum(seat.shape.cpus for seat in self.all if seat.node)

    @property
    def gpus_held(self) -> float:
        """The GPUs that seats hold."""
        return sum(seat.shape.gpus for seat in self.all if seat.node)

    def cpus_awaited(self, nodes: Nodes) -> float:
        """Return the cores that seats wait for whose GPUs are free."""
        cores, gpus = 0.0, nodes.gpus - self.others - self.gpus_held
        for seat in self.all:
            if not seat.node and seat.shape.gpus <= gpus + 1e-6:
                cores += seat.shape.cpus
                gpus -= seat.shape.gpus
        return cores

    def forget(self, seat: Seat) -> None:
        """Remove a seat whose node is lost."""
        if seat in self.all:
            self._drop(seat)

    def clear(self) -> None:
        """Remove all seats."""
        for seat in list(self.all):
            self._drop(seat)

    def _pauses(self, gpus: float | None, owes: bool) -> bool:
        """Tell whether this driver does without the seat that all have in turns."""
        now = self._clock()
        if gpus is None or self.gpus_held <= gpus + 1e-6:
            self._turn_began = now
        elif owes and now - self._turn_began >= self._turn:
            self._pause_ends = now + _PAUSE
        return gpus is not None and now < self._pause_ends

    def _targets(self, wanted: Mapping[Shape, int], nodes: Nodes, gpus: float | None, pauses: bool) -> dict[Shape, int]:
        """Divide the GPUs among the shapes, in their order."""
        there = nodes.gpus - sum(seat.shape.gpus for seat in self.all if seat.sick)
        if nodes.grows:
            # How far it may grow is its autoscaler's business; twice as far at a time.
            there = max(2 * there, max((shape.gpus for shape in wanted), default=0.0))
        share = there if gpus is None else min(there, gpus * (2 if nodes.grows else 1))
        targets: dict[Shape, int] = {}
        for shape, count in wanted.items():
            part = nodes.part(shape)
            fits = max(0, int(share / part + 1e-6))
            # The last of a share that is no whole number is for whoever has none, or whose turn it is. For a turn no
            # node is cleared.
            first = not (targets or fits)
            in_turns = gpus is not None and (fits + 1) * part <= there + 1e-6 and not _is_wide(shape, nodes)
            if (first or in_turns) and share > fits * part + 1e-6 and nodes.holds(shape) and not pauses:
                self._turn = CYCLE * (share / part - fits)
                fits += 1
            targets[shape] = min(count, fits)
            there -= targets[shape] * part
            share -= targets[shape] * part
        return targets

    def _counts(self, seat: Seat, nodes: Nodes) -> bool:
        here = seat.node is None or any(node.id == seat.node for node in nodes.ready)
        return here and not seat.sick and (seat.node is None or seat.node != self.clearing)

    def _off(self, shape: Shape, nodes: Nodes) -> str | None:
        return self.clearing if not _is_wide(shape, nodes) else None

    def _node_to_clear(self, nodes: Nodes) -> str | None:
        """Return the node that is cleared for a seat that waits, and for which no node would ever be free by itself."""
        for seat in self.all:
            if seat.node or not _is_wide(seat.shape, nodes):
                continue
            able = [node.id for node in nodes.ready if seat.shape.times_in(node.has)]
            if self.clearing in able:
                return self.clearing
            taken = Counter(other.node for other in self.all if other.taken)
            return min(able, key=lambda node: taken[node], default=None)
        return None

    def _read_nodes(self, nodes: Nodes) -> None:
        now = self._clock()
        every = now >= self._check_due
        if every:
            self._check_due = now + _CHECK_EVERY
        if not every and now < self._look_due:
            return
        self._look_due = now + (_LOOK_EVERY if self.cpus_awaited(nodes) else _LOOK_SELDOM)
        for seat in self.all:
            if seat.node is None or every:
                node = self._look(seat.group)
                if seat.node and node != seat.node:
                    # Ray makes the seat of a lost node anew elsewhere, with another device.
                    self._made += 1
                    seat.number, seat.device, seat.sick = self._made, None, False
                seat.node = node

    def _drop(self, seat: Seat) -> None:
        self.all.remove(seat)
        self._remove(seat.group)


def _is_wide(shape: Shape, nodes: Nodes) -> bool:
    """Tell whether a shape takes more of a node than its GPUs, so that other seats must leave for it."""
    return nodes.part(shape) > shape.gpus + 1e-6

"""GPUs that cannot be divided evenly are used by all drivers in turns, and by somebody at all times."""

from __future__ import annotations

from collections import Counter

import pytest
from clockwork import Wall
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.run.executors.nodes import Node, Nodes, Shape
from orchestrator.run.executors.seats import CYCLE, Seats
from orchestrator.run.executors.share import Share


class Drivers:
    """Drivers on one cluster whose seats are placed as Ray does: first those just made, then those that wait."""

    def __init__(self, gpus: int, weights: list[float], shapes: list[Shape], wanted: int = 99) -> None:
        self.nodes = Nodes([Node("a", Shape(64.0, gpus, None))])
        self.wanted = dict(zip(shapes, [wanted] * len(shapes), strict=True))
        self.now = 0.0
        self.placed: dict[object, Shape] = {}
        self.waiting: dict[object, Shape] = {}
        wall = Wall()
        self.shares = [Share(wall, str(n), weight, lambda: self.now) for n, weight in enumerate(weights)]
        self.seats = [
            Seats(self._make, self._remove, lambda g: "a" if g in self.placed else None, lambda: self.now)
            for _ in weights
        ]
        self.had: Counter[int] = Counter()
        """Driver -> GPU seconds."""
        self.moves = 0
        """How often a driver gave a seat back that it had."""

    def _make(self, shape: Shape, off: str | None) -> object:
        group = object()
        self.waiting[group] = shape
        self._place([group])
        return group

    def _place(self, groups: list[object]) -> None:
        for group in groups:
            shape = self.waiting[group]
            if sum(each.gpus for each in self.placed.values()) + shape.gpus <= self.nodes.gpus + 1e-6:
                self.placed[group] = self.waiting.pop(group)

    def _remove(self, group: object) -> None:
        self.waiting.pop(group, None)
        self.moves += self.placed.pop(group, None) is not None

    def pass_time(self, seconds: int) -> float:
        """Let seconds pass; return how many GPUs were busy in the mean."""
        busy = 0.0
        for _ in range(seconds):
            self.now += 1
            self._place(list(self.waiting))
            for number, (share, seats) in enumerate(zip(self.shares, self.seats, strict=True)):
                wants = {"CPU": 0.0, "GPU": sum(shape.gpus * count for shape, count in self.wanted.items())}
                totals = {"CPU": 64.0, "GPU": self.nodes.gpus}
                share.look(wants, totals, seats=seats.cpus_held, gpus=seats.gpus_held)
                seats.keep(self.wanted, self.nodes, share.allowed("GPU"), share.owes)
                self.had[number] += seats.gpus_held  # type: ignore[assignment]
                busy += seats.gpus_held
        return busy / seconds


ONE, FOUR = Shape(1.0, 1.0, None), Shape(1.0, 4.0, None)


@pytest.mark.parametrize(
    ("gpus", "weights", "shape"),
    [
        (1, [1, 1], ONE),
        (1, [2, 1], ONE),
        (3, [1, 1], ONE),
        (8, [1, 1, 1], ONE),
        (2, [1, 1, 1], ONE),
        (4, [1, 1], FOUR),
        (8, [1, 1, 1], FOUR),
    ],
)
def test_of_gpus_that_cannot_be_divided_each_has_its_part_in_the_course_of_time(
    gpus: int, weights: list[float], shape: Shape
) -> None:
    drivers = Drivers(gpus, weights, [shape])
    drivers.pass_time(60)
    drivers.had.clear()
    busy = drivers.pass_time(int(4 * CYCLE))
    assert busy > 0.98 * gpus
    for number, weight in enumerate(weights):
        assert drivers.had[number] / drivers.had.total() == pytest.approx(weight / sum(weights), rel=0.12)
    # A model is loaded at each turn.
    assert drivers.moves <= 5 * len(weights) * 2


def test_what_can_be_divided_is_never_moved() -> None:
    drivers = Drivers(8, [1, 1], [ONE])
    drivers.pass_time(60)
    drivers.moves = 0
    assert drivers.pass_time(int(5 * CYCLE)) == pytest.approx(8)
    assert drivers.moves == 0


@settings(max_examples=15)
@given(
    st.sampled_from([1, 2, 4, 8]),
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=5),
    st.lists(st.sampled_from([Shape(1.0, each, None) for each in (0.5, 1.0, 2.0, 4.0)]), min_size=1, unique=True),
)
def test_no_gpu_lies_idle_that_somebody_wants_and_nobody_is_forgotten(
    gpus: int, weights: list[float], shapes: list[Shape]
) -> None:
    shapes = [shape for shape in shapes if shape.gpus <= gpus] or [ONE]
    drivers = Drivers(gpus, weights, shapes)
    drivers.pass_time(60)
    drivers.had.clear()
    busy = drivers.pass_time(int(3 * CYCLE))
    # What is left may be smaller than any shape.
    assert busy > gpus - min(shape.gpus for shape in shapes) * len(weights) - 0.1
    assert all(drivers.had[number] for number in range(len(weights)))

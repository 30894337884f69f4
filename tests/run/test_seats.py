"""Seats keep the cores of GPU steps from CPU steps, are no more than are wanted, and go when nobody wants them."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.run.executors.nodes import Node, Nodes, Shape
from orchestrator.run.executors.seats import Seats

SMALL, WIDE, HALF, WHOLE = Shape(4, 1, None), Shape(8, 1, None), Shape(2, 0.5, None), Shape(16, 1, None)


class Machines:
    """Nodes on which groups are placed first come, first served, as Ray does."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = Nodes(nodes)
        self.now = 0.0
        self.groups: dict[int, Shape] = {}
        self.placed: dict[int, str] = {}
        self.off: dict[int, str | None] = {}
        self.made = 0
        self.seats = Seats(self._make, self._remove, lambda group: self.placed.get(group), lambda: self.now)

    def _make(self, shape: Shape, off: str | None) -> int:
        self.made += 1
        self.groups[self.made], self.off[self.made] = shape, off
        return self.made

    def _remove(self, group: int) -> None:
        del self.groups[group]
        self.placed.pop(group, None)

    def tick(self) -> None:
        self.now += 1
        for group, shape in self.groups.items():
            for node in self.nodes.all if group not in self.placed else ():
                there = [self.groups[each] for each, where in self.placed.items() if where == node.id]
                cpus, gpus = (sum(each[k] or 0 for each in there) for k in (0, 1))
                if node.id == self.off[group]:
                    continue
                if cpus + shape.cpus <= node.has.cpus and gpus + shape.gpus <= node.has.gpus and not node.draining:
                    self.placed[group] = node.id
                    break

    def keep(self, **wanted: int) -> None:
        shapes = {"small": SMALL, "wide": WIDE, "half": HALF, "whole": WHOLE}
        counts = {shapes[name]: count for name, count in wanted.items()}
        self.seats.keep(counts, self.nodes)
        self.tick()
        self.seats.keep(counts, self.nodes)

    def there(self) -> Counter[Shape]:
        return Counter(seat.shape for seat in self.seats.all if seat.node)


def node(name: str = "a", cpus: float = 16, gpus: float = 2, draining: bool = False) -> Node:
    return Node(name, Shape(cpus, gpus, None), draining)


def test_there_are_as_many_seats_as_are_wanted_and_the_gpus_allow() -> None:
    machines = Machines(node(), node("b"))
    machines.keep(small=3)
    assert machines.there() == {SMALL: 3}
    machines.keep(small=100)
    assert machines.there() == {SMALL: 4}
    assert len(machines.seats.all) == 4
    assert machines.seats.cpus(machines.nodes) == 16
    machines.keep()
    assert machines.groups == {}


def test_seats_of_half_a_gpu_share_one() -> None:
    machines = Machines(node())
    machines.keep(half=9)
    assert machines.there() == {HALF: 4}


def test_a_seat_that_somebody_has_stays_until_he_leaves() -> None:
    machines = Machines(node())
    machines.keep(small=2)
    seat = machines.seats.free(SMALL)[0]
    seat.taken = True
    machines.keep()
    assert machines.seats.all == [seat]
    seat.taken = False
    machines.keep()
    assert machines.seats.all == []


def test_what_comes_first_takes_over_the_seats_of_others_as_they_become_free() -> None:
    machines = Machines(node())
    machines.keep(small=5)
    first, second = machines.seats.free(SMALL)
    first.taken = second.taken = True
    machines.keep(wide=1, small=5)
    assert machines.there() == {SMALL: 2}
    first.taken = False
    machines.keep(wide=1, small=5)
    assert machines.there() == {SMALL: 1, WIDE: 1}


def test_cores_are_kept_for_seats_that_the_gpus_have_room_for_and_for_no_others() -> None:
    machines = Machines(node(cpus=16, gpus=2))
    machines.seats.keep({SMALL: 2}, machines.nodes)
    assert machines.seats.cpus_awaited(machines.nodes)
    assert machines.seats.cpus(machines.nodes) == 8
    machines.tick()
    machines.keep(small=2)
    assert not machines.seats.cpus_awaited(machines.nodes)
    # All GPUs are taken: what waits for one needs no core yet.
    for seat in machines.seats.free(SMALL):
        seat.taken = True
    machines.keep(wide=1, small=2)
    assert machines.seats.cpus(machines.nodes) == 8


def test_for_a_step_that_needs_a_whole_node_one_node_is_cleared_while_the_others_go_on() -> None:
    machines = Machines(node(), node("b"))
    machines.keep(small=9)
    for seat in machines.seats.free(SMALL):
        seat.taken = True
    at = {name: [seat for seat in machines.seats.all if seat.node == name] for name in ("a", "b")}
    # Whichever seat becomes free, those of one node are not taken again.
    machines.keep(whole=1, small=9)
    cleared = machines.seats.clearing or ""
    other = at["b" if cleared == "a" else "a"][0]
    for seat in (at[cleared][0], other, at[cleared][1]):
        seat.taken = False
        machines.keep(whole=1, small=9)
        for free in machines.seats.free(SMALL):
            free.taken = True
        machines.now += 1
    machines.keep(whole=1, small=9)
    assert machines.there() == {SMALL: 2, WHOLE: 1}
    assert machines.seats.clearing is None


def test_for_a_turn_of_a_whole_node_no_node_is_cleared() -> None:
    machines = Machines(node(), node("b"))
    for _ in range(3):
        machines.seats.keep({SMALL: 2, WHOLE: 2}, machines.nodes, 3.0)
        machines.tick()
    assert machines.seats.clearing is None
    assert machines.there() == {SMALL: 2}
    # Whoever has nothing else gets one all the same.
    machines.seats.keep({WHOLE: 2}, machines.nodes, 1.5)
    machines.tick()
    machines.seats.keep({WHOLE: 2}, machines.nodes, 1.5)
    assert machines.there() == {WHOLE: 1}


def test_a_sick_seat_keeps_its_gpu_from_work_and_is_not_replaced() -> None:
    machines = Machines(node())
    machines.keep(small=2)
    machines.seats.free(SMALL)[0].sick = True
    machines.keep(small=9)
    assert len(machines.seats.free(SMALL)) == 1
    assert len(machines.seats.all) == 2
    # Nobody wants a GPU any more: no machine is kept for it.
    machines.keep()
    assert machines.groups == {}


def test_a_node_that_is_drained_loses_its_free_seats_and_is_given_no_others() -> None:
    machines = Machines(node(), node("b"))
    machines.keep(small=4)
    busy = next(seat for seat in machines.seats.all if seat.node == "a")
    busy.taken = True
    machines.nodes = Nodes([node(draining=True), node("b")])
    machines.keep(small=4)
    assert Counter(seat.node for seat in machines.seats.all) == {"a": 1, "b": 2}
    busy.taken = False
    machines.keep(small=4)
    assert {seat.node for seat in machines.seats.all} == {"b"}


def test_a_seat_that_is_made_anew_on_another_node_is_another_place() -> None:
    machines = Machines(node(), node("b"))
    machines.keep(small=1)
    (seat,) = machines.seats.all
    before, seat.device = seat.place, "0"
    machines.placed[seat.group] = "b"
    machines.now += 10
    machines.keep(small=1)
    assert seat.place != before
    assert seat.device is None


def test_a_cluster_that_may_grow_is_told_of_more_than_it_has_and_at_least_of_one() -> None:
    machines = Machines(node(gpus=0))
    machines.nodes = Nodes(machines.nodes.all, grows=True)
    machines.keep(small=40)
    assert len(machines.seats.all) == 1
    machines.nodes = Nodes([node(gpus=0), node("b", gpus=2)], grows=True)
    machines.keep(small=40)
    assert machines.there() == {SMALL: 2}
    assert len(machines.seats.all) == 4
    machines.keep()
    assert machines.groups == {}


@given(
    st.lists(st.tuples(st.sampled_from(["small", "wide", "half"]), st.integers(0, 9), st.integers(0, 3)), max_size=12)
)
def test_no_seat_is_lost_and_none_is_left_whatever_is_wanted_and_whoever_has_them(
    story: list[tuple[str, int, int]],
) -> None:
    machines = Machines(node(), node("b", cpus=8, gpus=1))
    for name, count, taken in story:
        machines.keep(**{name: count})
        for position, seat in enumerate(machines.seats.all):
            seat.taken = bool(seat.node) and position < taken
        assert [seat.group for seat in machines.seats.all] == list(machines.groups)
        assert sum(seat.shape.gpus for seat in machines.seats.all if seat.node) <= 3
    for seat in machines.seats.all:
        seat.taken = False
    machines.keep()
    assert machines.groups == {}

"""Drivers on one cluster share it by their weights, and nobody's share lies idle."""

from __future__ import annotations

import pytest
from clockwork import Wall
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.run.executors.share import Share, divide


@pytest.mark.parametrize(
    ("asked", "given_"),
    [
        ([(1, 99)], [8]),
        ([(1, 99), (1, 99)], [4, 4]),
        ([(3, 99), (1, 99)], [6, 2]),
        ([(1, 2), (1, 99)], [2, 6]),
        ([(1, 99), (1, 1), (2, 99)], [7 / 3, 1, 14 / 3]),
        # What nobody asks for may be wanted in a moment.
        ([(1, 2), (1, 0)], [5, 3]),
    ],
)
def test_what_is_divided(asked: list[tuple[float, float]], given_: list[float]) -> None:
    assert divide(8, asked) == pytest.approx(given_)


@given(
    st.floats(0.1, 1000),
    st.lists(st.tuples(st.floats(0.01, 100), st.floats(0, 2000)), min_size=1, max_size=6),
)
def test_all_is_given_and_who_gets_less_than_he_asks_for_gets_the_most_for_his_weight(
    total: float, asked: list[tuple[float, float]]
) -> None:
    parts = divide(total, asked)
    assert sum(parts) == pytest.approx(total)
    if sum(wish for _, wish in asked) > total:
        assert all(part <= wish * (1 + 1e-9) + 1e-9 for part, (_, wish) in zip(parts, asked, strict=True))
    for part, (weight, wish) in zip(parts, asked, strict=True):
        if part < wish * (1 - 1e-9):
            assert all(part / weight >= other / heavy - 1e-6 for other, (heavy, _) in zip(parts, asked, strict=True))


def test_two_drivers_have_half_each_and_one_whose_neighbour_left_or_died_has_all() -> None:
    now, wall = [0.0], Wall()
    first, second = (Share(wall, name, 1.0, lambda: now[0]) for name in ("a", "b"))
    wants, totals = {"CPU": 99.0, "GPU": 8.0}, {"CPU": 16.0, "GPU": 8.0}

    def pass_time(seconds: float, *drivers: Share) -> None:
        for _ in range(int(seconds)):
            now[0] += 1
            for driver in drivers:
                driver.look(wants, totals)

    pass_time(3, first)
    assert (first.allowed("CPU"), first.allowed("GPU")) == (None, None)
    pass_time(5, first, second)
    assert (first.allowed("GPU"), second.allowed("GPU")) == (4, 4)
    # One that is killed says nothing more.
    pass_time(20, first)
    assert first.allowed("GPU") is None
    pass_time(5, first, second)
    assert first.allowed("CPU") == 8
    second.leave()
    pass_time(3, first)
    assert first.allowed("CPU") is None


def test_a_driver_that_has_no_work_for_gpus_leaves_them_to_the_other() -> None:
    now, wall = [0.0], Wall()
    first, second = (Share(wall, name, 1.0, lambda: now[0]) for name in ("a", "b"))
    for _ in range(6):
        now[0] += 1
        first.look({"CPU": 99, "GPU": 99}, {"CPU": 40, "GPU": 8}, seats=24.0)
        second.look({"CPU": 99, "GPU": 0}, {"CPU": 40, "GPU": 8})
    assert first.allowed("GPU") == 8
    # Of the cores that the seats of the one leave.
    assert (first.allowed("CPU"), second.allowed("CPU")) == (8, 8)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "3",
        '{"weight": 1}',
        '{"weight": NaN, "wants": {"CPU": 1, "GPU": 1}, "seats": 0, "waiting": 0, "gpus": 0}',
        '{"weight": 1, "wants": {"CPU": 1, "GPU": 1}, "seats": 0, "waiting": -1, "gpus": 0}',
        "\\ud800",
    ],
)
def test_what_is_no_word_of_a_driver_costs_nobody_a_share(text: str) -> None:
    wall = Wall()
    wall.put("stranger", text)
    share = Share(wall, "a", 1.0, lambda: 5.0)
    share.look({"CPU": 99, "GPU": 99}, {"CPU": 16, "GPU": 8})
    assert (share.allowed("CPU"), share.allowed("GPU")) == (None, None)


def begun_by(cores: int, drivers: list[tuple[float, float]], waiting: float = 0.0) -> tuple[list[Share], list[float]]:
    """Have drivers of a weight and a size of step read of each other; return how many steps each may then begin.

    `waiting` is of the first: cores that its seats wait for.
    """
    now, wall = [0.0], Wall()
    shares = [Share(wall, str(number), weight, lambda: now[0]) for number, (weight, _) in enumerate(drivers)]
    for _ in range(6):
        now[0] += 1
        for share in shares:
            mine = waiting if share is shares[0] else 0.0
            share.look({"CPU": cores, "GPU": 0.0}, {"CPU": cores, "GPU": 0.0}, waiting=mine)
    return shares, [share.room("CPU", each, 0.0) for share, (_, each) in zip(shares, drivers, strict=True)]


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.floats(0.1, 10), st.sampled_from([0.5, 1.0, 2.0, 3.0])), min_size=1, max_size=5),
)
def test_however_small_the_shares_are_no_core_that_all_want_lies_idle(
    cores: int, drivers: list[tuple[float, float]]
) -> None:
    shares, begun = begun_by(cores, drivers)
    assert sum(count * each for count, (_, each) in zip(begun, drivers, strict=True)) >= cores - 1e-6
    assert all(count >= 1 for count in begun)
    for share, count, (_, each) in zip(shares, begun, drivers, strict=True):
        # And nobody has one more than that.
        assert (count < float("inf") and share.room("CPU", each, count * each) == 0) or len(drivers) == 1


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.floats(0.1, 10), st.sampled_from([0.5, 1.0, 2.0, 3.0])), min_size=2, max_size=5),
    st.sampled_from([1.0, 2.0, 4.0]),
)
def test_while_a_seat_waits_for_cores_all_leave_them_to_it_and_none_has_more_than_its_share(
    cores: int, drivers: list[tuple[float, float]], waiting: float
) -> None:
    _, begun = begun_by(cores, drivers, waiting)
    assert sum(count * each for count, (_, each) in zip(begun, drivers, strict=True)) <= max(0, cores - waiting) + 1e-4

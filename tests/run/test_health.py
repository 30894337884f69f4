"""A sick device or node costs two tries and no step; a step that dies wherever it runs costs no device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import toy_sweep
from toy_sweep import ONE

from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.outcome import failed_attempt
from orchestrator.attempt.request import Request
from orchestrator.run.executors import NO_TURNS, Ended, Place, Slot, Unwatched
from orchestrator.run.health import Health
from orchestrator.run.loop import run_plan
from orchestrator.run.schedule import State
from orchestrator.session import open_session
from orchestrator.types import Attempt, Outcome, Runtime

GOOD, OTHER = Place("a", 0), Place("a", 1)


class Places(Unwatched):
    """Several devices, each with one bundle at a time; a step ends at the first `wait` after it began."""

    bundle_seconds = 0.0
    cpus = 4.0

    def __init__(self, places: Sequence[Place], dies: Callable[[Place, float], bool]) -> None:
        self.places = places
        self.dies = dies
        self.queue: list[tuple[Request, Place]] = []
        self.quarantined: dict[Place, str] = {}
        self.ever: list[Place] = []
        self.tries: Counter[Place] = Counter()

    def reserve(self, demand: Mapping[Runtime, int], soon: Mapping[Runtime, int]) -> None:
        pass

    def slots(self, runtime: Runtime) -> int:
        return len(self.places)

    def _works(self, place: Place) -> bool:
        return not {place, Place(place.node, None)} & self.quarantined.keys()

    def find_slot(self, runtime: Runtime, ready: Mapping[str, int], turns: Mapping[str, int] = NO_TURNS) -> Slot | None:
        busy = {place for _, place in self.queue}
        free = [place for place in self.places if place not in busy and self._works(place)]
        return Slot(place=free[0]) if free else None

    def submit(self, requests: Sequence[Request], slot: Slot) -> None:
        (request,) = requests
        assert slot.place
        self.queue.append((request, slot.place))

    def wait(self, seconds: float) -> list[Ended]:
        queue, self.queue = self.queue, []
        return [Ended((request,), (self._run(request, place),), place) for request, place in queue]

    def _run(self, request: Request, place: Place) -> Attempt:
        if self.dies(place, float(request.step.config["value"])):
            self.tries[place] += 1
            return failed_attempt(request, Outcome.FAILED, RuntimeError("odd"), 0.0, 0.1, "odd", None)
        (attempt,) = run_bundle([request])
        return attempt

    def elsewhere(self, place: Place) -> bool:
        if place.seat is None:
            return any(each.node != place.node and self._works(each) for each in self.places)
        return any(each != place and self._works(each) for each in self.places)

    def quarantine(self, place: Place, reason: str) -> None:
        self.quarantined[place] = reason
        self.ever.append(place)

    def acquit(self, place: Place) -> None:
        self.quarantined.pop(place, None)

    def sick(self) -> Mapping[str, str]:
        return {}

    def stop(self) -> None:
        pass


def play(folder: Path, places: Sequence[Place], dies: Callable[[Place, float], bool]) -> tuple[Places, Counter[State]]:
    text = ONE.replace("x: [1]", f"x: {list(range(40))}")
    session = open_session(toy_sweep.write_sweep(folder, text), outputs=str(folder / "out"))
    session.store.prepare()
    executor = Places(places, dies)
    list(run_plan(session.schedule, session.store, executor, "abc"))
    return executor, Counter(State(int(code)) for code in session.schedule.codes)


def test_one_sick_device_of_two_costs_two_tries_and_no_step(tmp_path: Path) -> None:
    executor, states = play(tmp_path, [GOOD, OTHER], lambda place, _: place == OTHER)
    assert states == {State.COMMITTED: 40}
    assert executor.tries == {OTHER: 2}
    assert list(executor.quarantined) == [OTHER]
    assert "2 different steps died there, none succeeded between; the last: source, odd" in executor.quarantined[OTHER]


def test_a_sick_node_costs_two_tries_whatever_its_number_of_devices(tmp_path: Path) -> None:
    sick = [Place("b", seat) for seat in range(2, 10)]
    executor, states = play(tmp_path, [GOOD, *sick], lambda place, _: place.node == "b")
    assert states == {State.COMMITTED: 40}
    # Those that had begun when the second died there are not held against anybody.
    assert sum(executor.tries.values()) <= 8
    assert list(executor.quarantined) == [Place("b", None)]


def test_a_step_that_dies_wherever_it_runs_fails_after_two_tries_and_no_device_is_blamed(tmp_path: Path) -> None:
    executor, states = play(tmp_path, [GOOD, OTHER], lambda _, value: value in (3, 4, 5, 30))
    assert states == {State.COMMITTED: 36, State.FAILED: 4}
    assert sum(executor.tries.values()) == 8
    assert executor.quarantined == {}


def test_where_there_is_one_place_a_step_that_dies_has_failed(tmp_path: Path) -> None:
    executor, states = play(tmp_path, [GOOD], lambda _, value: value == 3)
    assert states == {State.COMMITTED: 39, State.FAILED: 1}
    assert executor.tries == {GOOD: 1}


def test_a_stage_that_always_fails_ends_with_the_breaker_and_blames_no_device(tmp_path: Path) -> None:
    executor, states = play(tmp_path, [GOOD, OTHER, Place("b", 2)], lambda *_: True)
    assert states[State.COMMITTED] == 0
    assert states[State.FAILED] >= 10
    assert states[State.FAILED] + states[State.BLOCKED] == 40
    assert sum(executor.tries.values()) <= 2 * (10 + 3)


def test_a_place_where_a_step_succeeds_between_two_that_die_is_not_sick() -> None:
    health = Health()
    health.died(GOOD, 1, "odd")
    health.succeeded(GOOD)
    health.died(GOOD, 2, "odd")
    assert health.verdict(GOOD) is None
    health.died(GOOD, 3, "odd")
    assert health.verdict(GOOD)
    # One device is sick, and not its node.
    assert health.verdict(Place("a", None)) is None
    health.died(OTHER, 4, "odd")
    assert health.verdict(Place("a", None))
    # What dies elsewhere too, is to blame itself.
    health.acquit(4)
    assert health.verdict(Place("a", None)) is None

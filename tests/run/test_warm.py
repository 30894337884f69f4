"""Steps of one model follow each other on one process, which loads it once."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
import toy_sweep
from hypothesis import given
from hypothesis import strategies as st
from toy_sweep import ASK

from orchestrator.drive import drive
from orchestrator.run.executors import Slot
from orchestrator.run.executors.warm import CROWDED_LIMIT, IDLE_LIMIT, WarmWorkers
from orchestrator.run.loop import run_plan
from orchestrator.session import open_session


def test_a_model_is_loaded_once_and_not_once_per_step(tmp_path: Path, local_ray: None) -> None:
    session = open_session(toy_sweep.write_sweep(tmp_path, ASK), outputs=str(tmp_path / "out"))
    assert drive(session, None, False, None) == 0
    loads = Counter((tmp_path / "toy-trace").read_text().splitlines())
    assert len(loads) == 12
    # 120 steps, 12 models, 2 processes; at the end one process may help the other with its model.
    assert sum(loads.values()) <= 1.2 * 12


def test_an_executor_that_stops_abandons_the_calls_of_its_processes(tmp_path: Path, local_ray: None) -> None:
    from orchestrator.run.executors.ray_cluster import RayExecutor

    session = open_session(toy_sweep.write_sweep(tmp_path, ASK), outputs=str(tmp_path / "out"))
    session.store.prepare()
    executor = RayExecutor()
    running = run_plan(session.schedule, session.store, executor, "abc")
    next(running)
    started = time.monotonic()
    executor.stop()
    assert time.monotonic() - started < 20


def test_in_one_process_every_model_is_loaded_once(tmp_path: Path) -> None:
    session = open_session(toy_sweep.write_sweep(tmp_path, ASK), outputs=str(tmp_path / "out"))
    assert drive(session, None, True, None) == 0
    assert Counter((tmp_path / "toy-trace").read_text().splitlines()).most_common(1)[0][1] == 1


class Cluster:
    """Workers whose steps take one second of a fake clock; counts what they load."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.now = 0.0
        self.started = self.loads = 0
        self.ended: list[int] = []
        self.warm = WarmWorkers(self._start, self.ended.append, lambda: self.now)
        self.queues: dict[int, list[str]] = {}
        self.loaded: dict[int, str] = {}

    def _start(self, shape: object) -> int:
        self.started += 1
        self.queues[self.started] = []
        return self.started

    def fill(self, left: dict[str, int]) -> None:
        """Give out steps until there is no room."""
        while ready := {model: steps for model, steps in left.items() if steps}:
            slot = self.warm.find_slot("shape", ready, self.slots)
            if slot is None:
                return
            assert slot.model is not None
            left[slot.model] -= 1
            self.queues[self.warm.take("shape", slot).process].append(slot.model)
            assert len(self.warm.workers) <= self.slots
            assert all(len(queue) <= 2 for queue in self.queues.values())

    def second(self) -> int:
        """Every worker does one step; returns how many had nothing to do."""
        self.now += 1
        idle = 0
        for worker in self.warm.workers:
            queue = self.queues[worker.process]
            if not queue:
                idle += 1
                continue
            model = queue.pop(0)
            self.loads += self.loaded.get(worker.process) != model
            self.loaded[worker.process] = model
            self.warm.ended(worker)
        return idle


@given(
    st.dictionaries(st.sampled_from("abcdefghijkl"), st.integers(1, 40), min_size=1),
    st.integers(1, 8),
)
def test_no_process_forgets_a_model_that_has_work_and_none_waits_while_there_is_work(
    steps: dict[str, int], slots: int
) -> None:
    cluster, left = Cluster(slots), dict(steps)
    total = sum(steps.values())
    cluster.fill(left)
    seconds = 0
    while any(cluster.queues.values()):
        work = sum(left.values())
        idle = cluster.second()
        seconds += 1
        # Only a last step of a model that another process holds is left to that process.
        assert not idle or work <= len(steps)
        cluster.fill(left)
    assert not any(left.values())
    # Each model once; and each process helps others with theirs only when none is left that nobody works on.
    assert cluster.loads <= len(steps) + slots * max(1, slots - 1)
    assert seconds <= total


@pytest.mark.parametrize(("models", "slots"), [(6, 2), (12, 2), (12, 4), (40, 8)])
def test_models_of_equal_work_are_loaded_at_most_a_fifth_more_often_than_there_are_models(
    models: int, slots: int
) -> None:
    cluster, left = Cluster(slots), {f"model {index}": 20 for index in range(models)}
    cluster.fill(left)
    while any(cluster.queues.values()):
        cluster.second()
        cluster.fill(left)
    assert cluster.loads <= 1.2 * models
    assert cluster.started == slots


def test_a_process_with_nothing_to_do_is_ended_after_a_while_or_when_others_need_its_resources() -> None:
    cluster = Cluster(2)
    cluster.fill({"a": 1, "b": 1})
    cluster.warm.retire(crowded=True)
    assert not cluster.ended
    cluster.second()
    cluster.now += IDLE_LIMIT
    cluster.warm.retire(crowded=False)
    assert not cluster.ended
    cluster.now += 1
    cluster.warm.retire(crowded=False)
    assert cluster.ended == [1, 2]
    cluster.fill({"a": 1})
    cluster.second()
    cluster.warm.retire(crowded=True)
    assert cluster.ended == [1, 2]  # the next step may be ready in a moment
    cluster.now += 2 * CROWDED_LIMIT
    cluster.warm.retire(crowded=True)
    assert cluster.ended == [1, 2, 3]
    assert cluster.warm.workers == []


def test_processes_of_other_resources_are_left_alone() -> None:
    cluster = Cluster(1)
    cluster.warm.take("large", Slot("a"))
    slot = cluster.warm.find_slot("small", {"a": 5}, 1)
    assert slot is not None
    assert slot.worker is None

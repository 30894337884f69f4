"""An executor whose machines do nothing but take time, by a clock of their own, and the figures of an order on it."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.attempt.request import Request
from orchestrator.plan.columns import Plan
from orchestrator.run.executors import NO_TURNS, Ended, OnePlace, Slot
from orchestrator.run.executors.warm import WarmWorkers, Worker
from orchestrator.run.loop import run_plan
from orchestrator.session import open_session
from orchestrator.types import Attempt, Outcome, Runtime, Step

#: Bundles that wait for cores beyond those that can run, as on Ray.
_AHEAD = 4


@dataclass(frozen=True)
class Costs:
    """Seconds that things take."""

    step: Callable[[Step], float]
    load: float
    """To load a model into a process that keeps it."""
    bundle: float
    """To start a bundle."""
    read: Mapping[str, float] = field(default_factory=dict)
    """Stage -> to read what its steps share; once for a bundle of steps that are done together."""


class _Shape(NamedTuple):
    cpus: float
    gpus: float


@dataclass(eq=False)
class _Process:
    loaded: str | None = None
    queue: list[tuple[tuple[Request, ...], str]] = field(default_factory=list)
    cpus: float | None = None
    """Cores that it holds; None before it has them. GPUs come with cores of their own."""


class Clockwork(OnePlace):
    """An executor with some GPUs, which are given out one by one, and some cores, which are queued for."""

    def __init__(self, gpus: int, cpus: float, costs: Costs) -> None:
        self.cpus, self.gpus, self.costs = cpus, gpus, costs
        self.bundle_seconds = 1.0
        self.now = 0.0
        self.loads = self.bins = 0
        self.bundles: Counter[str] = Counter()
        """Entry -> number of bundles."""
        self.busy = Counter[bool]()
        """Whether of GPUs, or else of cores -> seconds for which they were used."""
        self.ends: dict[str, float] = {}
        """Key -> when its step ended."""
        self.most_tasks_on_gpus = 0
        self._warm = WarmWorkers(lambda shape: _Process(), self._end, lambda: self.now)
        self._tasks: Counter[_Shape] = Counter()
        self._waiting: list[tuple[tuple[Request, ...] | Worker, _Shape]] = []
        self._events: list[tuple[float, int, tuple[Request, ...], _Shape, Worker | None, list[float]]] = []
        self._free_cpus = cpus
        self._begun = 0

    def _shape(self, runtime: Runtime) -> _Shape:
        return _Shape(min(runtime.cpus, self.cpus), runtime.gpus)

    def _tasks_on_gpus(self) -> int:
        return sum(count for shape, count in self._tasks.items() if shape.gpus)

    def slots(self, runtime: Runtime) -> int:
        shape = self._shape(runtime)
        return max(1, int(self.gpus / shape.gpus if shape.gpus else self.cpus / shape.cpus))

    def find_slot(self, runtime: Runtime, ready: Mapping[str, int], turns: Mapping[str, int] = NO_TURNS) -> Slot | None:
        shape = self._shape(runtime)
        if ready:
            slots = self.gpus - self._tasks_on_gpus() if shape.gpus else self.slots(runtime)
            return self._warm.find_slot(shape, ready, slots, turns)
        if not shape.gpus:
            return Slot() if self._tasks[shape] < self.slots(runtime) + _AHEAD else None
        workers = [worker for worker in self._warm.workers if worker.shape.gpus]
        if self._tasks_on_gpus() + len(workers) < self.gpus:
            return Slot()
        idle = next((worker for worker in workers if not worker.bundles), None)
        return Slot(None, idle) if idle else None

    def submit(self, requests: Sequence[Request], slot: Slot) -> None:
        shape = self._shape(requests[0].runtime)
        self.bundles[requests[0].step.entry] += 1
        if slot.model:
            worker = self._warm.take(shape, slot)
            worker.process.queue.append((tuple(requests), slot.model))
            if worker.bundles == 1:
                if worker.process.cpus is None and not shape.gpus:
                    self._waiting.append((worker, shape))
                else:
                    self._next(worker)
        else:
            self._tasks[shape] += 1
            self.most_tasks_on_gpus = max(self.most_tasks_on_gpus, self._tasks_on_gpus())
            if not shape.gpus:
                self._waiting.append((tuple(requests), shape))
            else:
                if slot.worker:
                    self._warm.lost(slot.worker)
                self._begin(tuple(requests), shape)
        self._place()

    def _place(self) -> None:
        for each in list(self._waiting):
            what, shape = each
            if shape.cpus <= self._free_cpus:
                self._free_cpus -= shape.cpus
                self._waiting.remove(each)
                if isinstance(what, Worker):
                    what.process.cpus = shape.cpus
                    self._next(what)
                else:
                    self._begin(what, shape)

    def _next(self, worker: Worker) -> None:
        requests, model = worker.process.queue.pop(0)
        load = 0.0 if worker.process.loaded == model else self.costs.load
        self.loads += bool(load)
        worker.process.loaded = model
        self._begin(requests, worker.shape, worker, load)

    def _begin(
        self, requests: tuple[Request, ...], shape: _Shape, worker: Worker | None = None, load: float = 0.0
    ) -> None:
        stage = requests[0].step.address.stage
        read = self.costs.read.get(stage, 0.0)
        if requests[0].step.definition.together:
            read /= len(requests)
        seconds = [self.costs.step(each.step) + read for each in requests]
        seconds[0] += load
        if stage == "fit_lightgbm":
            # Features of the same pairs are binned once.
            pairs = [{axis: label for axis, label in each.step.coords.items() if axis != "beta"} for each in requests]
            self.bins += 1 + sum(one != other for one, other in pairwise(pairs))
        whole = self.costs.bundle + sum(seconds)
        self.busy[shape.gpus > 0] += whole * (shape.gpus or shape.cpus)
        self._begun += 1
        heapq.heappush(self._events, (self.now + whole, self._begun, requests, shape, worker, seconds))

    def wait(self, seconds: float) -> list[Ended]:
        held = sum(worker.shape.cpus for worker in self._warm.workers if not worker.shape.gpus)
        tasks = sum(shape.cpus * count for shape, count in self._tasks.items() if not shape.gpus)
        self._warm.retire(held + tasks > self.cpus)
        self._place()
        idle = any(not worker.bundles and not worker.shape.gpus for worker in self._warm.workers)
        if self._waiting and idle and (not self._events or self._events[0][0] > self.now + seconds):
            # A process that is idle may be ended meanwhile.
            self.now += seconds
            return []
        if not self._events:
            self.now += seconds
            return []
        self.now = self._events[0][0]
        ended: list[Ended] = []
        while self._events and self._events[0][0] <= self.now:
            _, _, requests, shape, worker, shares = heapq.heappop(self._events)
            if worker:
                self._warm.ended(worker)
                if worker.process.queue:
                    self._next(worker)
            else:
                self._tasks[shape] -= 1
                self._free_cpus += 0.0 if shape.gpus else shape.cpus
            self.ends |= dict.fromkeys((each.step.key for each in requests), self.now)
            ended.append(Ended(requests, tuple(map(_success, requests, shares))))
        self._place()
        return ended

    def _end(self, process: _Process) -> None:
        self._free_cpus += process.cpus or 0.0

    def stop(self) -> None:
        pass


def _success(request: Request, seconds: float) -> Attempt:
    step, done = request.step, Outcome.SUCCEEDED
    return Attempt(step.address, step.entry, request.number, done, seconds, 0.0, "here", "abc", metrics={})


@dataclass(frozen=True)
class Played:
    """A sweep that was run by the clock."""

    machines: Clockwork
    plan: Plan
    finished: NDArray[np.float64]
    """When each cell was finished, in order, as a share of the whole time."""

    def finished_at(self, time: float) -> float:
        """Return the share of the cells that is finished at a share of the time."""
        return float(np.searchsorted(self.finished, time, "right") / len(self.finished))

    def busy(self, on_gpus: bool) -> float:
        """Return the share of the time for which GPUs, or cores, were busy."""
        machines = self.machines
        return machines.busy[on_gpus] / machines.now / (machines.gpus if on_gpus else machines.cpus)


def play(sweep: Path, folder: Path, machines: Clockwork, overrides: Sequence[str] = ()) -> Played:
    """Run a sweep to its end; every step succeeds."""
    session = open_session(sweep, overrides, outputs=str(folder))
    session.store.prepare()
    for _ in run_plan(session.schedule, session.store, machines, "abc"):
        pass
    assert session.schedule.done
    plan = session.plan
    # Steps that no cell needs are not run.
    ends = np.array([machines.ends.get(key, 0.0) for key in plan.keys])
    whole = np.zeros(len(plan.points))
    for name in plan.wanted:
        firsts = plan.groups(name)
        assert plan.size[firsts].max() == 1
        np.maximum(whole, np.where(firsts >= 0, ends[firsts], 0.0), out=whole)
    return Played(machines, plan, np.sort(whole) / machines.now)


class Wall:
    """A board in this process."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}

    def put(self, driver: str, text: str) -> None:
        self.notes[driver] = text

    def remove(self, driver: str) -> None:
        self.notes.pop(driver, None)

    def read(self) -> dict[str, str]:
        return dict(self.notes)

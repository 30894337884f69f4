"""An executor without work: its machines only take time, by a clock of their own. It counts what an order costs."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.attempt.request import Request
from orchestrator.plan.columns import Plan
from orchestrator.run.executors import NO_TURNS, Ended, Slot
from orchestrator.run.executors.warm import WarmWorkers, Worker
from orchestrator.run.loop import run_plan
from orchestrator.session import open_session
from orchestrator.types import Attempt, Outcome, Runtime, Step

#: Bundles of tasks that wait beyond those that can run, as on Ray.
AHEAD = 4


@dataclass
class Costs:
    """Seconds of all that is done."""

    step: Callable[[Step], float]
    load: float
    """To load a model into a process of a GPU, or a warm one."""
    bundle: float = 0.2
    """To start a bundle."""
    read: Mapping[str, float] = field(default_factory=dict)
    """Stage -> to read what the steps of a bundle share, where they are done together."""


class Machines:
    """Some GPUs, each with cores of its own, and cores beside them; GPUs are given out like seats."""

    def __init__(self, gpus: int, cpus: float, costs: Costs) -> None:
        self.cpus, self.gpus, self.costs = cpus, gpus, costs
        self.bundle_seconds = 1.0
        self.now = 0.0
        self.loads = self.bundles = self.bins = 0
        self.sizes: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.busy = {"gpu": 0.0, "cpu": 0.0}
        self.ends: dict[str, float] = {}
        self.trace: list[tuple[float, float, str, str]] = []
        self._warm = WarmWorkers(lambda shape: {"loaded": None, "queue": [], "cpus": None}, self._end, lambda: self.now)
        self._tasks: Counter[tuple[float, float]] = Counter()
        self._waiting: list[tuple[tuple[Request, ...], tuple[float, float]]] = []
        self._events: list[tuple[float, int, Any]] = []
        self._number = 0
        self._free_cpus = cpus

    def _end(self, process: Any) -> None:
        self._free_cpus += process["cpus"] or 0.0

    def _shape(self, runtime: Runtime) -> tuple[float, float]:
        return (min(runtime.cpus, self.cpus), runtime.gpus)

    def slots(self, runtime: Runtime) -> int:
        cpus, gpus = self._shape(runtime)
        return max(1, int(self.gpus / gpus) if gpus else int(self.cpus / cpus))

    def find_slot(self, runtime: Runtime, ready: Mapping[str, int], turns: Mapping[str, int] = NO_TURNS) -> Slot | None:
        shape = self._shape(runtime)
        if not shape[1]:
            if ready:
                return self._warm.find_slot(shape, ready, self.slots(runtime), turns)
            return Slot() if self._tasks[shape] < self.slots(runtime) + AHEAD else None
        tasks = sum(count for (_, gpus), count in self._tasks.items() if gpus)
        if ready:
            return self._warm.find_slot(shape, ready, self.gpus - tasks, turns)
        workers = [worker for worker in self._warm.workers if worker.shape[1]]
        if tasks + len(workers) >= self.gpus:
            idle = next((worker for worker in workers if not worker.bundles), None)
            return Slot(None, idle) if idle else None
        return Slot()

    def submit(self, requests: Sequence[Request], slot: Slot) -> None:
        shape = self._shape(requests[0].runtime)
        self.bundles += 1
        entry = requests[0].step.entry
        self.counts[entry] += 1
        self.sizes[entry] += len(requests)
        if slot.model:
            worker = self._warm.take(shape, slot)
            worker.process["queue"].append((tuple(requests), slot.model))
            if worker.process["cpus"] is None and shape[1]:
                worker.process["cpus"] = 0.0
            if worker.process["cpus"] is None:
                if worker.bundles == 1:
                    self._waiting.append((worker, shape))
                    self._place()
            elif worker.bundles == 1:
                self._next(worker)
            return
        self._tasks[shape] += 1
        if shape[1]:
            if slot.worker:
                self._warm.lost(slot.worker)
            self._begin(tuple(requests), shape, None, 0.0)
        else:
            self._waiting.append((tuple(requests), shape))
            self._place()

    def _next(self, worker: Worker) -> None:
        requests, model = worker.process["queue"].pop(0)
        load = 0.0 if worker.process["loaded"] == model else self.costs.load
        self.loads += bool(load)
        worker.process["loaded"] = model
        self._begin(requests, worker.shape, worker, load)

    def _place(self) -> None:
        for each in list(self._waiting):
            if each[1][0] <= self._free_cpus:
                self._free_cpus -= each[1][0]
                self._waiting.remove(each)
                if isinstance(each[0], Worker):
                    each[0].process["cpus"] = each[1][0]
                    self._next(each[0])
                else:
                    self._begin(*each, None, 0.0)

    def _begin(self, requests: tuple[Request, ...], shape: tuple[float, float], worker: Worker | None, load: float) -> None:
        definition = requests[0].step.definition
        together = bool(definition.together)
        read = self.costs.read.get(requests[0].step.address.stage, 0.0)
        seconds = [self.costs.step(each.step) + (0.0 if together else read) for each in requests]
        shared = read if together else 0.0
        if "lightgbm" in requests[0].step.address.stage:
            pairs = [tuple((k, v) for k, v in each.step.coords.items() if k != "beta") for each in requests]
            self.bins += 1 + sum(a != b for a, b in zip(pairs, pairs[1:], strict=False))
        whole = load + self.costs.bundle + shared + sum(seconds)
        kind = "gpu" if shape[1] else "cpu"
        self.busy[kind] += whole * (shape[1] or shape[0])
        self.trace.append((self.now, whole, requests[0].step.entry, requests[0].step.key))
        self._number += 1
        shares = [each + shared / len(requests) for each in seconds]
        shares[0] += load
        heapq.heappush(self._events, (self.now + whole, self._number, (requests, shape, worker, shares)))

    def wait(self, seconds: float) -> list[Ended]:
        ended: list[Ended] = []
        held = sum(worker.shape[0] for worker in self._warm.workers if not worker.shape[1])
        tasks = sum(cpus * count for (cpus, gpus), count in self._tasks.items() if not gpus)
        self._warm.retire(held + tasks > self.cpus)
        self._place()
        if not self._events or self._events[0][0] > self.now + seconds:
            # As the loop: it looks every half second, since an idle process may be ended.
            if self._waiting or not self._events:
                self.now += seconds
                return []
        self.now = self._events[0][0]
        while self._events and self._events[0][0] <= self.now:
            _, _, (requests, shape, worker, shares) = heapq.heappop(self._events)
            if worker:
                self._warm.ended(worker)
                if worker.process["queue"]:
                    self._next(worker)
            else:
                self._tasks[shape] -= 1
                if not shape[1]:
                    self._free_cpus += shape[0]
            attempts = []
            for request, each in zip(requests, shares, strict=True):
                self.ends[request.step.key] = self.now
                attempts.append(
                    Attempt(
                        request.step.address, request.step.entry, request.number, Outcome.SUCCEEDED, each, 0.0, "here",
                        "abc", metrics={},
                    )
                )  # fmt: skip
            ended.append(Ended(requests, tuple(attempts)))
        self._place()
        return ended

    def unschedulable(self) -> str | None:
        return None

    def silent(self) -> list[str]:
        return []

    def usage(self) -> dict[str, tuple[float, float]]:
        return {}

    def publish(self, sweep: str, snapshot: object) -> None:
        pass

    def stop(self) -> None:
        pass


@dataclass
class Report:
    machines: Machines
    plan: Plan
    finished: NDArray[np.float64]
    """When each cell was finished, in order, as a share of the whole time."""

    @property
    def total(self) -> float:
        return self.machines.now

    @property
    def first(self) -> float:
        return float(self.finished[0])

    def share_at(self, time: float) -> float:
        """Share of the cells that are finished at a share of the time."""
        return float(np.searchsorted(self.finished, time, "right") / len(self.finished))


def play(
    path: Path, folder: Path, gpus: int, cpus: float, costs: Costs, overrides: Sequence[str] = ()
) -> Report:
    session = open_session(path, overrides, outputs=str(folder / "out"))
    session.store.prepare()
    machines = Machines(gpus, cpus, costs)
    for attempt in run_plan(session.schedule, session.store, machines, "abc"):
        assert attempt is None or attempt.outcome is Outcome.SUCCEEDED
    plan = session.plan
    assert session.schedule.done
    ends = np.array([machines.ends.get(key, 0.0) for key in plan.keys])
    cells = np.zeros(len(plan.points))
    for name in plan.wanted:
        firsts = plan.groups(name)
        there = firsts >= 0
        for shard in range(int(plan.size[firsts[there]].max(initial=1))):
            numbers = firsts + np.minimum(shard, plan.size[firsts] - 1)
            cells[there] = np.maximum(cells[there], ends[numbers[there]])
    return Report(machines, plan, np.sort(cells) / machines.now)

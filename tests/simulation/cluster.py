"""Nodes, workers and the executor of a simulated cluster; what runs on the workers is the product's own bundle."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from world import Actor, Thread

from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.request import Request
from orchestrator.run.executors import Ended, OnePlace, Slot
from orchestrator.run.executors.recovery import recovered_attempts
from orchestrator.types import Outcome, Runtime

if TYPE_CHECKING:
    from history import History

#: Seconds until the cluster notices that a process died, and that a node is gone.
_NOTICED, _NODE_NOTICED = 0.5, 5.0


class WorkerDiedError(Exception):
    """A worker process died."""


class Worker(Actor):
    """A worker process, which runs bundles for one driver."""

    def __init__(self, history: History, executor: ClusterExecutor, number: int, node: Any) -> None:
        super().__init__(history.world, f"worker {number} of {executor.driver}", node)
        self.executor = executor
        self.bundle: tuple[Request, ...] | None = None
        self.begun = 0.0
        self.ended_at: float | None = None
        self.answer: Ended | None = None
        self.main: Thread = history.world.spawn(self, lambda: self._run(history), 0.5)
        history.start_heartbeat(self)

    def _run(self, history: History) -> None:
        while True:
            while self.bundle is None:
                self.world.sleep(0.5)
            requests = self.bundle
            self.facts["driver"] = requests[0].driver
            self.facts["bundle"] = requests
            try:
                attempts = tuple(run_bundle(requests))
            except BaseException as error:
                history.judge.demand(False, f"{type(error).__name__} of a step ends its worker")
                raise
            self.facts.pop("bundle", None)
            self.bundle = None
            self.answer = Ended(requests, attempts)
            self.executor.arrived()

    def give(self, requests: Sequence[Request]) -> None:
        """Give it a bundle."""
        self.bundle = tuple(requests)
        self.begun = time.time()
        self.world.notify(self.main)


class ClusterExecutor(OnePlace):
    """An executor over the workers of a simulated cluster, which go and come."""

    def __init__(self, history: History, driver: Actor) -> None:
        self.history = history
        self.driver = driver
        self.cpus = 4.0
        chooses = history.world.choices.stream(f"executor of {driver}")
        self.size = 1 + chooses.below(3)
        self.bundle_seconds = float(4 * chooses.below(2))
        self.workers: dict[Worker, tuple[Request, ...] | None] = {}
        """Worker -> the bundle that it is taken to run."""
        self.waiting: Thread | None = None
        self.count = 0
        history.executors.append(self)

    def slots(self, runtime: Runtime) -> int:
        return self.size

    def _running(self) -> list[tuple[Request, ...]]:
        return [bundle for bundle in self.workers.values() if bundle]

    def find_slot(self, runtime: Runtime, ready: Mapping[str, int], turns: object = None) -> Slot | None:
        return Slot() if len(self._running()) < self.size else None

    def submit(self, requests: Sequence[Request], slot: Slot) -> None:
        self.history.submitted(self, requests)
        worker = next((each for each, bundle in self.workers.items() if bundle is None and self._fit(each)), None)
        if worker is None:
            self.count += 1
            worker = Worker(self.history, self, self.count, self.history.some_node(self.driver))
        self.workers[worker] = tuple(requests)
        for request in requests:
            self.history.judge.running[request.step.address] = worker
        worker.give(requests)

    @staticmethod
    def _fit(worker: Worker) -> bool:
        return worker.alive and not worker.node.lost

    def arrived(self) -> None:
        """Wake the driver: a bundle has ended."""
        if self.waiting:
            self.history.world.notify(self.waiting)

    def wait(self, seconds: float) -> list[Ended]:
        world = self.history.world
        until = world.now + max(seconds, 2.0)
        while True:
            ended = self._collect()
            if ended or world.now >= until:
                return ended
            self.waiting = world.current
            pause = min(until, *(each for each in self._alarms()), until) - world.now
            world.sleep(max(pause, 0.001))
            self.waiting = None

    def _alarms(self) -> list[float]:
        return [worker.ended_at for worker in self.workers if worker.ended_at is not None]

    def _collect(self) -> list[Ended]:
        ended: list[Ended] = []
        now = self.history.world.now
        for worker, requests in list(self.workers.items()):
            if worker.answer is not None and not worker.node.lost:
                ended.append(worker.answer)
                if any(attempt.outcome is Outcome.STORE_ERROR for attempt in worker.answer.attempts):
                    # Its workers have waited in vain, whatever is the matter with the driver itself.
                    self.driver.facts["hurt"] = math.inf
                self._is_over(worker.answer.requests)
                worker.answer = None
                self.workers[worker] = None
                continue
            if worker.alive and not worker.node.lost:
                continue
            if worker.ended_at is None:
                worker.ended_at = now + (_NODE_NOTICED if worker.node.lost else _NOTICED)
            if worker.ended_at > now:
                continue
            lost = worker.node.lost
            del self.workers[worker]
            if requests:
                self._is_over(requests)
                error = WorkerDiedError("the node is gone" if lost else "exit code -9")
                starved = worker.facts.get("starved")
                outcome = Outcome.LOST if lost else Outcome.OUT_OF_MEMORY if starved else Outcome.CRASHED
                ended.append(Ended(requests, tuple(recovered_attempts(requests, error, outcome, worker.begun))))
        return ended

    def _is_over(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self.history.judge.running.pop(request.step.address, None)

    def stop(self) -> None:
        """End the workers, as Ray does when a driver leaves; those that stand still end when they go on."""
        self.kill_workers()

    def kill_workers(self) -> None:
        for worker, requests in self.workers.items():
            if not worker.node.lost:
                worker.world.kill(worker)
            self._is_over(requests or ())
        self.workers.clear()


class Nature:
    """What happens to nodes, processes and places without anybody's doing."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.world = history.world
        self.stream = self.world.choices.stream("nature")
        chooses = self.world.choices.stream("events")
        events: list[Callable[[], None]] = [
            self.kills_a_worker, self.kills_a_driver, self.stops_a_process, self.loses_a_node, self.cuts_a_node_off,
            self.takes_the_store_away, self.takes_outputs_away, self.takes_mlflow_away, self.steps_a_clock,
            self.terminates_a_driver, self.damages_an_artifact,
        ]  # fmt: skip
        self.events = [each for each in events if chooses.below(2)]
        self.pause = 2.0 + 6.0 * self.world.choices.stream("pause").below(3)

    def run(self) -> None:
        while self.world.faults:
            self.world.sleep(self.pause)
            chosen = self.stream.rare(0.5)
            if chosen is not None and self.events and self.world.faults:
                self.events[int(chosen * len(self.events))]()

    def _one_of(self, things: Sequence[Any]) -> Any:
        return things[self.stream.below(len(things))] if things else None

    def _seconds(self) -> float:
        """Seconds that something lasts: mostly few, sometimes more than a term."""
        return float(1 + 100 * (self.stream.below(16) / 16) ** 2)

    def kills_a_worker(self) -> None:
        worker = self._one_of([each for each in self.history.actors if isinstance(each, Worker) and each.alive])
        if worker:
            self.world.kill(worker)

    def kills_a_driver(self) -> None:
        driver = self._one_of(self.history.living_drivers())
        if driver:
            self.history.kill_driver(driver)

    def stops_a_process(self) -> None:
        actor = self._one_of([each for each in self.history.actors if each.alive and each is not self.history.nature])
        if actor and actor.asleep_until < self.world.now:
            seconds = self._seconds()
            self.world.tell(f"stands still for {seconds:.0f} s", actor)
            actor.asleep_until = self.world.now + seconds

    def loses_a_node(self) -> None:
        """A node is gone for the cluster; its processes go on, many after a while, and may still reach the store."""
        node = self._one_of([each for each in self.history.nodes[1:] if not each.lost])
        if node:
            self.world.tell(f"{node.name} is lost; its processes go on")
            node.lost = True
            self.history.replace_node(node)
            for actor in self.history.actors:
                if actor.node is node and actor.alive and self.stream.below(2):
                    actor.asleep_until = max(actor.asleep_until, self.world.now + self._seconds() / 2)

    def cuts_a_node_off(self) -> None:
        node = self._one_of(self.history.nodes)
        node.cut_off_until = self.world.now + self._seconds()
        self.world.tell(f"{node.name} cannot reach the store for {node.cut_off_until - self.world.now:.0f} s")

    def _takes_away(self, place: str) -> None:
        seconds = self._seconds()
        self.world.tell(f"{place} is away for {seconds:.0f} s")
        self.history.faults.away_until[place] = self.world.now + seconds

    def takes_the_store_away(self) -> None:
        self._takes_away("store")

    def takes_outputs_away(self) -> None:
        self._takes_away("outputs")

    def takes_mlflow_away(self) -> None:
        self._takes_away("mlflow")

    def steps_a_clock(self) -> None:
        node = self._one_of(self.history.nodes)
        node.wall += -3600.0 if self.stream.below(2) else 3600.0
        self.world.tell(f"the clock of {node.name} steps by an hour")

    def terminates_a_driver(self) -> None:
        driver = self._one_of(self.history.living_drivers())
        if driver and driver.facts.get("shutdown"):
            self.world.tell("gets SIGTERM", driver)
            driver.facts["shutdown"]._terminate(15, None)

    def damages_an_artifact(self) -> None:
        # Of what others read.
        read = [each for each in sorted(self.history.judge.committed) if each.stage != "sim_total"]
        address = self._one_of(read)
        if address and self.history.damage(address):
            self.world.tell(f"{address.stage}/{address.key} rots")


def calm(world_faults: Any, actors: Sequence[Actor]) -> None:
    """End all faults: what is away comes back, who stands still goes on."""
    world_faults.world.faults = False
    world_faults.away_until.clear()
    for actor in actors:
        actor.node.cut_off_until = -math.inf
        if actor.alive and actor.asleep_until > world_faults.world.now:
            world_faults.world.awake(actor)
            actor.asleep_until = -math.inf

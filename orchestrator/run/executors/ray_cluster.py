"""Runs steps as Ray tasks, on a local instance or a cluster.

Retries, time limits and classification are ours and not Ray's, so every task is submitted with `max_retries=0`.
"""

from __future__ import annotations

import contextlib
import pickle
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RaySystemError,
    RayTaskError,
    TaskCancelledError,
)
from ray.util.metrics import Gauge
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.attempt.attempt import store_at
from orchestrator.attempt.request import Request
from orchestrator.attempt.silence import silence_limit
from orchestrator.run.executors import NO_TURNS, Ended, ExecutorLostError, Place, Slot, Snapshot
from orchestrator.run.executors.cluster import Cluster
from orchestrator.run.executors.head import Head
from orchestrator.run.executors.nodes import Shape
from orchestrator.run.executors.ray_start import connect
from orchestrator.run.executors.ray_worker import WITHOUT_GPUS, Ran, WarmWorker, run, run_on_gpu
from orchestrator.run.executors.recovery import UnplaceableError, attempts_after, record_failure, recovered_attempts
from orchestrator.run.executors.seats import Seat
from orchestrator.run.executors.warm import WarmWorkers, Worker
from orchestrator.store import StoreError
from orchestrator.study.copy import CodeCopy
from orchestrator.study.modules import study_of
from orchestrator.types import Artifact, Outcome, Runtime

#: Seconds between looks at notices, and at seats that wait for cores.
_NOTICES_EVERY, _SEATS_EVERY = 10.0, 0.05
#: Bundles that no node can hold which are failed at once.
_REFUSED_AT_ONCE = 16


class _Process(NamedTuple):
    """A process that keeps its model."""

    actor: Any
    seat: Seat | None
    """Where it uses a GPU."""


class _Submitted(NamedTuple):
    """A submitted bundle."""

    requests: tuple[Request, ...]
    when: float
    """Unix time in seconds."""
    shape: Shape
    worker: Worker | None
    seat: Seat | None
    """The seat of a bundle that has one to itself."""


class RayExecutor:
    """An executor that runs bundles as Ray tasks with the resources of their runtime."""

    def __init__(self, address: str | None = None, code: CodeCopy | None = None, share: float = 1.0) -> None:
        """Connect to a cluster, or start a local instance.

        Args:
            address: address of the cluster; None takes RAY_ADDRESS, or else starts a local instance.
            code: the code of stages that are not this package's, for the workers.
            share: the weight of this driver among those on the cluster.

        Raises:
            RayUnreachableError: no cluster answers at the address, or none starts here.
        """
        self._disconnect = connect(address)
        # In a tuple: Ray would fetch a plain reference for every task.
        self._code = (code.digest, code.folder, (ray.put(code.content),)) if code else None
        self.bundle_seconds = 1.0
        self._head = Head(ray.get_runtime_context().gcs_address)
        self._cluster = Cluster(share)
        self._running: dict[Any, _Submitted] = {}
        """Task -> its bundle, in order of submission."""
        self._refused: list[Ended] = []
        """Bundles that no node can hold."""
        self._warm = WarmWorkers(self._start_worker, self._end_worker)
        self._steps = Gauge("sweep_steps", "Steps of a sweep in each state", ("Sweep", "Stage", "State"))
        self._cells = Gauge("sweep_cells", "Cells of a sweep with each status", ("Sweep", "Status"))
        self._failures = Gauge("sweep_failures", "Failed steps by error class", ("Sweep", "Stage", "Class"))
        self._notices_due = 0.0
        """Unix time in seconds at which notices are looked for again."""
        self._noticed: set[tuple[Artifact, int]] = set()
        """(Step, number) of the attempts whose notices were told."""
        self._kinds: dict[tuple[str, str], None] = {}
        """(Entry, error class) of all failures published so far: a gauge must fall to 0 when they are resolved."""

    @property
    def cpus(self) -> float:
        """CPU cores in all."""
        return self._cluster.nodes.cpus

    def reserve(self, demand: Mapping[Runtime, int], soon: Mapping[Runtime, int]) -> None:
        """Keep seats for steps that use GPUs.

        Raises:
            ExecutorLostError: the head has not answered for long.
        """
        if not (demand or soon or self._cluster.seats.all) or not self._head.answers():
            # Asked for seats, a head that is gone would not return.
            return
        seated = (
            Counter(bundle.shape for bundle in self._running.values() if bundle.shape.gpus) if demand or soon else {}
        )
        self._cluster.reserve(demand, soon, seated)
        surplus = Counter(self._cluster.seats.surplus)
        for worker in self._warm.workers:
            if seat := worker.process.seat:
                worker.closed = self._cluster.closes(seat) or surplus[seat.shape] > 0
                surplus[seat.shape] -= 1

    def slots(self, runtime: Runtime) -> int:
        """Return how many such tasks the cluster can run at once; at least 1."""
        return max(1, self._cluster.nodes.count(self._cluster.nodes.shape(runtime)))

    def find_slot(self, runtime: Runtime, ready: Mapping[str, int], turns: Mapping[str, int] = NO_TURNS) -> Slot | None:
        """Find a seat for steps that use GPUs; for others room, counted per shape, that seats leave."""
        shape = self._cluster.nodes.shape(runtime)
        if self._cluster.nodes.refuse(shape):
            return Slot(next(iter(ready), None)) if len(self._refused) < _REFUSED_AT_ONCE else None
        mine = [worker for worker in self._warm.workers if worker.shape == shape and not worker.closed]
        if not shape.gpus:
            self._cluster.wants_cpus = True
            idle = sum(each.shape.cpus for each in self._warm.workers if not each.shape.gpus and each not in mine)
            if ready:
                return self._warm.find_slot(shape, ready, max(1, self._cluster.slots(shape, idle)), turns)
            idle += sum(each.shape.cpus for each in mine)
            slots = self._cluster.slots(shape, idle) + self._cluster.ahead
            return Slot() if self._cluster.tasks[shape] < slots else None
        free = self._cluster.free_seats(shape) if self._head.answers() else []
        if not ready:
            return Slot(worker=free[0], place=free[0].place) if free else None
        slot = self._warm.find_slot(shape, ready, len(mine) + len(free), turns)
        if slot is None:
            return None
        seat: Seat = slot.worker.process.seat if slot.worker else free[0]
        return Slot(slot.model, slot.worker, seat.place)

    def submit(self, requests: Sequence[Request], slot: Slot) -> None:
        """Start a bundle as a Ray task; if its steps load a model, as a call of an actor that keeps the model."""
        first = requests[0]
        shape = self._cluster.nodes.shape(first.runtime)
        if reason := self._cluster.nodes.refuse(shape):
            failed = [record_failure(each, Outcome.FAILED, UnplaceableError(reason), time.time()) for each in requests]
            self._refused.append(Ended(tuple(requests), tuple(failed)))
            return
        more = f" +{len(requests) - 1}" if len(requests) > 1 else ""
        name = f"{first.step.entry} {first.step.key[:8]}{more}"
        if origin := first.step.definition.origin:
            # Pickle names classes by their modules, which must be those of this study.
            study_of(origin).activate()
        # Ray's own pickler takes ten times as long over so many small objects.
        bundle = pickle.dumps(list(requests), pickle.HIGHEST_PROTOCOL)
        given = (bundle, self._code, first.runtime.python)
        worker = self._warm.take(shape, slot) if slot.model else None
        seat: Seat | None = None
        if worker:
            task = worker.process.actor.run.options(name=name).remote(*given)
        elif shape.gpus:
            seat = slot.worker
            task = run_on_gpu.options(name=name, **_options(shape, seat)).remote(*given)
        else:
            options = shape.options() | self._cluster.avoiding(slot.avoid)
            task = run.options(name=name, **options).remote(*given)
            self._cluster.tasks[shape] += 1
        if seat:
            seat.taken = True
        self._running[task] = _Submitted(tuple(requests), time.time(), shape, worker, seat)

    def wait(self, seconds: float) -> list[Ended]:
        """Wait for a bundle to end; return all that ended. The death of a worker is an attempt that crashed.

        Raises:
            ExecutorLostError: Ray no longer answers, or this driver's node is dead.
        """
        refused, self._refused = self._refused, []
        idle = sum(worker.shape.cpus for worker in self._warm.workers if not worker.shape.gpus)
        self._warm.retire(self._cluster.crowded(idle))
        tasks = list(self._running)
        if refused:
            seconds = 0.0
        elif self._cluster.seats.cpus_awaited(self._cluster.nodes):
            seconds = min(seconds, _SEATS_EVERY)
        ready: list[Any] = []
        try:
            if tasks:
                ready, _ = ray.wait(tasks, num_returns=1, timeout=seconds)
            else:
                time.sleep(seconds)
            if ready:
                ready, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0)
            if self._cluster.due and self._head.answers():
                self._cluster.look()
                refused += self._withdraw()
        except (RayError, ConnectionError, RuntimeError) as error:
            raise ExecutorLostError(f"Ray no longer answers: {error}") from error
        return refused + [ended for task in tasks if task in set(ready) for ended in self._collect(task)]

    def _withdraw(self) -> list[Ended]:
        """Return the bundles that wait for a node which is gone and will not come again, and have Ray forget them."""
        nodes = self._cluster.nodes
        stuck = [
            task
            for task, bundle in self._running.items()
            if not (bundle.worker or bundle.seat or nodes.grows or nodes.ever(bundle.shape))
        ]
        for task in stuck:
            ray.cancel(task, force=True)
        ended = [Ended(self._running[task].requests, ()) for task in stuck]
        for task in stuck:
            self._cluster.tasks[self._running.pop(task).shape] -= 1
        return ended

    def elsewhere(self, place: Place) -> bool:
        """Tell whether there is another place of the kind that is not sick."""
        return self._cluster.elsewhere(place)

    def quarantine(self, place: Place, reason: str) -> None:
        """Give a place no work until a probe succeeds there."""
        self._cluster.quarantine(place, reason)

    def acquit(self, place: Place) -> None:
        """Give a place work again."""
        self._cluster.acquit(place)

    def sick(self) -> Mapping[str, str]:
        """Return the places that get no work -> why."""
        return self._cluster.sick()

    def unschedulable(self) -> str | None:
        """Return what is asked for and no node has, perhaps while one starts: Ray and its autoscaler say nothing."""
        nodes = self._cluster.nodes
        asked = [seat.shape for seat in self._cluster.seats.all if not seat.node]
        return next((str(shape) for shape in asked if not nodes.count(shape)), None)

    def silent(self) -> list[str]:
        """Return what workers left in the store on steps that seem to hang, each sentence once."""
        now = time.time()
        watched = [
            request
            for bundle in self._running.values()
            for request in bundle.requests
            if now >= self._notices_due and (limit := silence_limit(request.runtime)) and now - bundle.when >= limit
        ]
        if not watched:
            return []
        self._notices_due = now + _NOTICES_EVERY
        attempts = {(request.step.address, request.number) for request in watched} - self._noticed
        try:
            found = store_at(watched[0].store).notices(attempts)
        except StoreError:
            return []
        self._noticed |= found.keys()
        return list(found.values())

    def usage(self) -> dict[str, tuple[float, float]]:
        """Return what tasks reserve, as Ray's scheduler counts; they may use less or more."""
        try:
            if not self._head.answers():
                return {}
            total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
        except (RayError, ConnectionError, RuntimeError, ExecutorLostError):
            # `wait` meets the same error and reports it.
            return {}
        names = ("CPU", "GPU", "memory")
        return {name: (total[name] - free.get(name, 0.0), total[name]) for name in names if name in total}

    def publish(self, sweep: str, snapshot: Snapshot) -> None:
        """Set the gauges `ray_sweep_…` of Ray's metrics, which Prometheus reads from every node."""
        for entry, counts in snapshot.steps.items():
            for state, count in counts.items():
                self._steps.set(count, {"Sweep": sweep, "Stage": entry, "State": state})
        for status, count in snapshot.cells.items():
            self._cells.set(count, {"Sweep": sweep, "Status": status})
        self._kinds |= dict.fromkeys(snapshot.failures)
        for entry, kind in self._kinds:
            labels = {"Sweep": sweep, "Stage": entry, "Class": kind}
            self._failures.set(snapshot.failures.get((entry, kind), 0), labels)

    def stop(self) -> None:
        """End all tasks: with the connection if this executor made it, or else one by one."""
        with contextlib.suppress(RayError, ExecutorLostError):
            if self._head.answers():
                self._cluster.share.leave()
        if self._disconnect:
            # Ray kills what a driver that goes has running. Cancelled, a task that ends in that moment has Ray abort
            # the driver's process (in 1 of 9 runs with tasks of a second): "Tried to complete task that was not
            # pending", ray-project/ray#54527, still so in 2.60.
            self._disconnect()
        else:
            # From the last: what waits cannot end, and is no longer there to begin when those before it end.
            for task, bundle in reversed(self._running.items()):
                if bundle.worker is None:
                    ray.cancel(task, force=True)
            for worker in self._warm.workers:
                self._end_worker(worker.process)
            self._cluster.seats.clear()
        self._running.clear()

    def _collect(self, task: Any) -> list[Ended]:
        """Return the bundle of a task that ended, and those that its worker can no longer run."""
        bundle = self._running.pop(task, None)
        if bundle is None:
            return []
        requests, submitted = bundle.requests, bundle.when
        seat = bundle.worker.process.seat if bundle.worker else bundle.seat
        place = seat.place if seat else None
        if bundle.worker:
            self._warm.ended(bundle.worker)
        elif bundle.seat:
            bundle.seat.taken = False
        else:
            self._cluster.tasks[bundle.shape] -= 1
        try:
            ran: Ran = pickle.loads(ray.get(task))  # noqa: S301 (who reaches Ray runs code anyway)
        except RayTaskError as error:
            # Our own code could not start there, e.g. because a package is missing on that node.
            failed = [record_failure(each, Outcome.FAILED, error, submitted) for each in requests]
            return [Ended(requests, tuple(failed), place)]
        except (RayError, TaskCancelledError) as error:
            outcome = _outcome(error)
            ended = [Ended(requests, tuple(recovered_attempts(requests, error, outcome, submitted)), place)]
            if bundle.worker:
                ended += self._abandon(bundle.worker)
            if seat and outcome is Outcome.LOST:
                # Ray would try without a pause to make it anew, at another device.
                self._cluster.seats.forget(seat)
            return ended
        if seat:
            seat.device = ran.device
        attempts = attempts_after(requests, ran.trouble, submitted) if ran.trouble else ran.attempts
        ended = [Ended(requests, tuple(attempts), place or Place(ran.node, None))]
        # Whatever a GPU step dies of may have left something in its process.
        if bundle.worker and (
            ran.ending or (seat and any(each.outcome is not Outcome.SUCCEEDED for each in ended[0].attempts))
        ):
            self._end_worker(bundle.worker.process)
            ended += self._abandon(bundle.worker)
        return ended

    def _abandon(self, worker: Worker) -> list[Ended]:
        """Remove a dead process; return the bundles that were queued on it, of which no step was begun."""
        self._warm.lost(worker)
        if worker.process.seat:
            worker.process.seat.taken = False
        waiting = [task for task, bundle in self._running.items() if bundle.worker is worker]
        return [Ended(self._running.pop(task).requests, ()) for task in waiting]

    def _start_worker(self, shape: Shape) -> _Process:
        if not shape.gpus:
            options = shape.options() | self._cluster.avoiding() | {"runtime_env": WITHOUT_GPUS}
            return _Process(WarmWorker.options(**options).remote(), None)  # type: ignore[attr-defined]
        seat = self._cluster.seats.free(shape)[0]
        seat.taken = True
        return _Process(WarmWorker.options(**_options(shape, seat)).remote(), seat)  # type: ignore[attr-defined]

    def _end_worker(self, process: _Process) -> None:
        ray.kill(process.actor)
        if process.seat:
            process.seat.taken = False


def _options(shape: Shape, seat: Seat) -> dict[str, Any]:
    return shape.options() | {"scheduling_strategy": PlacementGroupSchedulingStrategy(seat.group, 0)}


def _outcome(error: Exception) -> Outcome:
    if isinstance(error, OutOfMemoryError):
        return Outcome.OUT_OF_MEMORY
    if isinstance(error, NodeDiedError | LocalRayletDiedError | RaySystemError | ActorUnavailableError):
        return Outcome.LOST
    if isinstance(error, ActorDiedError) and "node has died" in str(error):
        return Outcome.LOST
    return Outcome.CRASHED

"""Runs steps as Ray tasks, on a local instance or a cluster; the only file that runs anything on Ray.

Retries, time limits and classification are ours and not Ray's, so every task is submitted with `max_retries=0`.
"""

from __future__ import annotations

import math
import os
import pickle
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray._private.worker import global_worker
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

from orchestrator.attempt.attempt import store_at
from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.process import PROCESS
from orchestrator.attempt.request import Request
from orchestrator.attempt.silence import silence_limit
from orchestrator.run.executors import NO_TURNS, Ended, ExecutorLostError, Slot, Snapshot
from orchestrator.run.executors.head import Head
from orchestrator.run.executors.ray_start import connect
from orchestrator.run.executors.recovery import record_failure, recovered_attempts
from orchestrator.run.executors.warm import WarmWorkers, Worker
from orchestrator.run.executors.watchdog import Watchdog
from orchestrator.store import StoreError
from orchestrator.store.cache import cache_folder
from orchestrator.study.copy import CodeCopy, unpack
from orchestrator.study.modules import study_of, use_copy
from orchestrator.types import Artifact, Attempt, Outcome, Runtime

#: Tasks per resource shape in Ray's queue beyond those that can run, so that no core waits for the driver.
_QUEUED_AHEAD = 4


#: For steps that request no GPU, to which Ray leaves all GPUs of the machine. A process starts with it and Ray uses it
#: for nothing else, since torch never looks again. Not for other steps: it would hide the GPUs that Ray assigned.
_WITHOUT_GPUS = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}

#: Seconds between looks at the nodes of the cluster.
_CHECK_EVERY = 10.0


class _Shape(NamedTuple):
    """The resources that Ray reserves for a bundle (memory in bytes)."""

    cpus: float
    gpus: float
    memory: float | None

    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"num_cpus": self.cpus}
        if self.gpus:
            options["num_gpus"] = self.gpus
        if self.memory:
            options["memory"] = self.memory
        return options


class _Submitted(NamedTuple):
    """A submitted bundle."""

    requests: tuple[Request, ...]
    when: float
    """Unix time in seconds."""
    shape: _Shape
    worker: Worker | None


class RayExecutor:
    """An executor that runs bundles as Ray tasks with the resources of their runtime."""

    def __init__(self, address: str | None = None, code: CodeCopy | None = None) -> None:
        """Connect to a cluster, or start a local instance.

        Args:
            address: address of the cluster; None takes RAY_ADDRESS, or else starts a local instance.
            code: the code of stages that are not this package's, for the workers.

        Raises:
            RayUnreachableError: no cluster answers at the address, or none starts here.
        """
        self._disconnect = connect(address)
        # In a tuple: Ray would fetch a plain reference for every task.
        self._code = (code.digest, code.folder, (ray.put(code.content),)) if code else None
        self.bundle_seconds = 1.0
        self._head = Head(ray.get_runtime_context().gcs_address)
        self._read_nodes()
        self._running: dict[Any, _Submitted] = {}
        """Task -> its bundle, in order of submission."""
        self._shapes: Counter[_Shape] = Counter()
        """Shape -> number of bundles that run as tasks."""
        self._warm = WarmWorkers(_start_worker, _end_worker)
        self._steps = Gauge("sweep_steps", "Steps of a sweep in each state", ("Sweep", "Stage", "State"))
        self._cells = Gauge("sweep_cells", "Cells of a sweep with each status", ("Sweep", "Status"))
        self._failures = Gauge("sweep_failures", "Failed steps by error class", ("Sweep", "Stage", "Class"))
        self._notices_due = 0.0
        """Unix time in seconds at which notices are looked for again."""
        self._noticed: set[tuple[Artifact, int]] = set()
        """(Step, number) of the attempts whose notices were told."""
        self._kinds: dict[tuple[str, str], None] = {}
        """(Entry, error class) of all failures published so far: a gauge must fall to 0 when they are resolved."""

    def slots(self, runtime: Runtime) -> int:
        """Return how many such tasks the cluster's CPUs and GPUs can run at once; at least 1."""
        shape = self._shape(runtime)
        return max(1, int(min(self.cpus / shape.cpus, self.gpus / shape.gpus if shape.gpus else math.inf)))

    def find_slot(self, runtime: Runtime, ready: Mapping[str, int], turns: Mapping[str, int] = NO_TURNS) -> Slot | None:
        """Find room, counted per resource shape: waiting GPU steps must not keep CPU steps from running."""
        shape = self._shape(runtime)
        if ready:
            return self._warm.find_slot(shape, ready, self.slots(runtime), turns)
        return Slot() if self._shapes[shape] < self.slots(runtime) + _QUEUED_AHEAD else None

    def submit(self, requests: Sequence[Request], slot: Slot) -> None:
        """Start a bundle as a Ray task; if its steps load a model, as a call of an actor that keeps the model."""
        first = requests[0]
        shape = self._shape(first.runtime)
        more = f" +{len(requests) - 1}" if len(requests) > 1 else ""
        name = f"{first.step.entry} {first.step.key[:8]}{more}"
        if origin := first.step.definition.origin:
            # Pickle names classes by their modules, which must be those of this study.
            study_of(origin).activate()
        # Ray's own pickler takes ten times as long over so many small objects.
        bundle = pickle.dumps(list(requests), pickle.HIGHEST_PROTOCOL)
        worker = self._warm.take(shape, slot) if slot.model else None
        if worker:
            task = worker.process.run.options(name=name).remote(bundle, self._code)
        else:
            run = _run_on_gpu if shape.gpus else _run
            task = run.options(name=name, **shape.options()).remote(bundle, self._code)
            self._shapes[shape] += 1
        self._running[task] = _Submitted(tuple(requests), time.time(), shape, worker)

    def wait(self, seconds: float) -> list[Ended]:
        """Wait for a bundle to end; return all that ended. The death of a worker is an attempt that crashed.

        Raises:
            ExecutorLostError: Ray no longer answers, or this driver's node is dead.
        """
        if not self._running:
            return []
        self._warm.retire(self._crowded())
        tasks = list(self._running)
        try:
            ready, _ = ray.wait(tasks, num_returns=1, timeout=seconds)
            if ready:
                ready, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0)
            if time.monotonic() > self._check_due and self._head.answers():
                self._read_nodes()
        except (RayError, ConnectionError, RuntimeError) as error:
            raise ExecutorLostError(f"Ray no longer answers: {error}") from error
        return [ended for task in tasks if task in set(ready) for ended in self._collect(task)]

    def _crowded(self) -> bool:
        """Tell whether more is requested than the cluster has, so that idle processes are in the way."""
        shapes = [*self._shapes.elements(), *(worker.shape for worker in self._warm.workers)]
        cpus: float = sum(each.cpus for each in shapes)
        gpus: float = sum(each.gpus for each in shapes)
        return cpus > self.cpus or gpus > self.gpus

    def _read_nodes(self) -> None:
        """Read the resources of the living nodes: clusters grow and shrink.

        Raises:
            ExecutorLostError: this driver's node is dead.
        """
        self._check_due = time.monotonic() + _CHECK_EVERY
        nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        mine = ray.get_runtime_context().get_node_id()
        if not any(node["NodeID"] == mine for node in nodes):
            # Its tasks would never end.
            raise ExecutorLostError("the Ray node of this driver is dead")
        self._nodes = [
            _Shape(*(float(node["Resources"].get(name, 0.0)) for name in ("CPU", "GPU", "memory"))) for node in nodes
        ]
        self.cpus = max(sum(node.cpus for node in self._nodes), 1.0)
        self.gpus = sum(node.gpus for node in self._nodes)

    def unschedulable(self) -> str | None:
        """Return the resources of a task that fits no node: Ray queues it silently, perhaps while starting a node."""
        for shape in {bundle.shape for bundle in self._running.values()}:
            if not any(
                shape.cpus <= node.cpus and shape.gpus <= node.gpus and (shape.memory or 0) <= (node.memory or 0)
                for node in self._nodes
            ):
                memory = f", {shape.memory / 2**30:.1f} GiB" if shape.memory else ""
                return f"{shape.cpus:g} CPUs, {shape.gpus:g} GPUs{memory}"
        return None

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
        self._notices_due = now + _CHECK_EVERY
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
                _end_worker(worker.process)
        self._running.clear()

    def _collect(self, task: Any) -> list[Ended]:
        """Return the bundle of a task that ended, and those that its worker can no longer run."""
        bundle = self._running.pop(task, None)
        if bundle is None:
            return []
        requests, submitted = bundle.requests, bundle.when
        if bundle.worker:
            self._warm.ended(bundle.worker)
        else:
            self._shapes[bundle.shape] -= 1
        try:
            attempts, ending = pickle.loads(ray.get(task))  # noqa: S301 (who reaches Ray runs code anyway)
            ended = [Ended(requests, tuple(attempts))]
            if bundle.worker and ending:
                _end_worker(bundle.worker.process)
                ended += self._abandon(bundle.worker)
            return ended
        except RayTaskError as error:
            # Our own code could not start there, e.g. because a package is missing on that node.
            return [Ended(requests, tuple(record_failure(each, Outcome.FAILED, error, submitted) for each in requests))]
        except (RayError, TaskCancelledError) as error:
            ended = [Ended(requests, tuple(recovered_attempts(requests, error, _outcome(error), submitted)))]
            if bundle.worker:
                ended += self._abandon(bundle.worker)
            return ended

    def _abandon(self, worker: Worker) -> list[Ended]:
        """Remove a dead process; return the bundles that were queued on it, of which no step was begun."""
        self._warm.lost(worker)
        waiting = [task for task, bundle in self._running.items() if bundle.worker is worker]
        return [Ended(self._running.pop(task).requests, ()) for task in waiting]

    def _shape(self, runtime: Runtime) -> _Shape:
        # A laptop may have fewer cores than a step would like; on one machine it still runs, only slower.
        cpus = max(node.cpus for node in self._nodes) if runtime.whole_node else min(runtime.cpus, self.cpus)
        return _Shape(cpus, runtime.gpus, runtime.memory)


#: Digest of a copy of code, folder that it is a copy of, and where Ray keeps it.
_ShippedCode = tuple[str, str, tuple[Any]]


#: Calls after which Ray ends a process, having reported the last. None makes so many: see `_retire`.
_CALLS = 2**30


def _run_once(requests: bytes, code: _ShippedCode | None) -> bytes:
    """Run a bundle; return its attempts, and whether this process may run no other."""
    _take_code(code)
    attempts = run_bundle(pickle.loads(requests), Watchdog)  # noqa: S301 (Ray's driver)
    return pickle.dumps((attempts, _must_end(attempts)), pickle.HIGHEST_PROTOCOL)


def _run_pickled(requests: bytes, code: _ShippedCode | None) -> bytes:
    """Run a bundle in a process that is there for the next one too, if it may."""
    ended = _run_once(requests, code)
    if PROCESS.spoilt:
        _retire()
    return ended


def _retire() -> None:
    """Have Ray end this process when it has reported the running task, as if it had made all its calls.

    Ray has no public way: what ends a process by itself loses the result of the task, or the next task.
    """
    calls: dict[Any, Any] = global_worker.function_actor_manager._num_task_executions
    for function in calls:
        calls[function] = _CALLS - 1
    # A thread that a stage left is not waited for: it may write into what is committed, or never end.
    threading._register_atexit(os._exit, 0)  # type: ignore[attr-defined]


def _take_code(code: _ShippedCode | None) -> None:
    """Have this process import what is not this package's from a copy that the driver made."""
    if code is None:
        return
    digest, folder, (kept,) = code
    if _taken.get(folder) != digest:
        content: Any = ray.get(kept)
        use_copy(unpack(content, digest, cache_folder() / "code"), Path(folder))
        _taken[folder] = digest


#: Folder of a study -> digest of the copy of it that this process has.
_taken: dict[str, str] = {}


def _must_end(attempts: Sequence[Attempt]) -> bool:
    """Tell whether this process, which made these attempts, may run nothing more; see `run_bundle`."""
    return PROCESS.spoilt is not None or any(each.outcome is Outcome.CRASHED for each in attempts)


_run = ray.remote(max_retries=0, max_calls=_CALLS, runtime_env=_WITHOUT_GPUS)(_run_pickled)
#: Only a process that ends gives back all GPU memory, and is rid of what a failed GPU left in it.
_run_on_gpu = ray.remote(max_retries=0, max_calls=1)(_run_once)


@ray.remote(max_restarts=0, max_task_retries=0)
class _WarmWorker:
    """An actor that lives on between bundles, so that the model it loaded is there for the next one."""

    def __init__(self) -> None:
        self._ending = False

    def run(self, requests: bytes, code: _ShippedCode | None) -> bytes:
        _take_code(code)
        # The next bundle may arrive before the driver has the result of the last.
        attempts = [] if self._ending else run_bundle(pickle.loads(requests), Watchdog)  # noqa: S301 (Ray's driver)
        self._ending = self._ending or _must_end(attempts)
        return pickle.dumps((attempts, self._ending), pickle.HIGHEST_PROTOCOL)


def _start_worker(shape: _Shape) -> Any:
    environment = {} if shape.gpus else {"runtime_env": _WITHOUT_GPUS}
    return _WarmWorker.options(**shape.options(), **environment).remote()  # type: ignore[attr-defined]


def _end_worker(process: Any) -> None:
    ray.kill(process)


def _outcome(error: Exception) -> Outcome:
    if isinstance(error, OutOfMemoryError):
        return Outcome.OUT_OF_MEMORY
    if isinstance(error, NodeDiedError | LocalRayletDiedError | RaySystemError | ActorUnavailableError):
        return Outcome.LOST
    if isinstance(error, ActorDiedError) and "node has died" in str(error):
        return Outcome.LOST
    return Outcome.CRASHED

"""Runs steps as Ray tasks, on a local instance or a cluster. The only file that runs anything on Ray.

Ray holds no truth: retries, time-outs and classification are ours, so every task is submitted with `max_retries=0`.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import psutil

# Keeps older versions of Ray from warning; `_WITHOUT_GPUS` does not depend on it.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

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

from orchestrator.attempt.attempt import record_attempt
from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.capture import rescue_log
from orchestrator.attempt.outcome import failed_attempt, successful_attempt
from orchestrator.attempt.process import PROCESS
from orchestrator.attempt.request import Request
from orchestrator.run.executors import Ended, ExecutorLostError, Slot, Snapshot
from orchestrator.run.executors.ray_start import connect
from orchestrator.run.executors.warm import WarmWorkers, Worker
from orchestrator.store import StoreError, open_store
from orchestrator.types import Attempt, Manifest, Outcome, Runtime

#: Tasks of one resource shape that wait in Ray's queue beyond those that can run, so that no core waits for the driver.
_QUEUED_AHEAD = 4


#: Of processes for steps that ask for no GPU: Ray leaves them all of the machine's. A process is born with it and Ray
#: gives it to nothing else, since torch never looks again. Not for the others: Ray would then hide what it gave them.
_WITHOUT_GPUS = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}

#: While nothing ends, see so often (seconds) whether the cluster is still there.
_CHECK_EVERY = 10.0


class _Shape(NamedTuple):
    """What Ray reserves for a bundle."""

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


class _Sent(NamedTuple):
    """A bundle under way."""

    requests: tuple[Request, ...]
    when: float
    shape: _Shape
    worker: Worker | None


class RayExecutor:
    """Steps as Ray tasks with the resources of their runtime."""

    def __init__(self, address: str | None = None, modules: Collection[str] = ()) -> None:
        """Connect to a cluster, or start a local instance.

        Args:
            address: of the cluster; RAY_ADDRESS if it is None, else a local instance.
            modules: top-level modules of stages that are not this package's; workers are given a copy of them.

        Raises:
            RayUnreachableError: nothing answers at the address.
        """
        connect(address, modules)
        self.bundle_seconds = 1.0
        self._look_around()
        self._running: dict[Any, _Sent] = {}
        """In the order of sending."""
        self._shapes: Counter[_Shape] = Counter()
        """How many bundles of each shape run as tasks."""
        self._warm = WarmWorkers(_start_worker, _end_worker)
        self._steps = Gauge("sweep_steps", "Steps of a sweep in each state", ("Sweep", "Stage", "State"))
        self._cells = Gauge("sweep_cells", "Cells of a sweep with each status", ("Sweep", "Status"))
        self._failures = Gauge("sweep_failures", "Failed steps by error class", ("Sweep", "Stage", "Class"))
        self._kinds: dict[tuple[str, str], None] = {}
        """The kinds of failure that were published: one that was made good must fall to 0."""

    def slots(self, runtime: Runtime) -> int:
        """How many such tasks the cluster's cores and GPUs can run at once."""
        shape = self._shape(runtime)
        return max(1, int(min(self.cpus / shape.cpus, self.gpus / shape.gpus if shape.gpus else math.inf)))

    def place(self, runtime: Runtime, ready: Mapping[str, int]) -> Slot | None:
        """Room is counted per resource shape: waiting GPU steps must not keep CPU steps from running."""
        shape = self._shape(runtime)
        if ready:
            return self._warm.place(shape, ready, self.slots(runtime))
        return Slot() if self._shapes[shape] < self.slots(runtime) + _QUEUED_AHEAD else None

    def submit(self, requests: Sequence[Request], place: Slot) -> None:
        """Start a bundle as a Ray task; one whose steps load a model as a call of a worker that keeps it."""
        first = requests[0]
        shape = self._shape(first.runtime)
        more = f" +{len(requests) - 1}" if len(requests) > 1 else ""
        name = f"{first.step.entry} {first.step.key[:8]}{more}"
        # Ray's own pickler takes ten times as long over so many small objects.
        bundle = pickle.dumps(list(requests), pickle.HIGHEST_PROTOCOL)
        worker = self._warm.take(shape, place) if place.model else None
        if worker:
            task = worker.process.run.options(name=name).remote(bundle)
        else:
            task = (_run_on_gpu if shape.gpus else _run).options(name=name, **shape.options()).remote(bundle)
            self._shapes[shape] += 1
        self._running[task] = _Sent(tuple(requests), time.time(), shape, worker)

    def wait(self, seconds: float) -> list[Ended]:
        """Bundles that ended; a dead worker is an attempt that crashed."""
        if not self._running:
            return []
        self._warm.retire(self._crowded())
        tasks = list(self._running)
        try:
            ready, _ = ray.wait(tasks, num_returns=1, timeout=seconds)
            if ready:
                ready, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0)
            if time.monotonic() > self._check_due:
                self._look_around()
        except (RayError, ConnectionError, RuntimeError) as error:
            raise ExecutorLostError(f"Ray is gone: {error}") from error
        return [ended for task in tasks if task in set(ready) for ended in self._collect(task)]

    def _crowded(self) -> bool:
        """Whether more is asked for than there is, so that processes with nothing to do are in the way."""
        shapes = [*self._shapes.elements(), *(worker.shape for worker in self._warm.workers)]
        cpus: float = sum(each.cpus for each in shapes)
        gpus: float = sum(each.gpus for each in shapes)
        return cpus > self.cpus or gpus > self.gpus

    def _look_around(self) -> None:
        """See which nodes there are: clusters grow and shrink."""
        self._check_due = time.monotonic() + _CHECK_EVERY
        nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        mine = ray.get_runtime_context().get_node_id()
        if not any(node["NodeID"] == mine for node in nodes):
            # Its tasks would be waited for for ever.
            raise ExecutorLostError("the Ray node of this driver is dead")
        self._nodes = [
            _Shape(*(float(node["Resources"].get(name, 0.0)) for name in ("CPU", "GPU", "memory"))) for node in nodes
        ]
        self.cpus = max(sum(node.cpus for node in self._nodes), 1.0)
        self.gpus = sum(node.gpus for node in self._nodes)

    def unschedulable(self) -> str | None:
        """Ray says nothing of a task that fits no node; it may be that one is being started for it."""
        for shape in {sent.shape for sent in self._running.values()}:
            if not any(
                shape.cpus <= node.cpus and shape.gpus <= node.gpus and (shape.memory or 0) <= (node.memory or 0)
                for node in self._nodes
            ):
                memory = f", {shape.memory / 2**30:.1f} GiB" if shape.memory else ""
                return f"{shape.cpus:g} CPUs, {shape.gpus:g} GPUs{memory}"
        return None

    def usage(self) -> dict[str, tuple[float, float]]:
        """As Ray's scheduler counts: what tasks reserve, not what they take."""
        try:
            total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
        except (RayError, ConnectionError, RuntimeError):
            # `wait` finds out, and says what it means.
            return {}
        names = ("CPU", "GPU", "memory")
        return {name: (total[name] - free.get(name, 0.0), total[name]) for name in names if name in total}

    def publish(self, sweep: str, standing: Snapshot) -> None:
        """As gauges `ray_sweep_…` of Ray's metrics, which Prometheus reads from every node."""
        for entry, counts in standing.steps.items():
            for state, count in counts.items():
                self._steps.set(count, {"Sweep": sweep, "Stage": entry, "State": state})
        for status, count in standing.cells.items():
            self._cells.set(count, {"Sweep": sweep, "Status": status})
        self._kinds |= dict.fromkeys(standing.failures)
        for entry, kind in self._kinds:
            labels = {"Sweep": sweep, "Stage": entry, "Class": kind}
            self._failures.set(standing.failures.get((entry, kind), 0), labels)

    def stop(self) -> None:
        """Cancel everything and disconnect; a local instance ends with its driver."""
        for task, sent in self._running.items():
            if sent.worker is None:
                ray.cancel(task, force=True)
        self._running.clear()
        for worker in self._warm.workers:
            _end_worker(worker.process)
        ray.shutdown()

    def _collect(self, task: Any) -> list[Ended]:
        """What a bundle that ended came to; with it those that its worker can no longer run."""
        sent = self._running.pop(task, None)
        if sent is None:
            return []
        requests, submitted = sent.requests, sent.when
        if sent.worker:
            self._warm.ended(sent.worker)
        else:
            self._shapes[sent.shape] -= 1
        try:
            attempts: list[Attempt] = pickle.loads(ray.get(task))
            ended = [Ended(requests, tuple(attempts))]
            if sent.worker and _spoilt(attempts):
                _end_worker(sent.worker.process)
                ended += self._abandon(sent.worker)
            return ended
        except RayTaskError as error:
            # Our own code could not even begin there, e.g. because a package is missing on that node.
            return [Ended(requests, tuple(_silent(each, Outcome.FAILED, error, submitted) for each in requests))]
        except (RayError, TaskCancelledError) as error:
            ended = [Ended(requests, tuple(_told_by_the_store(requests, error, submitted)))]
            if sent.worker:
                ended += self._abandon(sent.worker)
            return ended

    def _abandon(self, worker: Worker) -> list[Ended]:
        """Note that a process is gone; what waited behind the bundle that it ended with was not begun."""
        self._warm.lost(worker)
        waiting = [task for task, sent in self._running.items() if sent.worker is worker]
        return [Ended(self._running.pop(task).requests, ()) for task in waiting]

    def _shape(self, runtime: Runtime) -> _Shape:
        # A laptop may have fewer cores than a step would like; on one machine it still runs, only slower.
        cpus = max(node.cpus for node in self._nodes) if runtime.whole_node else min(runtime.cpus, self.cpus)
        return _Shape(cpus, runtime.gpus, runtime.memory)


def _answer(requests: bytes) -> bytes:
    return pickle.dumps(run_bundle(pickle.loads(requests), _Watchdog), pickle.HIGHEST_PROTOCOL)


def _spoilt(attempts: Sequence[Attempt]) -> bool:
    """Whether the process that made these tries may run nothing any more; see `run_bundle`."""
    return any(each.outcome is Outcome.CRASHED for each in attempts)


_run = ray.remote(max_retries=0, runtime_env=_WITHOUT_GPUS)(_answer)
#: Only a process that ends gives all of its GPU memory back, and is rid of what a sick GPU left in it.
_run_on_gpu = ray.remote(max_retries=0, max_calls=1)(_answer)


@ray.remote(max_restarts=0, max_task_retries=0)
class _WarmWorker:
    """A process that lives on between bundles, so that the model it loaded is still there for the next one."""

    def __init__(self) -> None:
        self._spoilt = False

    def run(self, requests: bytes) -> bytes:
        # The next bundle may be here before the driver has heard of the last.
        attempts = [] if self._spoilt else run_bundle(pickle.loads(requests), _Watchdog)
        self._spoilt = self._spoilt or _spoilt(attempts)
        return pickle.dumps(attempts, pickle.HIGHEST_PROTOCOL)


def _start_worker(shape: _Shape) -> Any:
    environment = {} if shape.gpus else {"runtime_env": _WITHOUT_GPUS}
    return _WarmWorker.options(**shape.options(), **environment).remote()  # type: ignore[attr-defined]


def _end_worker(process: Any) -> None:
    ray.kill(process)


class _Watchdog:
    """Kills this worker and its children when a step overruns: a hang inside C code can be ended in no other way."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._started = time.time()
        self._timer: threading.Timer | None = None

    def __enter__(self) -> None:
        if self._request.runtime.timeout:
            self._timer = threading.Timer(self._request.runtime.timeout, self._bark)
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, *_: object) -> None:
        if self._timer:
            self._timer.cancel()

    def _bark(self) -> None:
        request = self._request
        error = TimeoutError(f"the step ran longer than its timeout of {request.runtime.timeout:g} s (runtime.timeout)")
        seconds = time.time() - self._started
        attempt = failed_attempt(
            request, Outcome.TIMED_OUT, error, self._started, seconds, str(error), PROCESS.cut_log(request)
        )
        record_attempt(attempt, request.store)
        for child in psutil.Process().children(recursive=True):
            child.kill()
        os._exit(1)


def _told_by_the_store(requests: tuple[Request, ...], error: Exception, submitted: float) -> Iterator[Attempt]:
    """What a bundle whose process is gone got done: steps ran in order, and each left a manifest or a record.

    The first one that left nothing was running when it happened; those after it were not begun.
    """
    store = open_store(requests[0].store)
    addresses = [request.step.address for request in requests]
    try:
        manifests, histories = store.manifests(addresses), store.histories(addresses)
    except StoreError as unread:
        # Whoever tries them again finds what is committed.
        for request in requests:
            yield _silent(request, Outcome.LOST, unread, submitted)
        return
    for request in requests:
        manifest = manifests[request.step.address]
        # Also the worker's own watchdog writes down how a step ended before it kills the process.
        recorded = [each for each in histories.get(request.step.address, ()) if each.number >= request.number]
        if isinstance(manifest, Manifest):
            # It may have died between publishing the step and giving it back.
            with contextlib.suppress(StoreError):
                store.release(request.step.address)
            yield successful_attempt(manifest, request.step.entry)
        elif recorded:
            yield recorded[-1]
            if recorded[-1].outcome in (Outcome.TIMED_OUT, Outcome.CRASHED):
                return
        else:
            steps = [(each.step.address, each.number) for each in requests[: requests.index(request) + 1]]
            yield _silent(request, _outcome(error), error, submitted, rescue_log(store, steps))
            return


def _outcome(error: Exception) -> Outcome:
    if isinstance(error, OutOfMemoryError):
        return Outcome.OUT_OF_MEMORY
    if isinstance(error, NodeDiedError | LocalRayletDiedError | RaySystemError | ActorUnavailableError):
        return Outcome.LOST
    if isinstance(error, ActorDiedError) and "node has died" in str(error):
        return Outcome.LOST
    return Outcome.CRASHED


def _silent(request: Request, outcome: Outcome, error: Exception, submitted: float, log: str | None = None) -> Attempt:
    """An attempt that could not speak for itself, on record."""
    seconds = time.time() - submitted
    attempt = failed_attempt(request, outcome, error, submitted, seconds, _advice(outcome, request, error), log)
    record_attempt(attempt, request.store)
    return attempt


def _advice(outcome: Outcome, request: Request, error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if outcome is Outcome.OUT_OF_MEMORY:
        return f"the node ran out of memory: {first}"
    if outcome is Outcome.FAILED:
        return f"a Ray worker could not begin the step; are the packages installed on its node? ({error})"
    if isinstance(error, StoreError):
        return f"the worker process died, and what it got done cannot be read ({first})"
    if outcome is Outcome.LOST:
        return f"the node under the step went away ({first})"
    return f"the worker process died ({first})"

"""Runs steps as Ray tasks, on a local instance or a cluster. The only file that imports ray.

Ray holds no truth: retries, time-outs and classification are ours, so every task is submitted with `max_retries=0`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

# Ray rewrites GPU visibility for tasks that ask for none; we rely on the behaviour that becomes its default.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RaySystemError,
    RayTaskError,
    TaskCancelledError,
)

from orchestrator.attempt import Request, cut_log, ended_badly, record_attempt, run_bundle, succeeded
from orchestrator.capture import rescue_log
from orchestrator.executors import Ended, ExecutorLostError
from orchestrator.store import StoreError, open_store
from orchestrator.types import Attempt, Manifest, Outcome, Runtime

#: Tasks of one resource shape that wait in Ray's queue beyond those that can run, so that no core waits for the driver.
_QUEUED_AHEAD = 4


#: While nothing ends, see so often (seconds) whether the cluster is still there.
_CHECK_EVERY = 10.0


class RayUnreachableError(Exception):
    """No Ray cluster answers at the address."""


class RayExecutor:
    """Steps as Ray tasks with the resources of their runtime."""

    def __init__(self, address: str | None = None) -> None:
        """Connect to a cluster (`address`, else RAY_ADDRESS), or start a local instance.

        Raises:
            RayUnreachableError: nothing answers at the address.
        """
        self._connect(address)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self.cpus = float(resources.get("CPU", 1.0))
        self.gpus = float(resources.get("GPU", 0.0))
        self.bundle_seconds = 1.0
        self._check_due = time.monotonic() + _CHECK_EVERY
        self._running: dict[Any, tuple[tuple[Request, ...], float]] = {}
        self._shapes: Counter[tuple[float, float]] = Counter()

    def slots(self, runtime: Runtime) -> int:
        """How many such tasks the cluster's cores and GPUs can run at once."""
        cpus, gpus = self._shape(runtime)
        return max(1, int(min(self.cpus / cpus, self.gpus / gpus if gpus else self.cpus / cpus)))

    def has_room(self, runtime: Runtime) -> bool:
        """Room is counted per resource shape: waiting GPU steps must not keep CPU steps from running."""
        return self._shapes[self._shape(runtime)] < self.slots(runtime) + _QUEUED_AHEAD

    def submit(self, requests: Sequence[Request]) -> None:
        """Start a bundle as a Ray task."""
        first = requests[0]
        cpus, gpus = self._shape(first.runtime)
        more = f" +{len(requests) - 1}" if len(requests) > 1 else ""
        options: dict[str, Any] = {"num_cpus": cpus, "name": f"{first.step.entry} {first.step.key[:8]}{more}"}
        if gpus:
            options["num_gpus"] = gpus
        if first.runtime.memory:
            options["memory"] = first.runtime.memory
        # Ray's own pickler takes ten times as long over so many small objects.
        task = _run.options(**options).remote(pickle.dumps(list(requests), pickle.HIGHEST_PROTOCOL))
        self._running[task] = (tuple(requests), time.time())
        self._shapes[cpus, gpus] += 1

    def wait(self, seconds: float) -> list[Ended]:
        """Bundles that ended; a dead worker is an attempt that crashed."""
        if not self._running:
            return []
        tasks = list(self._running)
        try:
            ready, _ = ray.wait(tasks, num_returns=1, timeout=seconds)
            if ready:
                ready, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0)
            elif time.monotonic() > self._check_due:
                self._check_due = time.monotonic() + _CHECK_EVERY
                self._check_node()
        except (RayError, ConnectionError, RuntimeError) as error:
            raise ExecutorLostError(f"Ray is gone: {error}") from error
        return [self._collect(task) for task in ready]

    def _check_node(self) -> None:
        """A driver whose own node was declared dead would wait for its tasks for ever."""
        mine = ray.get_runtime_context().get_node_id()
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        if not any(node["NodeID"] == mine and node["Alive"] for node in nodes):
            raise ExecutorLostError("the Ray node of this driver is dead")

    def stop(self) -> None:
        """Cancel everything and disconnect; a local instance ends with its driver."""
        for task in self._running:
            ray.cancel(task, force=True)
        self._running.clear()
        ray.shutdown()

    def _collect(self, task: Any) -> Ended:
        requests, submitted = self._running.pop(task)
        self._shapes[self._shape(requests[0].runtime)] -= 1
        try:
            attempts: list[Attempt] = pickle.loads(ray.get(task))
            return Ended(requests, tuple(attempts))
        except RayTaskError as error:
            # Our own code could not even begin there, e.g. because a package is missing on that node.
            return Ended(requests, tuple(_silent(each, Outcome.FAILED, error, submitted) for each in requests))
        except (RayError, TaskCancelledError) as error:
            return Ended(requests, tuple(_told_by_the_store(requests, error, submitted)))

    def _shape(self, runtime: Runtime) -> tuple[float, float]:
        # A laptop may have fewer cores than a step would like; on one machine it still runs, only slower.
        return min(runtime.cpus, self.cpus), runtime.gpus

    def _connect(self, address: str | None) -> None:
        if ray.is_initialized():
            return
        in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
        address = address or os.environ.get("RAY_ADDRESS")
        if address and address.startswith(("http://", "https://")) and not in_job:
            raise RayUnreachableError(
                f"{address} is a job server, which takes whole jobs: ray job submit --working-dir . -- SWEEP.yaml. "
                "To drive the cluster from here, give --address auto or HOST:6379. Nothing was run."
            )
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address and not in_job:
            # The cluster's workers must run this checkout, not whatever version is installed there.
            root = Path(__file__).parents[2]
            options["runtime_env"] = {"py_modules": [str(root / "orchestrator"), str(root / "workers")]}
        if not address and not in_job:
            # No dashboard: it costs seconds and a port, and nobody looks at it for a local run.
            options |= {"include_dashboard": False, "address": "local"}
            # Without a token Ray would write one into ~/.ray, and from then on every `ray start --head` of this user
            # would demand it of `ray job submit`. One of our own protects this instance and is gone with it.
            if "RAY_AUTH_MODE" not in os.environ:
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        elif address and not in_job:
            options["address"] = address
        try:
            _probe(address)
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
            place = address or "the local machine"
            raise RayUnreachableError(
                f"no Ray cluster answers at {place}: {error}. Start one (ray start --head), correct --address or "
                "RAY_ADDRESS, or leave both out to use this machine. Nothing was run."
            ) from error


def _probe(address: str | None) -> None:
    """Knock first: Ray itself tries for minutes before it gives up on an address where nobody is."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


@ray.remote(max_retries=0)
def _run(requests: bytes) -> bytes:
    return pickle.dumps(run_bundle(pickle.loads(requests), _Watchdog), pickle.HIGHEST_PROTOCOL)


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
        attempt = ended_badly(request, Outcome.TIMED_OUT, error, self._started, seconds, str(error), cut_log(request))
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
    manifests, histories = store.manifests(addresses), store.histories(addresses)
    for request in requests:
        manifest = manifests[request.step.address]
        # Also the worker's own watchdog writes down how a step ended before it kills the process.
        recorded = [each for each in histories.get(request.step.address, ()) if each.number >= request.number]
        if isinstance(manifest, Manifest):
            # It may have died between publishing the step and giving it back.
            with contextlib.suppress(StoreError):
                store.release(request.step.address)
            yield succeeded(manifest, request.step.entry)
        elif recorded:
            yield recorded[-1]
            if recorded[-1].outcome is Outcome.TIMED_OUT:
                return
        else:
            steps = [(each.step.address, each.number) for each in requests[: requests.index(request) + 1]]
            yield _silent(request, _outcome(error), error, submitted, rescue_log(store, steps))
            return


def _outcome(error: Exception) -> Outcome:
    if isinstance(error, OutOfMemoryError):
        return Outcome.OUT_OF_MEMORY
    if isinstance(error, NodeDiedError | LocalRayletDiedError | RaySystemError):
        return Outcome.LOST
    return Outcome.CRASHED


def _silent(request: Request, outcome: Outcome, error: Exception, submitted: float, log: str | None = None) -> Attempt:
    """An attempt that could not speak for itself, on record."""
    seconds = time.time() - submitted
    attempt = ended_badly(request, outcome, error, submitted, seconds, _advice(outcome, request, error), log)
    record_attempt(attempt, request.store)
    return attempt


def _advice(outcome: Outcome, request: Request, error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if outcome is Outcome.OUT_OF_MEMORY:
        return f"the node ran out of memory; reserve some with runtime.{request.step.entry}.memory ({first})"
    if outcome is Outcome.FAILED:
        return f"a Ray worker could not begin the step; are the packages installed on its node? ({error})"
    if outcome is Outcome.LOST:
        return f"the node under the step went away ({first})"
    return f"the worker process died ({first})"

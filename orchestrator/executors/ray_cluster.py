"""Runs steps as Ray tasks, on a local instance or a cluster. The only file that imports ray.

Ray holds no truth: retries, time-outs and classification are ours, so every task is submitted with `max_retries=0`.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

# Ray rewrites GPU visibility for tasks that ask for none; we rely on the behaviour that becomes its default.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import OutOfMemoryError, RayError, TaskCancelledError

from orchestrator.attempt import Request, record_attempt, run_attempt
from orchestrator.types import Attempt, Outcome

#: Tasks of one resource shape that wait in Ray's queue beyond those that can run, so that no core waits for the driver.
_QUEUED_AHEAD = 4


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
        self._running: dict[Any, tuple[Request, float]] = {}
        self._shapes: Counter[tuple[float, float]] = Counter()

    def has_room(self, request: Request) -> bool:
        """Room is counted per resource shape: waiting GPU steps must not keep CPU steps from running."""
        shape = self._shape(request)
        capacity = self.cpus / shape[0] if not shape[1] else min(self.cpus / shape[0], self.gpus / shape[1])
        return self._shapes[shape] < max(1, int(capacity)) + _QUEUED_AHEAD

    def submit(self, request: Request) -> None:
        """Start an attempt as a Ray task."""
        cpus, gpus = self._shape(request)
        options: dict[str, Any] = {"num_cpus": cpus, "name": f"{request.step.entry} {request.step.key[:8]}"}
        if gpus:
            options["num_gpus"] = gpus
        if request.runtime.memory:
            options["memory"] = request.runtime.memory
        task = _run.options(**options).remote(request)
        self._running[task] = (request, time.time())
        self._shapes[cpus, gpus] += 1

    def wait(self, seconds: float) -> list[Attempt]:
        """Attempts that ended; a dead worker is an attempt that crashed."""
        if not self._running:
            return []
        tasks = list(self._running)
        ready, _ = ray.wait(tasks, num_returns=1, timeout=seconds)
        if ready:
            ready, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0)
        return [self._collect(task) for task in ready]

    def stop(self) -> None:
        """Cancel everything and disconnect; a local instance ends with its driver."""
        for task in self._running:
            ray.cancel(task, force=True)
        self._running.clear()
        ray.shutdown()

    def _collect(self, task: Any) -> Attempt:
        request, submitted = self._running.pop(task)
        self._shapes[self._shape(request)] -= 1
        try:
            attempt: Attempt = ray.get(task)
        except (RayError, TaskCancelledError) as error:
            outcome = Outcome.OUT_OF_MEMORY if isinstance(error, OutOfMemoryError) else Outcome.CRASHED
            history = [each for each in _history(request) if each.started >= submitted - 1]
            if history:
                # The worker's own watchdog wrote down how it ended before it killed the process.
                return history[-1]
            attempt = Attempt(
                address=request.step.address,
                entry=request.step.entry,
                number=request.number,
                outcome=outcome,
                seconds=time.time() - submitted,
                started=submitted,
                host=socket.gethostname(),
                code_commit=request.code_commit,
                error_class=outcome.value,
                error=_advice(outcome, request, error),
                log=_log(request),
            )
            record_attempt(attempt, request.store)
        return attempt

    def _shape(self, request: Request) -> tuple[float, float]:
        # A laptop may have fewer cores than a step would like; on one machine it still runs, only slower.
        return min(request.runtime.cpus, self.cpus), request.runtime.gpus

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
def _run(request: Request) -> Attempt:
    watchdog = _Watchdog(request) if request.runtime.timeout else None
    try:
        return run_attempt(request)
    finally:
        if watchdog:
            watchdog.cancel()


class _Watchdog:
    """Kills this worker and its children when a step overruns: a hang inside C code can be ended in no other way."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._started = time.time()
        self._timer = threading.Timer(request.runtime.timeout or 0, self._bark)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()

    def _bark(self) -> None:
        request = self._request
        seconds = request.runtime.timeout or 0
        record_attempt(
            Attempt(
                address=request.step.address,
                entry=request.step.entry,
                number=request.number,
                outcome=Outcome.TIMED_OUT,
                seconds=time.time() - self._started,
                started=self._started,
                host=socket.gethostname(),
                code_commit=request.code_commit,
                error_class=Outcome.TIMED_OUT.value,
                error=f"the step ran longer than its timeout of {seconds:g} s (runtime.timeout)",
                log=_log(request),
            ),
            request.store,
        )
        for child in psutil.Process().children(recursive=True):
            child.kill()
        os._exit(1)


def _history(request: Request) -> list[Attempt]:
    from orchestrator.store import open_store

    return open_store(request.store).histories([request.step.address]).get(request.step.address, [])


def _log(request: Request) -> str | None:
    from orchestrator.store import open_store

    return open_store(request.store).keep_log(request.step.address, request.number)


def _advice(outcome: Outcome, request: Request, error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if outcome is Outcome.OUT_OF_MEMORY:
        return f"the node ran out of memory; reserve some with runtime.{request.step.entry}.memory ({first})"
    return f"the worker process or its node died ({first})"

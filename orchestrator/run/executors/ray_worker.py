"""What runs on Ray's workers: one bundle per call, in a task's process or in an actor that keeps its model."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray._private.worker import global_worker

from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.process import PROCESS
from orchestrator.run.executors.watchdog import Watchdog
from orchestrator.store.cache import cache_folder
from orchestrator.study.copy import unpack
from orchestrator.study.modules import use_copy
from orchestrator.types import Attempt, Outcome

#: For steps that request no GPU, to which Ray leaves all GPUs of the machine. A process starts with it and Ray uses it
#: for nothing else, since torch never looks again. Not for other steps: it would hide the GPUs that Ray assigned.
WITHOUT_GPUS = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}

#: Digest of a copy of code, folder that it is a copy of, and where Ray keeps it.
ShippedCode = tuple[str, str, tuple[Any]]


#: Calls after which Ray ends a process, having reported the last. None makes so many: see `_retire`.
_CALLS = 2**30


def _run_once(requests: bytes, code: ShippedCode | None) -> bytes:
    """Run a bundle; return its attempts, whether this process may run no other, and where it ran (`_where`)."""
    _take_code(code)
    attempts = run_bundle(pickle.loads(requests), Watchdog)  # noqa: S301 (Ray's driver)
    return pickle.dumps((attempts, _must_end(attempts), *_where()), pickle.HIGHEST_PROTOCOL)


def _where() -> tuple[str, str]:
    """Return the id of this node, and the indices of the GPUs on it that Ray assigned."""
    context = ray.get_runtime_context()
    return context.get_node_id(), ",".join(context.get_accelerator_ids().get("GPU", ()))


def _run_pickled(requests: bytes, code: ShippedCode | None) -> bytes:
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


def _take_code(code: ShippedCode | None) -> None:
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


run = ray.remote(max_retries=0, max_calls=_CALLS, runtime_env=WITHOUT_GPUS)(_run_pickled)
#: Only a process that ends gives back all GPU memory, and is rid of what a failed GPU left in it.
run_on_gpu = ray.remote(max_retries=0, max_calls=1)(_run_once)


@ray.remote(max_restarts=0, max_task_retries=0)
class WarmWorker:
    """An actor that lives on between bundles, so that the model it loaded is there for the next one."""

    def __init__(self) -> None:
        self._ending = False

    def run(self, requests: bytes, code: ShippedCode | None) -> bytes:
        """Run a bundle, as `run` does; what was queued behind one that ended this process is not begun."""
        _take_code(code)
        # The next bundle may arrive before the driver has the result of the last.
        attempts = [] if self._ending else run_bundle(pickle.loads(requests), Watchdog)  # noqa: S301 (Ray's driver)
        self._ending = self._ending or _must_end(attempts)
        return pickle.dumps((attempts, self._ending, *_where()), pickle.HIGHEST_PROTOCOL)


@ray.remote(max_retries=0, max_calls=1)
def probe() -> None:
    """Compute something on every GPU that this process sees; raise if a result is wrong or a device fails.

    Raises:
        RuntimeError: a device computes, but not what it should.
    """
    import torch

    for device in range(torch.cuda.device_count()):
        ones = torch.ones(2048, 2048, device=f"cuda:{device}")
        if not bool((ones @ ones == 2048).all()):
            raise RuntimeError(f"GPU {device} multiplies matrices of ones to something else")

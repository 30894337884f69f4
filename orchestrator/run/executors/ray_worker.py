"""What runs on Ray's workers: one bundle per call, in a task's process or in an actor that keeps its model."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray._private.worker import global_worker

from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.outcome import InterpreterError
from orchestrator.attempt.process import PROCESS
from orchestrator.run.executors.child_main import Unreadable
from orchestrator.run.executors.child_process import ChildProcess, EndedError
from orchestrator.run.executors.recovery import UnreadableError
from orchestrator.run.executors.watchdog import Watchdog
from orchestrator.store.cache import cache_folder
from orchestrator.study.copy import unpack
from orchestrator.study.modules import use_copy
from orchestrator.types import Attempt, Outcome
from workers import model_cache

#: For steps that request no GPU, to which Ray leaves all GPUs of the machine. A process starts with it and Ray uses it
#: for nothing else, since torch never looks again. Not for other steps: it would hide the GPUs that Ray assigned.
WITHOUT_GPUS = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}

#: Digest of a copy of code, folder that it is a copy of, and where Ray keeps it.
ShippedCode = tuple[str, str, tuple[Any]]


#: Calls after which Ray ends a process, having reported the last. None makes so many: see `_retire`.
_CALLS = 2**30


#: Seconds between looks at a process of another interpreter.
_LOOK = 10.0


class Ran(NamedTuple):
    """What a call tells the driver."""

    attempts: Sequence[Attempt]
    ending: bool
    """Whether this process runs no other bundle."""
    node: str
    """Id of the node."""
    device: str
    """Indices of the GPUs on it that Ray assigned."""
    trouble: Exception | None = None
    """Why a process of another interpreter told no attempts."""


def _run(requests: bytes, code: ShippedCode | None, python: str | None) -> Ran:
    """Run a bundle, under another interpreter if one is named."""
    if python:
        return _run_under(python, requests, code)
    _take_code(code)
    attempts = run_bundle(pickle.loads(requests), Watchdog)  # noqa: S301 (Ray's driver)
    ending = PROCESS.spoilt is not None or any(each.outcome is Outcome.CRASHED for each in attempts)
    return Ran(attempts, ending, *_where())


def _run_under(python: str, requests: bytes, code: ShippedCode | None) -> Ran:
    """Run a bundle in a process of another interpreter, which is kept for the next one.

    Not by Ray's `py_executable`: where that is missing or lacks Ray, a task neither runs nor fails, and its process
    takes what it lacks from the driver's environment (decision 26).
    """
    global _other
    study, copy = (code[1], str(_unpacked(code))) if code else (None, None)
    if _other and not (_other.python == python and _other.alive()):
        _end_other()
    try:
        _other = _other or ChildProcess(python, watched=False)
        _other.send(requests, study, copy)
        while (answer := _other.receive(_LOOK)) is None:
            pass
    except (EndedError, InterpreterError) as error:
        _end_other()
        return Ran((), True, *_where(), error)
    if isinstance(answer, Unreadable):
        return Ran((), False, *_where(), UnreadableError(answer.reason))
    if answer.last:
        _end_other()
    return Ran(answer.attempts, answer.last, *_where())


def _keep_one_model(python: str | None) -> None:
    """Have only the interpreter of the next bundle keep a model: two may not fit into the memory of a GPU."""
    if python is None:
        _end_other()
    elif model_cache.kept() is not None:
        model_cache.drop()


#: The process of another interpreter that this one has.
_other: ChildProcess | None = None


def _end_other() -> None:
    global _other
    if _other:
        _other.end()
        _other = None


def _where() -> tuple[str, str]:
    """Return the id of this node, and the indices of the GPUs on it that Ray assigned."""
    context = ray.get_runtime_context()
    return context.get_node_id(), ",".join(context.get_accelerator_ids().get("GPU", ()))


def _run_pickled(requests: bytes, code: ShippedCode | None, python: str | None) -> bytes:
    """Run a bundle in a process that is there for the next one too, if it may."""
    ran = _run(requests, code, python)
    if PROCESS.spoilt:
        _retire()
    return pickle.dumps(ran, pickle.HIGHEST_PROTOCOL)


def _run_once(requests: bytes, code: ShippedCode | None, python: str | None) -> bytes:
    """Run a bundle in a process that ends then; so must one that it started, which has the memory of its GPU."""
    ran = _run(requests, code, python)
    _end_other()
    return pickle.dumps(ran, pickle.HIGHEST_PROTOCOL)


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
    digest, folder, _ = code
    if _taken.get(folder) != digest:
        use_copy(_unpacked(code), Path(folder))
        _taken[folder] = digest


def _unpacked(code: ShippedCode) -> Path:
    digest, _, (kept,) = code
    content: Any = ray.get(kept)
    return unpack(content, digest, cache_folder() / "code")


#: Folder of a study -> digest of the copy of it that this process has.
_taken: dict[str, str] = {}


run = ray.remote(max_retries=0, max_calls=_CALLS, runtime_env=WITHOUT_GPUS)(_run_pickled)
#: Only a process that ends gives back all GPU memory, and is rid of what a failed GPU left in it.
run_on_gpu = ray.remote(max_retries=0, max_calls=1)(_run_once)


@ray.remote(max_restarts=0, max_task_retries=0)
class WarmWorker:
    """An actor that lives on between bundles, so that the model it loaded is there for the next one."""

    def __init__(self) -> None:
        self._ending = False

    def run(self, requests: bytes, code: ShippedCode | None, python: str | None) -> bytes:
        """Run a bundle, as `run` does; what was queued behind one that ended this process is not begun."""
        _keep_one_model(python)
        # The next bundle may arrive before the driver has the result of the last.
        ran = Ran((), True, *_where()) if self._ending else _run(requests, code, python)
        self._ending = ran.ending
        return pickle.dumps(ran, pickle.HIGHEST_PROTOCOL)


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

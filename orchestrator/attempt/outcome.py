"""Classifies how an attempt ended: the one place that judges what a stage, the store or the machine raised."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from orchestrator.attempt.request import Request
from orchestrator.redact import redact
from orchestrator.store import FULL, ClaimedError, DamagedArtifactError, LostOutputError, StoreError, legible, remedy
from orchestrator.store.cache import cache_folder
from orchestrator.store.errors import StoreAwayError, passes
from orchestrator.texts import plain_text
from orchestrator.types import Attempt, Manifest, Outcome
from workers.device import NoGpuError


class CodeChangedError(Exception):
    """The code was edited after the driver started; results of two codes must not be taken for those of one."""


class DamagedInputsError(Exception):
    """Input artifacts are incomplete or altered; `addresses` lists all of them."""

    def __init__(self, errors: Sequence[DamagedArtifactError]) -> None:
        super().__init__("; ".join(str(error) for error in errors))
        self.addresses = tuple(error.address for error in errors)


class InterpreterError(Exception):
    """The Python interpreter that a step is to run under cannot run it, or is not that of this process."""


class RejectedError(Exception):
    """A stage returned undeclared, missing or non-finite metrics, or its output has more than regular files."""


#: Classes of errors that only people can mend: another place is no remedy, and the one where they were met is not sick.
NOT_THE_PLACE = frozenset({CodeChangedError.__name__, InterpreterError.__name__})


def classify(error: BaseException, request: Request) -> Outcome:
    """Return the outcome of a step that raised an error.

    The error may be of a class of the stage's own, whose attributes can raise in turn.
    """
    if isinstance(error, ClaimedError):
        return Outcome.CLAIMED
    if isinstance(error, DamagedInputsError):
        return Outcome.DAMAGED_INPUT
    if isinstance(error, RejectedError):
        return Outcome.REJECTED
    if isinstance(error, StoreError):
        return store_outcome(error)
    if isinstance(error, LostOutputError):
        return Outcome.LOST if error.evicted else Outcome.IO_ERROR
    try:
        return Outcome.FAILED if _names_another_disk(error, request) else _kind(error)
    except BaseException:
        return Outcome.FAILED


def store_outcome(error: StoreError) -> Outcome:
    """Return the outcome of a step that met a failure of the store."""
    if error.stops:
        return Outcome.STORE_ERROR
    return Outcome.IO_ERROR if error.passes else Outcome.FAILED


def error_class_of(error: BaseException, outcome: Outcome) -> str:
    """Return the error class of an attempt: its outcome, where that says enough."""
    named = outcome is Outcome.FAILED or isinstance(error, StoreAwayError)
    return type(error).__name__ if named else outcome.value


def explain(error: BaseException, outcome: Outcome) -> str:
    """Explain the error that ended a step, with the remedy if there is one."""
    text = plain_text(redact(describe_error(error)), 2000)
    if isinstance(error, OSError) and (outcome is Outcome.STORE_ERROR or error.errno in (errno.EMFILE, errno.ENFILE)):
        return f"{text}; {remedy(error)}"
    if outcome is Outcome.CRASHED and _gpu_failed(error):
        text += (
            "; a GPU, its driver or a kernel of the step failed, so this process runs no further step. "
            "If every try ends like this, the bug is in the step: CUDA_LAUNCH_BLOCKING=1 shows where"
        )
    return text


def describe_error(error: BaseException) -> str:
    """Return the message of an error; the name of its class if it has none."""
    name = type(error).__name__
    try:
        text = str.__str__(str(error)).strip()
    except BaseException as failure:
        return f"{name}, whose message is unavailable: {type(failure).__name__} in __str__"
    if isinstance(error, SystemExit):
        return f"the stage called sys.exit({text})"
    return text or name


def timeout_error(request: Request) -> TimeoutError:
    """Make the error of a step that exceeds its time limit."""
    return TimeoutError(f"the step ran longer than its timeout of {request.runtime.timeout:g} s (runtime.timeout)")


def failed_attempt(
    request: Request,
    outcome: Outcome,
    error: BaseException,
    started: float,
    seconds: float,
    message: str,
    log: str | None,
) -> Attempt:
    """Make the record of an attempt that did not succeed, on the machine that notices it.

    Args:
        request: the step that was tried.
        outcome: how it ended.
        error: what was raised.
        started: Unix time in seconds.
        seconds: how long it took.
        message: the error for people; secrets are masked.
        log: path of the log; None if nothing was printed.
    """
    attempt = Attempt(
        address=request.step.address,
        entry=request.step.entry,
        number=request.number,
        outcome=outcome,
        seconds=seconds,
        started=started,
        host=socket.gethostname(),
        code_commit=request.code_commit,
        driver=request.driver,
        error_class=error_class_of(error, outcome),
        error=redact(f"{message} ({_memory_advice(request)})" if outcome is Outcome.OUT_OF_MEMORY else message),
        log=log,
    )
    return legible(attempt)


def successful_attempt(manifest: Manifest, entry: str) -> Attempt:
    """Make the attempt that a manifest records."""
    return Attempt(
        address=manifest.address,
        entry=entry,
        number=manifest.attempt,
        outcome=Outcome.SUCCEEDED,
        seconds=manifest.seconds,
        started=manifest.finished - manifest.seconds,
        host=manifest.host,
        code_commit=manifest.code_commit,
        log=manifest.log,
        metrics=manifest.metrics,
        undefined=manifest.undefined,
    )


def _memory_advice(request: Request) -> str:
    runtime, name = request.runtime, request.step.entry
    if runtime.gpus:
        batch = (
            "a smaller batch in its config" if not request.step.definition.batches
            else "not even one sequence of a batch fits, so a shorter max_tokens or a smaller dtype"
        )  # fmt: skip
        more = "gpu_memory" if runtime.gpu_memory else "gpus"
        return f"if it was the GPU's: {batch}, or more of runtime.{name}.{more}"
    reserved = f"{runtime.memory / 2**30:.1f} GiB were" if runtime.memory else "nothing was"
    return f"{reserved} reserved: raise runtime.{name}.memory, or let it grow up to memory_limit"


def _kind(error: BaseException) -> Outcome:
    if isinstance(error, TimeoutError) and error.errno is None:
        return Outcome.TIMED_OUT
    if isinstance(error, MemoryError) or _gpu_memory_is_full(error):
        return Outcome.OUT_OF_MEMORY
    if isinstance(error, NoGpuError) or _gpu_failed(error):
        return Outcome.CRASHED
    if isinstance(error, OSError) and error.errno in FULL:
        return Outcome.STORE_ERROR
    return Outcome.IO_ERROR if passes(error) else Outcome.FAILED


#: Class names in torch and vLLM of errors after which CUDA or a process group no longer works in this process.
_GPU_ERRORS = frozenset({"AcceleratorError", "DistBackendError", "EngineDeadError"})


#: How a RuntimeError of torch begins that passes on an error of CUDA, ROCm or their libraries.
_GPU_WORDS = ("CUDA error", "CUDA driver error", "HIP error", "cuDNN error", "NCCL error", "uncorrectable ECC")


#: Out-of-memory messages of CUDA and cuBLAS that do not come from torch's own allocator.
_GPU_FULL = ("CUDA error: out of memory", "HIP error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def _gpu_memory_is_full(error: BaseException) -> bool:
    text = describe_error(error) if isinstance(error, RuntimeError) else ""
    return type(error).__name__ == "OutOfMemoryError" or any(words in text for words in _GPU_FULL)


def _gpu_failed(error: BaseException | None) -> bool:
    """Tell whether the GPU, its driver or a kernel failed: most such errors recur in whatever this process does next.

    Kernels are asynchronous, so a step may get the error of an earlier one. If a library raised an error of its own
    instead, the chain of causes shows it.
    """
    seen: set[int] = set()
    # `raise error from error` makes a circle.
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        names = {kind.__name__ for kind in type(error).__mro__}
        text = describe_error(error) if isinstance(error, RuntimeError) else ""
        if names & _GPU_ERRORS or any(words in text for words in _GPU_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _names_another_disk(error: BaseException, request: Request) -> bool:
    """Tell whether an error names a file on another file system than that of the store (or of its cache here)."""
    if not isinstance(error, OSError) or not isinstance(error.filename, str | bytes):
        return False
    store = str(cache_folder()) if "://" in request.store else request.store
    return _device(os.fsdecode(error.filename)) != _device(store)


def _device(path: str) -> int:
    """Return the number of the file system on which a path lies or would lie."""
    nearest = Path(path).absolute()
    while not nearest.exists():
        nearest = nearest.parent
    return nearest.stat().st_dev

"""One try at one step, on whatever machine: resolve inputs, call the stage, check its metrics, commit, record.

This is the one place that catches what a stage does wrong. It knows nothing of Ray.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import inspect
import math
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.attempt import signals
from orchestrator.attempt.capture import Capture
from orchestrator.redact import redact
from orchestrator.store import (
    FULL,
    DamagedArtifactError,
    LostOutputError,
    Store,
    StoreError,
    UnfitError,
    legible,
    list_files,
    open_store,
    output_folder,
    remedy,
)
from orchestrator.store.cache import cache_folder
from orchestrator.store.claims import ClaimedError, claimed
from orchestrator.store.transient import passes
from orchestrator.sweep.outputs import code_digest
from orchestrator.texts import plain_text
from orchestrator.types import Artifact, Attempt, Manifest, Outcome, Runtime, Step
from workers.config import Config
from workers.device import NoGpuError, promise_gpu
from workers.metric import Metric, Undefined
from workers.stage import Call
from workers.stages import STAGES

_LIBRARIES = ("torch", "transformers", "trl", "peft", "lightgbm", "numpy", "sentence_transformers", "datasets")


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that a worker must know to try a step."""

    step: Step
    number: int
    runtime: Runtime
    store: str
    code_commit: str
    driver: str
    """Names the run of the driver that asks."""
    stale: str | None = None
    """A claim on the step that may be taken over."""
    code: str = ""
    """Digest of the driver's code; not compared if empty."""
    account: str = ""
    """Sweep and entry: for whom a stage spends, where it spends money."""


class CodeChangedError(Exception):
    """The code was edited after the driver started; results of two codes must not be taken for those of one."""


class _DamagedInputsError(Exception):
    def __init__(self, errors: Sequence[DamagedArtifactError]) -> None:
        super().__init__("; ".join(str(error) for error in errors))
        self.addresses = tuple(error.address for error in errors)


class RejectedError(Exception):
    """A stage returned metrics other than those it declares, or one that is not finite, or left more than files."""


#: Where the output of the running bundle goes.
_capture: Capture | None = None


def run_bundle(
    requests: Sequence[Request], guard: Callable[[Request], AbstractContextManager[object]] = nullcontext
) -> list[Attempt]:
    """Try the steps of a bundle one after another; each commits and fails by itself.

    An artifact is published as soon as its step ends, so that whatever kills this process later cannot take it back;
    against a power failure all of a bundle are made safe together, before the first of them is reported.

    Args:
        requests: what to try.
        guard: entered around each try, for time limits.

    Returns:
        The tries that were made. The last one is `CRASHED` where the GPU failed under it or is not there: then this
        process may run no step any more, and what is left of the bundle was not begun.

    Raises:
        BaseException: what the handler of a signal raised that tells this process to end. Never what a stage raised.
    """
    global _capture
    fetched: dict[Artifact, Path] = {}
    try:
        with signals.watched(), Capture(_store(requests[0].store)) as _capture:
            together = _run_together(requests, guard, fetched) if shares_work(requests) else ()
            done = {attempt.address: attempt for attempt in together}
            attempts = []
            for request in requests:
                attempt = done.get(request.step.address) or run_attempt(request, fetched, guard)
                attempts.append(attempt)
                if attempt.outcome is Outcome.CRASHED:
                    break
    finally:
        _capture = None
        promise_gpu(None)
    committed = {attempt.address for attempt in attempts if attempt.outcome is Outcome.SUCCEEDED}
    try:
        if committed:
            _store(requests[0].store).flush(committed)
    except StoreError as error:
        kind = _store_outcome(error)
        return [
            replace(each, outcome=kind, error_class=kind.value, error=str(error)) if each.address in committed else each
            for each in attempts
        ]
    return attempts


def shares_work(requests: Sequence[Request]) -> bool:
    """Whether the steps of a bundle are done together, so that nobody knows through which of them it ended badly."""
    return len(requests) > 1 and bool(STAGES[requests[0].step.stage].together)


def _run_together(
    requests: Sequence[Request],
    guard: Callable[[Request], AbstractContextManager[object]],
    fetched: dict[Artifact, Path],
) -> Iterator[Attempt]:
    """Those that succeed when a stage does several at once; the others are as if they had not been tried."""
    store = _store(requests[0].store)
    with contextlib.ExitStack() as stack:
        try:
            known = store.manifests([request.step.address for request in requests])
            begun = []
            for request in requests:
                address = request.step.address
                if isinstance(known[address], Manifest):
                    continue
                with contextlib.suppress(ClaimedError):
                    stack.enter_context(claimed(store, address, request.driver, request.stale))
                    out = stack.enter_context(output_folder(store, address, request.driver))
                    begun.append((request, Call(_config(request), out, _inputs(request, store, fetched))))
            if len(begun) < 2:
                return
            function = _ready(STAGES[requests[0].step.stage].together, requests[0])
            _begin_log(requests[0])
            clock = time.perf_counter()
            with guard(_patient(requests[0], len(requests))):
                results = function([call for _, call in begun])
            shared = (time.perf_counter() - clock) / len(begun)
            for request, call in begun:
                _begin_log(request)
                clock = time.perf_counter()
                with guard(request), contextlib.suppress(RejectedError):
                    metrics = next(results)
                    if metrics is not None:
                        seconds = shared + time.perf_counter() - clock
                        checked = _checked(metrics, call.config.declared())
                        manifest = _commit(request, store, call.out, checked, time.time() - seconds, seconds)
                        yield succeeded(manifest, request.step.entry)
        except BaseException:
            signals.heed()
            # By itself each of them will say what is wrong.
            _log_error()


def _patient(request: Request, steps: int) -> Request:
    """A request with the time limit of several."""
    timeout = request.runtime.timeout
    return replace(request, runtime=replace(request.runtime, timeout=timeout and timeout * steps))


def run_attempt(
    request: Request,
    fetched: dict[Artifact, Path] | None = None,
    guard: Callable[[Request], AbstractContextManager[object]] = nullcontext,
) -> Attempt:
    """Try a step and say how it ended; whatever the stage raises is classified here, `sys.exit` and its like included.

    A success is told by the manifest that was committed, everything else is recorded as an attempt.

    Args:
        request: what to try.
        fetched: inputs that are known to be whole, so that steps which read the same need not look again.
        guard: entered around the work, for time limits.
    """
    started = time.time()
    clock = time.perf_counter()
    outcome: Outcome
    error: BaseException
    damaged: tuple[Artifact, ...] = ()
    holder: str | None = None
    try:
        store = _store(request.store)
        with claimed(store, request.step.address, request.driver, request.stale):
            # Another driver may have finished it since ours looked.
            known = store.manifests([request.step.address])[request.step.address]
            if isinstance(known, Manifest):
                return succeeded(known, request.step.entry)
            with guard(request):
                manifest = _try_step(request, store, {} if fetched is None else fetched, started, clock)
        return succeeded(manifest, request.step.entry)
    except ClaimedError as caught:
        outcome, error, holder = Outcome.CLAIMED, caught, caught.holder
    except _DamagedInputsError as caught:
        outcome, error, damaged = Outcome.DAMAGED_INPUT, caught, caught.addresses
    except RejectedError as caught:
        outcome, error = Outcome.REJECTED, caught
    except StoreError as caught:
        outcome, error = _store_outcome(caught), caught
    except LostOutputError as caught:
        outcome, error = Outcome.IO_ERROR, caught
    except BaseException as caught:
        outcome, error = _outcome(caught, request), caught
    message = _message(error, outcome)
    signals.heed()
    seconds = time.perf_counter() - clock
    attempt = ended_badly(request, outcome, error, started, seconds, message, cut_log(request))
    attempt = replace(attempt, damaged=damaged, holder=holder)
    if outcome is not Outcome.CLAIMED:
        record_attempt(attempt, request.store)
    return attempt


def ended_badly(
    request: Request,
    outcome: Outcome,
    error: BaseException,
    started: float,
    seconds: float,
    message: str,
    log: str | None,
) -> Attempt:
    """An attempt that did not succeed, as seen from the machine that notices it."""
    attempt = Attempt(
        address=request.step.address,
        entry=request.step.entry,
        number=request.number,
        outcome=outcome,
        seconds=seconds,
        started=started,
        host=socket.gethostname(),
        code_commit=request.code_commit,
        error_class=type(error).__name__ if outcome is Outcome.FAILED else outcome.value,
        error=redact(f"{message} ({_memory_advice(request)})" if outcome is Outcome.OUT_OF_MEMORY else message),
        log=log,
    )
    return legible(attempt)


def succeeded(manifest: Manifest, entry: str) -> Attempt:
    """The attempt that a manifest tells of."""
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


def record_attempt(attempt: Attempt, location: str) -> None:
    """Append an attempt to the history if the store lets us; a full disk must not hide how the attempt ended."""
    with contextlib.suppress(StoreError):
        _store(location).record(attempt)


def cut_log(request: Request) -> str | None:
    """Keep what the running step printed so far; returns where, None if that is nothing."""
    return _capture.cut(request.step.address, request.number) if _capture else None


def call_stage(
    request: Request, store: Store, out: Path, fetched: dict[Artifact, Path] | None = None
) -> dict[str, float | Undefined]:
    """Call the stage function on verified inputs and check its metrics.

    Raises:
        RejectedError: a metric is missing, undeclared, not finite, or undefined and not nullable.
        _DamagedInputsError: inputs are torn or altered.
        CodeChangedError: the code on the disk is not the driver's.
    """
    config = _config(request)
    inputs = _inputs(request, store, {} if fetched is None else fetched)
    metrics = _ready(STAGES[request.step.stage].function, request)(config, out, **inputs)
    return _checked(metrics, config.declared())


def _config(request: Request) -> Config:
    return STAGES[request.step.stage].config.model_validate(request.step.config)


def _inputs(request: Request, store: Store, fetched: dict[Artifact, Path]) -> dict[str, Path | list[Path]]:
    """The folders of the artifacts that a step reads, each whole; what is fetched is noted."""
    step = request.step
    stage = STAGES[step.stage]
    inputs: dict[str, Path | list[Path]] = {}
    damage: list[DamagedArtifactError] = []
    for name, artifacts in step.inputs.items():
        folders = []
        for artifact in artifacts:
            folder = fetched.get(artifact)
            if folder is None:
                try:
                    folder = fetched[artifact] = store.fetch(artifact)
                except DamagedArtifactError as error:
                    damage.append(error)
                    continue
            folders.append(folder)
        inputs[name] = folders if stage.inputs[name].many else (folders or [Path()])[0]
    if damage:
        # All of them, so that they are made again together.
        raise _DamagedInputsError(damage)
    return inputs


def _ready(name: str, request: Request) -> Callable[..., Any]:
    """A stage's function, in a process that is as the request wants it."""
    function = _function(name)
    _check_code(request.code)
    _limit_threads(request.runtime.cpus)
    promise_gpu(request.runtime.gpus > 0)
    # Read by `workers.judges.backends.endpoint`. A stage gets no name of a sweep as an argument, since none may matter
    # to what it makes.
    os.environ["SWEEP_ACCOUNT"] = request.account
    return function


def _begin_log(request: Request) -> None:
    if _capture:
        _capture.begin(request.step.address, request.number)


def _log_error() -> None:
    """Write what was raised into the log of the step, whatever became of `sys.stderr`."""
    if _capture:
        with contextlib.suppress(BaseException):
            _capture.tell(redact(traceback.format_exc()))


def _try_step(request: Request, store: Store, fetched: dict[Artifact, Path], started: float, clock: float) -> Manifest:
    """Call the stage and commit what it made."""
    with output_folder(store, request.step.address, request.driver) as out:
        _begin_log(request)
        try:
            metrics = call_stage(request, store, out, fetched)
        except BaseException:
            _log_error()
            raise
        # A stage that took Ctrl-C for its own has not finished.
        signals.heed()
        return _commit(request, store, out, metrics, started, time.perf_counter() - clock)


def _commit(
    request: Request, store: Store, out: Path, metrics: dict[str, float | Undefined], started: float, seconds: float
) -> Manifest:
    """Publish what a stage wrote into `out`; returns the record of what is there now."""
    address = request.step.address
    try:
        files = list_files(out)
    except UnfitError as error:
        raise RejectedError(str(error)) from error
    manifest = Manifest(
        address=address,
        identity=request.step.identity,
        files=files,
        metrics={name: value for name, value in metrics.items() if not isinstance(value, Undefined)},
        undefined={name: value.reason for name, value in metrics.items() if isinstance(value, Undefined)},
        attempt=request.number,
        seconds=seconds,
        finished=started + seconds,
        host=socket.gethostname(),
        code_commit=request.code_commit,
        log=cut_log(request),
        versions=_versions(),
    )
    if store.commit(out, manifest):
        return manifest
    # Somebody else was first, and what they made is what everybody will read.
    published = store.manifests([address])[address]
    if isinstance(published, DamagedArtifactError):
        store.discard(address)
        raise _DamagedInputsError([published])
    return published


def _checked(metrics: object, declared: Mapping[str, Metric]) -> dict[str, float | Undefined]:
    if not isinstance(metrics, Mapping):
        raise RejectedError(f"the stage returned {type(metrics).__name__}, expected a mapping of metrics")
    try:
        metrics = dict(metrics)
    except BaseException as error:
        raise RejectedError(f"the metrics cannot be read: {spell_error(error)}") from error
    missing = [name for name in declared if name not in metrics]
    undeclared = [str(name) for name in metrics if name not in declared]
    if missing or undeclared:
        raise RejectedError(f"metrics missing: {missing}; undeclared: {undeclared}; declared: {list(declared)}")
    values: dict[str, float | Undefined] = {}
    for name, metric in declared.items():
        value = metrics[name]
        if metric.nullable and isinstance(value, Undefined):
            if not isinstance(value.reason, str):
                raise RejectedError(f"metric {name!r} is undefined, but its reason is no text")
            values[name] = Undefined(plain_text(value.reason, 2000))
            continue
        number = values[name] = _number(name, value)
        if not math.isfinite(number):
            raise RejectedError(f"metric {name!r} is {number}, expected a finite number")
    return values


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, str | bytes):
            raise TypeError("a text is no number")
        return float(value)
    except BaseException as error:
        try:
            spelled = repr(value)[:200]
        except BaseException:
            # Its own affair, or a whole number too long to be spelled.
            spelled = f"of type {type(value).__name__}"
        raise RejectedError(f"metric {name!r} is {spelled}, expected a number that a float can hold") from error


@cache
def _store(location: str) -> Store:
    return open_store(location)


def _function(name: str) -> Callable[..., Any]:
    # TRL and the Hub libraries report usage when they are imported; a cluster's owner has not agreed to that.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]


def _check_code(driver: str) -> None:
    """Refuse to go on with code that was edited since the driver started; looked at again after each import."""
    global _known_code
    if not driver or _known_code == (driver, len(sys.modules)):
        return
    if code_digest() != driver:
        raise CodeChangedError(
            "the code changed since the driver started: orchestrator/ or workers/ were edited; "
            "give the same command again, which runs today's code"
        )
    _known_code = (driver, len(sys.modules))


#: Which code was found here, and with how many modules loaded.
_known_code = ("", 0)


def _limit_threads(cpus: float) -> None:
    """Give numerical libraries as many threads as the step was promised, so that results do not depend on the node."""
    threads = max(1, int(cpus))
    # Looking through all loaded libraries takes a millisecond, more than a small step; again only after an import.
    if _limited != (threads, len(sys.modules)):
        _limit_libraries(threads)


#: For how many threads, and with how many modules loaded, the libraries were told last.
_limited = (0, 0)


def _limit_libraries(threads: int) -> None:
    from threadpoolctl import threadpool_limits

    global _limited
    os.environ["OMP_NUM_THREADS"] = str(threads)
    threadpool_limits(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    _limited = (threads, len(sys.modules))


def _versions() -> dict[str, str]:
    return {
        name: str(getattr(sys.modules[name], "__version__", "unknown")) for name in _LIBRARIES if name in sys.modules
    }


def _store_outcome(error: StoreError) -> Outcome:
    if error.stops:
        return Outcome.STORE_ERROR
    return Outcome.IO_ERROR if error.passes else Outcome.FAILED


def _memory_advice(request: Request) -> str:
    runtime, name = request.runtime, request.step.entry
    if runtime.gpus:
        return f"if it was the GPU's: a smaller batch in the config of {name}, or more of runtime.{name}.gpus"
    reserved = f"{runtime.memory / 2**30:.1f} GiB were" if runtime.memory else "nothing was"
    return f"{reserved} reserved: raise runtime.{name}.memory, or let it grow up to memory_limit"


def _classify(error: BaseException) -> Outcome:
    if isinstance(error, TimeoutError) and error.errno is None:
        return Outcome.TIMED_OUT
    if isinstance(error, MemoryError) or _gpu_memory_is_full(error):
        return Outcome.OUT_OF_MEMORY
    if isinstance(error, NoGpuError) or _gpu_failed(error):
        return Outcome.CRASHED
    if isinstance(error, OSError) and error.errno in FULL:
        return Outcome.STORE_ERROR
    return Outcome.IO_ERROR if passes(error) else Outcome.FAILED


#: Names in torch and vLLM: of errors after which CUDA or a group of processes does not work in this process any more.
_GPU_ERRORS = frozenset({"AcceleratorError", "DistBackendError", "EngineDeadError"})
#: How torch begins, in a RuntimeError, what CUDA, ROCm and their libraries told it.
_GPU_WORDS = ("CUDA error", "CUDA driver error", "HIP error", "cuDNN error", "NCCL error", "uncorrectable ECC")
#: How CUDA and cuBLAS say it where torch's own allocator was not asked.
_GPU_FULL = ("CUDA error: out of memory", "HIP error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def _gpu_memory_is_full(error: BaseException) -> bool:
    text = spell_error(error) if isinstance(error, RuntimeError) else ""
    return type(error).__name__ == "OutOfMemoryError" or any(words in text for words in _GPU_FULL)


def _gpu_failed(error: BaseException | None) -> bool:
    """Whether the GPU, its driver or a kernel failed: most such errors come again in whatever this process does next.

    A kernel is asynchronous, so a step may hear of what an earlier one did. Where a library raised something of its
    own instead, the error that it met tells.
    """
    seen: set[int] = set()
    # `raise error from error` makes a circle.
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        names = {kind.__name__ for kind in type(error).__mro__}
        text = spell_error(error) if isinstance(error, RuntimeError) else ""
        if names & _GPU_ERRORS or any(words in text for words in _GPU_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _outcome(error: BaseException, request: Request) -> Outcome:
    """How a step ended that raised an error, whose attributes may be the stage's own, and do anything."""
    try:
        return Outcome.FAILED if _names_another_disk(error, request) else _classify(error)
    except BaseException:
        return Outcome.FAILED


def _names_another_disk(error: BaseException, request: Request) -> bool:
    """Whether an error speaks of a file that does not lie where the store or this node's part of it does."""
    if not isinstance(error, OSError) or not isinstance(error.filename, str | bytes):
        return False
    store = str(cache_folder()) if "://" in request.store else request.store
    return _device(os.fsdecode(error.filename)) != _device(store)


def _device(path: str) -> int:
    """The file system on which a path lies or would lie."""
    nearest = Path(path).absolute()
    while not nearest.exists():
        nearest = nearest.parent
    return nearest.stat().st_dev


def _message(error: BaseException, outcome: Outcome) -> str:
    text = plain_text(redact(spell_error(error)), 2000)
    if isinstance(error, OSError) and (outcome is Outcome.STORE_ERROR or error.errno in (errno.EMFILE, errno.ENFILE)):
        return f"{text}; {remedy(error)}"
    if outcome is Outcome.CRASHED and _gpu_failed(error):
        text += (
            "; a GPU, its driver or a kernel of the step failed, so this process runs no further step. "
            "If every try ends like this, the bug is in the step: CUDA_LAUNCH_BLOCKING=1 shows where"
        )
    return text


def spell_error(error: BaseException) -> str:
    """What an error says of itself, if it can; else its class."""
    name = type(error).__name__
    try:
        text = str.__str__(str(error)).strip()
    except BaseException as trouble:
        return f"{name}, whose message cannot be told: {type(trouble).__name__} in __str__"
    if isinstance(error, SystemExit):
        return f"the stage called sys.exit({text})"
    return text or name


def stage_source(stage: str) -> str:
    """The file and line of a stage function, for `sweep debug`."""
    function = _function(STAGES[stage].function)
    return f"{inspect.getsourcefile(function)}:{inspect.getsourcelines(function)[1]}"

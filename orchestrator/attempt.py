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
import shutil
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.capture import Capture
from orchestrator.claim import ClaimedError, claimed
from orchestrator.outputs import code_digest
from orchestrator.store import DamagedArtifactError, Store, StoreError, list_files, open_store
from orchestrator.store.transient import passes
from orchestrator.types import Artifact, Attempt, Manifest, Outcome, Runtime, Step
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


class CodeChangedError(Exception):
    """The code was edited after the driver started; results of two codes must not be taken for those of one."""


class _DamagedInputsError(Exception):
    def __init__(self, errors: Sequence[DamagedArtifactError]) -> None:
        super().__init__("; ".join(str(error) for error in errors))
        self.addresses = tuple(error.address for error in errors)


class RejectedError(Exception):
    """A stage returned metrics other than those it declares, or one that is not finite."""


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
    """
    global _capture
    attempts = []
    try:
        with Capture(_store(requests[0].store)) as _capture:
            for request in requests:
                with guard(request):
                    attempts.append(run_attempt(request))
    finally:
        _capture = None
    done = [attempt.address for attempt in attempts if attempt.outcome is Outcome.SUCCEEDED]
    try:
        if done:
            _store(requests[0].store).flush(done)
    except StoreError as error:
        kind = _store_outcome(error)
        return [
            replace(each, outcome=kind, error_class=kind.value, error=str(error)) if each.address in done else each
            for each in attempts
        ]
    return attempts


def run_attempt(request: Request) -> Attempt:
    """Try a step and say how it ended; whatever the stage raises is classified here.

    A success is told by the manifest that was committed, everything else is recorded as an attempt.
    """
    started = time.time()
    clock = time.perf_counter()
    outcome: Outcome
    error: Exception
    damaged: tuple[Artifact, ...] = ()
    holder: str | None = None
    try:
        store = _store(request.store)
        with claimed(store, request.step.address, request.driver, request.stale):
            # Another driver may have finished it since ours looked.
            known = store.manifests([request.step.address])[request.step.address]
            manifest = known if isinstance(known, Manifest) else _try_step(request, store, started, clock)
        return succeeded(manifest, request.step.entry)
    except ClaimedError as caught:
        outcome, error, holder = Outcome.CLAIMED, caught, caught.holder
    except _DamagedInputsError as caught:
        outcome, error, damaged = Outcome.DAMAGED_INPUT, caught, caught.addresses
    except RejectedError as caught:
        outcome, error = Outcome.REJECTED, caught
    except StoreError as caught:
        outcome, error = _store_outcome(caught), caught
    except Exception as caught:
        outcome, error = _classify(caught), caught
    seconds = time.perf_counter() - clock
    attempt = ended_badly(request, outcome, error, started, seconds, _message(error), cut_log(request))
    attempt = replace(attempt, damaged=damaged, holder=holder)
    if outcome is not Outcome.CLAIMED:
        record_attempt(attempt, request.store)
    return attempt


def ended_badly(
    request: Request, outcome: Outcome, error: Exception, started: float, seconds: float, message: str, log: str | None
) -> Attempt:
    """An attempt that did not succeed, as seen from the machine that notices it."""
    return Attempt(
        address=request.step.address,
        entry=request.step.entry,
        number=request.number,
        outcome=outcome,
        seconds=seconds,
        started=started,
        host=socket.gethostname(),
        code_commit=request.code_commit,
        error_class=type(error).__name__ if outcome is Outcome.FAILED else outcome.value,
        error=f"{message} ({_memory_advice(request)})" if outcome is Outcome.OUT_OF_MEMORY else message,
        log=log,
    )


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
    )


def record_attempt(attempt: Attempt, location: str) -> None:
    """Append an attempt to the history if the store lets us; a full disk must not hide how the attempt ended."""
    with contextlib.suppress(StoreError):
        _store(location).record(attempt)


def cut_log(request: Request) -> str | None:
    """Keep what the running step printed so far; returns where, None if that is nothing."""
    return _capture.cut(request.step.address, request.number) if _capture else None


def call_stage(request: Request, store: Store, out: Path) -> dict[str, float]:
    """Call the stage function on verified inputs and check its metrics.

    Raises:
        RejectedError: a metric is missing, undeclared or not finite.
        _DamagedInputsError: inputs are torn or altered.
        CodeChangedError: the code on the disk is not the driver's.
    """
    step = request.step
    stage = STAGES[step.stage]
    config = stage.config.model_validate(step.config)
    inputs: dict[str, Path | list[Path]] = {}
    damage: list[DamagedArtifactError] = []
    for name, artifacts in step.inputs.items():
        folders = []
        for artifact in artifacts:
            try:
                folders.append(store.fetch(artifact))
            except DamagedArtifactError as error:
                damage.append(error)
        inputs[name] = folders if stage.inputs[name].many else (folders or [Path()])[0]
    if damage:
        # All of them, so that they are made again together.
        raise _DamagedInputsError(damage)
    function = _function(stage.function)
    _check_code(request.code)
    _limit_threads(request.runtime.cpus)
    metrics = function(config, out, **inputs)
    return _checked(metrics, config.metrics())


def _try_step(request: Request, store: Store, started: float, clock: float) -> Manifest:
    """Call the stage and commit what it made."""
    address = request.step.address
    out = store.scratch(address)
    try:
        if _capture:
            _capture.begin(address, request.number)
        try:
            metrics = call_stage(request, store, out)
        except Exception:
            traceback.print_exc()
            raise
        try:
            files = list_files(out)
        except OSError as error:
            raise StoreError(f"{out} cannot be read back: {error}") from error
        log = cut_log(request)
        seconds = time.perf_counter() - clock
        manifest = Manifest(
            address=address,
            identity=request.step.identity,
            files=files,
            metrics=metrics,
            attempt=request.number,
            seconds=seconds,
            finished=started + seconds,
            host=socket.gethostname(),
            code_commit=request.code_commit,
            log=log,
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
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _checked(metrics: object, declared: tuple[str, ...]) -> dict[str, float]:
    if not isinstance(metrics, Mapping):
        raise RejectedError(f"the stage returned {type(metrics).__name__}, expected a mapping of metrics")
    missing = [name for name in declared if name not in metrics]
    undeclared = [str(name) for name in metrics if name not in declared]
    if missing or undeclared:
        raise RejectedError(f"metrics missing: {missing}; undeclared: {undeclared}; declared: {list(declared)}")
    values = {}
    for name in declared:
        try:
            values[name] = float(metrics[name])
        except (TypeError, ValueError) as error:
            raise RejectedError(f"metric {name} is {metrics[name]!r}, expected a number") from error
        if not math.isfinite(values[name]):
            raise RejectedError(f"metric {name} is {values[name]}, expected a finite number")
    return values


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
    return Outcome.IO_ERROR if error.passes else Outcome.STORE_ERROR


def _memory_advice(request: Request) -> str:
    runtime, name = request.runtime, request.step.entry
    if runtime.gpus:
        return f"if it was the GPU's: a smaller batch in the config of {name}, or more of runtime.{name}.gpus"
    reserved = f"{runtime.memory / 2**30:.1f} GiB were" if runtime.memory else "nothing was"
    return f"{reserved} reserved: raise runtime.{name}.memory, or let it grow up to memory_limit"


def _classify(error: Exception) -> Outcome:
    if isinstance(error, TimeoutError) and error.errno is None:
        return Outcome.TIMED_OUT
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Outcome.OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
        return Outcome.STORE_ERROR
    return Outcome.IO_ERROR if passes(error) else Outcome.FAILED


def _message(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
        text += "; free some space or choose another place with --outputs, then give the same command again"
    return text if len(text) <= 2000 else text[:2000] + " …"


def stage_source(stage: str) -> str:
    """The file and line of a stage function, for `sweep debug`."""
    function = _function(STAGES[stage].function)
    return f"{inspect.getsourcefile(function)}:{inspect.getsourcelines(function)[1]}"

"""Prepares the process that steps run in: its code, its threads, its GPU, and where its output goes."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import traceback
from collections.abc import Iterator

from orchestrator.attempt.capture import Capture
from orchestrator.attempt.outcome import CodeChangedError, InterpreterError
from orchestrator.attempt.request import Request
from orchestrator.code import difference
from orchestrator.redact import redact
from orchestrator.store import Store
from orchestrator.study import StageError
from orchestrator.study.modules import study_of
from orchestrator.study.source import modules_of, source_digest
from workers import model_cache
from workers.device import promise_gpu
from workers.stage import Origin, Stage

_LIBRARIES = ("torch", "transformers", "trl", "peft", "lightgbm", "numpy", "sentence_transformers", "datasets", "vllm")


class Process:
    """The state of this process, remembered so that small steps need not prepare it again."""

    def __init__(self) -> None:
        """Start with nothing checked, limited or captured."""
        self.python: str | None = None
        """The interpreter of this process, as sweeps name it; None for the driver's."""
        self._capture: Capture | None = None
        """Capture of the running bundle's output."""
        self._code: tuple[object, ...] = ()
        """(code and source that were found here, number of loaded modules at that time)."""
        self._threads = (0, 0)
        """(number of threads that the libraries were limited to, number of loaded modules at that time)."""
        self._gpu_memory: int | None = None
        """Bytes of the GPU that the last step was allowed."""
        self.spoilt: str | None = None
        """What a step left behind in this process that cannot be put back; then it may run no further bundle."""

    def prepare(self, request: Request) -> None:
        """Prepare the process for a request: check its code, limit its threads, allow GPUs or not.

        Raises:
            CodeChangedError: the code on disk is not the driver's.
            InterpreterError: the step is to run under another interpreter.
        """
        if request.runtime.python != self.python:
            entry = request.step.entry
            raise InterpreterError(
                f"runtime.{entry}.python has the step run under {request.runtime.python}, and this process runs under "
                f"{sys.executable}: run it by `sweep run`, or here with -s runtime.{entry}.python=null"
            )
        self._check_code(request)
        self._limit_threads(request.runtime.cpus)
        if request.runtime.gpu_memory != self._gpu_memory:
            # What a step with more of the GPU left there may be all that this one may have.
            model_cache.drop()
            self._gpu_memory = request.runtime.gpu_memory
        promise_gpu(request.runtime.gpus > 0, request.runtime.gpu_memory)
        # Read by `workers.judges.backends.endpoint`. Not an argument of stages, since no name of a sweep may matter to
        # what they make.
        os.environ["SWEEP_ACCOUNT"] = request.account

    def versions(self) -> dict[str, str]:
        """Return the versions of the loaded libraries that results depend on."""
        loaded = (name for name in _LIBRARIES if name in sys.modules)
        return {name: str(getattr(sys.modules[name], "__version__", "unknown")) for name in loaded}

    # --- output

    @contextlib.contextmanager
    def capturing(self, store: Store) -> Iterator[None]:
        """Capture what steps print while a bundle runs."""
        try:
            with Capture(store) as self._capture:
                yield
        finally:
            self._capture = None
            promise_gpu(None)

    def begin_log(self, request: Request) -> None:
        """Begin the log of a step.

        Raises:
            StoreError: the log cannot be written.
        """
        if self._capture:
            self._capture.begin(request.step.address, request.number)

    def end_log(self, request: Request) -> str | None:
        """End the log of a step; return its path in the store, None if the step printed nothing so far."""
        return self._capture.end(request.step.address, request.number) if self._capture else None

    def log_error(self) -> None:
        """Write the current exception to the log of the step, whatever the step did to `sys.stderr`."""
        with contextlib.suppress(BaseException):
            self.log(redact(traceback.format_exc()))

    def log(self, text: str) -> None:
        """Write to the log of the step."""
        if self._capture:
            self._capture.write(text)

    # --- what steps leave behind

    def spoil(self, reason: str) -> None:
        """Note that this process may run no further bundle; the reason is told in the log of the step."""
        self.spoilt = self.spoilt or reason
        if self._capture:
            self._capture.write(f"{reason}; this process runs no further step\n")

    # --- code and threads

    def _check_code(self, request: Request) -> None:
        """Raise if the code here is not the driver's; checked again after each import."""
        stage = request.step.definition
        found = (request.code, stage.origin, len(sys.modules))
        if self._code == found:
            return
        if request.code and (wrong := difference(request.code)):
            raise CodeChangedError(wrong)
        if stage.origin:
            _check_source(stage, stage.origin)
        self._code = found

    def _limit_threads(self, cpus: float) -> None:
        """Limit numerical libraries to the step's number of CPUs: results must not depend on the node."""
        threads = max(1, int(cpus))
        # Searching all loaded libraries takes a millisecond, more than a small step; repeated only after an import.
        if self._threads == (threads, len(sys.modules)):
            return
        from threadpoolctl import threadpool_limits

        os.environ["OMP_NUM_THREADS"] = str(threads)
        threadpool_limits(threads)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        self._threads = (threads, len(sys.modules))


def _check_source(stage: Stage, origin: Origin) -> None:
    """Raise if the source of a stage that is not this package's is other than the driver's when it planned."""
    study = study_of(origin)
    modules = modules_of(stage)
    try:
        same = source_digest(study, modules) == origin.source
    except StageError as error:
        raise CodeChangedError(f"{error}, on {socket.gethostname()}") from error
    if same:
        return
    module = study.find(modules[0])
    where = module.file if module else study.folder
    if module and module.installed:
        raise CodeChangedError(
            f"{stage.function} at {where} on {socket.gethostname()} is not what the driver has: install the same "
            "version of its package on every node"
        )
    raise CodeChangedError(
        f"the code changed since the sweep was planned: {where} or a module that it imports was edited; give the same "
        "command again, which runs today's code"
    )


#: The state of this process.
PROCESS = Process()

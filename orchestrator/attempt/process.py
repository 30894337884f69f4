"""The process that steps run in: its code, its threads, its GPU, and where its output goes."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence

from orchestrator.attempt.capture import Capture
from orchestrator.attempt.outcome import CodeChangedError
from orchestrator.attempt.request import Request
from orchestrator.code import code_digest
from orchestrator.redact import redact
from orchestrator.store import Store
from workers.device import promise_gpu

_LIBRARIES = ("torch", "transformers", "trl", "peft", "lightgbm", "numpy", "sentence_transformers", "datasets")


class Process:
    """What this process was prepared for last, so that a small step need not prepare it again."""

    def __init__(self) -> None:
        """Nothing is known, limited or captured yet."""
        self._capture: Capture | None = None
        """Where the output of the running bundle goes."""
        self._code = ("", 0)
        """Which code was found here, and with how many modules loaded."""
        self._threads = (0, 0)
        """To how many threads, and with how many modules loaded, the libraries were limited."""

    def prepare(self, request: Request) -> None:
        """Make the process what a request wants it to be: the driver's code, its threads, a GPU or none.

        Raises:
            CodeChangedError: the code on the disk is not the driver's.
        """
        self._check_code(request.code, request.modules)
        self._limit_threads(request.runtime.cpus)
        promise_gpu(request.runtime.gpus > 0)
        # Read by `workers.judges.backends.endpoint`. A stage gets no name of a sweep as an argument, since none may
        # matter to what it makes.
        os.environ["SWEEP_ACCOUNT"] = request.account

    def versions(self) -> dict[str, str]:
        """Return the versions of the libraries that results depend on, of those that are loaded."""
        loaded = (name for name in _LIBRARIES if name in sys.modules)
        return {name: str(getattr(sys.modules[name], "__version__", "unknown")) for name in loaded}

    # --- output

    @contextlib.contextmanager
    def capturing(self, store: Store) -> Iterator[None]:
        """Keep what steps print, for the length of a bundle."""
        try:
            with Capture(store) as self._capture:
                yield
        finally:
            self._capture = None
            promise_gpu(None)

    def begin_log(self, request: Request) -> None:
        """Let what is printed from now on belong to a step."""
        if self._capture:
            self._capture.begin(request.step.address, request.number)

    def cut_log(self, request: Request) -> str | None:
        """Keep what the running step printed so far; returns where, None if that is nothing."""
        return self._capture.cut(request.step.address, request.number) if self._capture else None

    def log_error(self) -> None:
        """Write what was raised into the log of the step, whatever became of `sys.stderr`."""
        if self._capture:
            with contextlib.suppress(BaseException):
                self._capture.tell(redact(traceback.format_exc()))

    # --- code and threads

    def _check_code(self, driver: str, modules: Sequence[str]) -> None:
        """Refuse to go on with code that was edited since the driver started; looked at again after each import."""
        if not driver or self._code == (driver, len(sys.modules)):
            return
        if code_digest(modules) != driver:
            packages = ", ".join(("orchestrator", "workers", *modules))
            raise CodeChangedError(
                f"the code changed since the driver started: a file of {packages} was edited; "
                "give the same command again, which runs today's code"
            )
        self._code = (driver, len(sys.modules))

    def _limit_threads(self, cpus: float) -> None:
        """Give numerical libraries as many threads as the step was promised: results must not depend on the node."""
        threads = max(1, int(cpus))
        # Looking through all loaded libraries takes a millisecond, more than a small step; again only after an import.
        if self._threads == (threads, len(sys.modules)):
            return
        from threadpoolctl import threadpool_limits

        os.environ["OMP_NUM_THREADS"] = str(threads)
        threadpool_limits(threads)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        self._threads = (threads, len(sys.modules))


#: This process.
PROCESS = Process()

"""Runs steps one after another in a child process, for `--inline`: its death is a step's outcome, and no more."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.attempt.outcome import InterpreterError, timeout_error
from orchestrator.attempt.request import Request
from orchestrator.attempt.silence import Silence, describe_silence, silence_limit, silent_error
from orchestrator.run.executors import NO_TURNS, Ended, ExecutorLostError, Slot
from orchestrator.run.executors.child_main import Unreadable
from orchestrator.run.executors.child_process import ChildProcess, EndedError
from orchestrator.run.executors.inline import InlineExecutor
from orchestrator.run.executors.recovery import UnreadableError, attempts_after, recovered_attempts
from orchestrator.study.modules import study_of
from orchestrator.types import Artifact, Attempt, Outcome, Runtime

#: Bundles that the process has: the one that it runs, and the next, so that neither waits while the driver thinks.
_BUNDLES = 2


@dataclass(slots=True)
class _Watch:
    """The watch over the step that runs."""

    address: Artifact
    silence: Silence
    told: bool = False


class ChildExecutor(InlineExecutor):
    """An executor without Ray whose steps run in one process, which is replaced when it dies or is unfit."""

    def __init__(self) -> None:
        """Start the process; its imports go on beside whatever this one does next."""
        super().__init__()
        self._child: ChildProcess | None = ChildProcess()
        self._begun = 0.0
        """When the process may have begun the first bundle of the queue, Unix time in seconds."""
        self._watch: _Watch | None = None
        self._silent: list[str] = []
        """Sentences on steps that seem to hang, which were not told yet."""

    def find_slot(self, runtime: Runtime, ready: Mapping[str, int], turns: Mapping[str, int] = NO_TURNS) -> Slot | None:
        """Return a slot if at most one bundle is queued, for the model that was loaded last if it has ready steps.

        Not beside a bundle for another interpreter, which is of another process: steps run one after another.
        """
        other = any(requests[0].runtime.python != runtime.python for requests in self._queue)
        return self._slot(ready) if len(self._queue) < _BUNDLES and not other else None

    def submit(self, requests: Sequence[Request], slot: Slot) -> None:
        """Send a bundle to the process; start another one if it is gone, or of another interpreter."""
        python = requests[0].runtime.python
        if not self._queue:
            self._begun = time.time()
            if self._child and not (self._child.python == python and self._child.alive()):
                self._child.end()
                self._child = None
        if self._child is None:
            self._child = ChildProcess(python)
        super().submit(requests, slot)
        origin = requests[0].step.definition.origin
        if origin:
            # Pickle names classes by their modules, which must be those of this study.
            study_of(origin).activate()
        bundle = pickle.dumps(list(requests), pickle.HIGHEST_PROTOCOL)
        self._child.send(bundle, origin.folder if origin else None)

    def wait(self, seconds: float) -> list[Ended]:
        """Wait for a bundle. The death of the process is an attempt that crashed, or that took too long.

        Raises:
            ExecutorLostError: no such process can be started.
        """
        if not self._queue:
            return []
        requests, child = self._queue[0], self._child
        assert child is not None, "it was sent the bundle"
        try:
            answer = child.receive(seconds)
        except (EndedError, InterpreterError) as error:
            if isinstance(error, EndedError) and not child.listening:
                raise ExecutorLostError(f"the process for the steps did not start: {error}") from error
            return self._lost(requests, attempts_after(requests, error, self._begun))
        if answer is None:
            overdue = timeout_error(requests[0]) if child.overdue() else self._hangs(requests, child)
            if overdue is None:
                return []
            child.kill()
            return self._lost(requests, recovered_attempts(requests, overdue, Outcome.TIMED_OUT, self._begun))
        self._queue.popleft()
        begun, self._begun = self._begun, time.time()
        if isinstance(answer, Unreadable):
            return [Ended(requests, tuple(attempts_after(requests, UnreadableError(answer.reason), begun)))]
        if answer.last:
            child.end()
            return [Ended(requests, answer.attempts), *self._abandon()]
        return [Ended(requests, answer.attempts)]

    def _hangs(self, requests: Sequence[Request], child: ChildProcess) -> TimeoutError | None:
        """Note a step that seems to hang, for `silent`; return the error that is to end it, None if it may go on."""
        running = next((each for each in requests if each.step.address == child.step), None)
        limit = silence_limit(running.runtime) if running else None
        if running is None or limit is None:
            self._watch = None
            return None
        if self._watch is None or self._watch.address != running.step.address:
            self._watch = _Watch(running.step.address, Silence(child.pid, limit))
        seconds = self._watch.silence.look()
        if seconds is None:
            return None
        if running.runtime.silent_ends:
            return silent_error(running, seconds)
        if not self._watch.told:
            self._watch.told = True
            self._silent.append(describe_silence(running, child.pid, seconds))
        return None

    def silent(self) -> list[str]:
        """Return a sentence on each step that was found to hang since the last call."""
        found, self._silent = self._silent, []
        return found

    def _lost(self, requests: tuple[Request, ...], attempts: Iterable[Attempt]) -> list[Ended]:
        """Return what the process had that died while it ran the first bundle."""
        self._queue.popleft()
        return [Ended(requests, tuple(attempts)), *self._abandon()]

    def _abandon(self) -> list[Ended]:
        """Give up a process that has ended; return what it had not begun. The next bundle gets another process."""
        self._child = self._watch = None
        waiting = [Ended(requests, ()) for requests in self._queue]
        self._queue.clear()
        return waiting

    def stop(self) -> None:
        """End the process; a step that is running is interrupted, as Ctrl-C would, and has a while to clean up."""
        child, self._child = self._child, None
        if child:
            child.end(interrupt=bool(self._queue))
        super().stop()

"""Runs steps one after another in a child process, for `--inline`: its death is a step's outcome, and no more."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from typing import Any

from orchestrator.attempt.outcome import timeout_error
from orchestrator.attempt.request import Request
from orchestrator.attempt.silence import Silence, describe_silence, silence_limit, silent_error
from orchestrator.run.executors import NO_TURNS, Ended, ExecutorLostError, Slot
from orchestrator.run.executors.child_main import Done, Listening, Ordered, Unreadable, Watched
from orchestrator.run.executors.inline import InlineExecutor
from orchestrator.run.executors.recovery import UnreadableError, record_failure, recovered_attempts
from orchestrator.study.modules import study_of
from orchestrator.types import Artifact, Outcome, Runtime

#: Bundles that the process has: the one that it runs, and the next, so that neither waits while the driver thinks.
_BUNDLES = 2
#: Seconds that a step may run beyond its time limit: within it ends itself, unless C code keeps it from hearing.
GRACE = 10.0
#: Seconds that a process has to end, and its step to clean up, before it is killed.
PATIENCE = 5.0


class EndedError(Exception):
    """The child process is no longer there."""


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
        self._child: _Child | None = _Child()
        self._begun = 0.0
        """When the process may have begun the first bundle of the queue, Unix time in seconds."""
        self._watch: _Watch | None = None
        self._silent: list[str] = []
        """Sentences on steps that seem to hang, which were not told yet."""

    def find_slot(self, runtime: Runtime, ready: Mapping[str, int], turns: Mapping[str, int] = NO_TURNS) -> Slot | None:
        """Return a slot if at most one bundle is queued, for the model that was loaded last if it has ready steps."""
        return self._slot(ready) if len(self._queue) < _BUNDLES else None

    def submit(self, requests: Sequence[Request], slot: Slot) -> None:
        """Send a bundle to the process; start another one if it is gone."""
        if self._child is None or not (self._queue or self._child.alive()):
            self._child = _Child()
        if not self._queue:
            self._begun = time.time()
        super().submit(requests, slot)
        self._child.send(requests)

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
        except EndedError as error:
            if not child.listening:
                raise ExecutorLostError(f"the process for the steps did not start: {error}") from error
            return self._lost(error, Outcome.CRASHED)
        if answer is None:
            overdue = timeout_error(requests[0]) if child.overdue() else self._hangs(requests, child)
            if overdue is None:
                return []
            child.kill()
            return self._lost(overdue, Outcome.TIMED_OUT)
        self._queue.popleft()
        begun, self._begun = self._begun, time.time()
        if isinstance(answer, Unreadable):
            unread = UnreadableError(f"the process of the steps cannot import what they name: {answer.reason}")
            return [Ended(requests, tuple(record_failure(each, Outcome.FAILED, unread, begun) for each in requests))]
        if answer.last:
            child.end()
            return [Ended(requests, answer.attempts), *self._abandon()]
        return [Ended(requests, answer.attempts)]

    def _hangs(self, requests: Sequence[Request], child: _Child) -> TimeoutError | None:
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

    def _lost(self, error: Exception, outcome: Outcome) -> list[Ended]:
        """Return what the process had that died while it ran the first bundle."""
        requests = self._queue.popleft()
        return [Ended(requests, tuple(recovered_attempts(requests, error, outcome, self._begun))), *self._abandon()]

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


#: What the process runs. It finds modules where this one does, so that a study means the same here and there.
_CODE = "import sys; sys.path[:] = {path}; from orchestrator.run.executors.child_main import main; main({end}, {pid})"


class _Child:
    """A process that runs bundles, in a process group of its own: with it goes all that its steps have started."""

    def __init__(self) -> None:
        """Start it.

        A fresh interpreter, since a fork would copy the locks of our threads in whatever state they are; and not by
        `multiprocessing`, which imports the main module again.
        """
        self._connection, theirs = Pipe()
        self.listening = False
        """Whether it is there, so that an interrupt lets its step clean up."""
        self.step: Artifact | None = None
        """The step that runs, if it is to be watched."""
        self._deadline = math.inf
        """Monotonic time at which that step has run too long."""
        code = _CODE.format(path=ascii([str(each) for each in sys.path]), end=theirs.fileno(), pid=os.getpid())
        options = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        with theirs:
            # A step that reads its standard input finds nothing there.
            self._process = subprocess.Popen(
                [sys.executable, *options, "-c", code],
                stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], process_group=0,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, requests: Sequence[Request]) -> None:
        """Send a bundle; of a process that is gone `receive` tells."""
        origin = requests[0].step.definition.origin
        if origin:
            # Pickle names classes by their modules, which must be those of this study.
            study_of(origin).activate()
        bundle = pickle.dumps(list(requests), pickle.HIGHEST_PROTOCOL)
        with contextlib.suppress(OSError):
            self._connection.send(Ordered(origin.folder if origin else None, bundle))

    def receive(self, seconds: float) -> Done | Unreadable | None:
        """Wait for the end of the bundle; return None if it has not ended.

        Raises:
            EndedError: the process is gone.
        """
        until = time.monotonic() + seconds
        while True:
            try:
                if not self._connection.poll(max(0.0, until - time.monotonic())):
                    # A process that a step forked may hold the other end of the connection.
                    if self.alive() or self._connection.poll(0):
                        return None
                    raise EOFError
                message: Any = self._connection.recv()
            except (EOFError, OSError) as error:
                raise EndedError(self._how_it_ended()) from error
            match message:
                case Listening():
                    self.listening = True
                case Watched(address, timeout):
                    self.step = address
                    self._deadline = math.inf if timeout is None else time.monotonic() + timeout + GRACE
                case Done() | Unreadable():
                    return message

    def overdue(self) -> bool:
        """Tell whether the step has run on for long after its time limit."""
        return time.monotonic() > self._deadline

    def _how_it_ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        code = self._process.returncode
        self.kill()
        if code is None:
            return "it closed the connection to its driver"
        if code >= 0:
            return f"exit code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"{name}, perhaps because memory ran out" if -code == signal.SIGKILL else name

    def end(self, interrupt: bool = False) -> None:
        """Let it end, and kill it if that takes too long.

        Args:
            interrupt: whether a step is running.
        """
        try:
            # Its first word may not have been read yet.
            self.listening = self.listening or (not self._connection.closed and self._connection.poll(0))
            if interrupt and self.listening:
                self._signal(signal.SIGINT)
            self._connection.close()
            if self.listening:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(PATIENCE)
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill it, with all that its steps have started."""
        self._signal(signal.SIGKILL)
        # One that waits for a dead mount does not even die.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        self._connection.close()

    def _signal(self, number: signal.Signals) -> None:
        # Gone, or, on macOS, not yet waited for.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

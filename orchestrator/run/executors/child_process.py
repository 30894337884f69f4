"""A process that runs bundles for another one, under the same interpreter or that of another environment."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import time
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from orchestrator.attempt.outcome import InterpreterError
from orchestrator.code import PACKAGES
from orchestrator.run.executors.child_main import Done, Listening, Ordered, Unreadable, Watched
from orchestrator.types import Artifact

#: Seconds that a step may run beyond its time limit: within it ends itself, unless C code keeps it from hearing.
GRACE = 10.0
#: Seconds that a process has to end, and its step to clean up, before it is killed.
PATIENCE = 5.0
#: Seconds that another interpreter has until it is ready: its packages may lie on a slow file server.
_READY = 300.0

#: What a process runs under this interpreter. It finds modules where this one does, so that a study means the same here
#: and there.
_CODE = "import sys; sys.path[:] = {path}; from orchestrator.run.executors.child_main import main; main({end}, {pid})"
#: What it runs under another one: of the environment here it gets our two packages and nothing else.
_OTHER_CODE = """
import sys
from multiprocessing.connection import Connection
try:
    if sys.version_info < (3, 11):
        raise ImportError("it is Python %d.%d, and 3.11 or newer is needed" % sys.version_info[:2])
    import importlib.util
    sys.path[:] = [each for each in sys.path if each]
    for name, folder in {packages}:
        file = folder + "/__init__.py"
        spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[folder])
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    import threadpoolctl
    from orchestrator.run.executors.child_main import main
except Exception as error:
    Connection({end}).send("%s: %s" % (type(error).__name__, error))
    sys.exit(1)
main({end}, {pid}, {python}, {watched})
"""
#: How that is started, and what its exit codes mean. So a path that leads nowhere is met as whatever else may be wrong.
_START_OTHER = '[ -f "$1" ] || exit 127; [ -x "$1" ] || exit 126; exec "$@"'
_NOT_STARTED = {"exit code 127": "there is no such file", "exit code 126": "it is not executable"}
#: Variables that would lead another interpreter into the environment of this one.
_OF_THIS_ENVIRONMENT = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV")
#: Waits, in a session of its own, for a line or the end of its input, and then kills a process group.
_WATCH = "exec 3<&0; (read -r _ || kill -s KILL -- -{group}) <&3 3<&- &"


class EndedError(Exception):
    """The process is no longer there."""


class ChildProcess:
    """A process that runs bundles, in a process group of its own: with it goes all that its steps have started."""

    def __init__(self, python: str | None = None, watched: bool = True) -> None:
        """Start it.

        A fresh interpreter, since a fork would copy the locks of our threads in whatever state they are; and not by
        `multiprocessing`, which imports the main module again.

        Args:
            python: the interpreter that it runs under; None for this one.
            watched: whether this process watches over the time limits of its steps; else it does so itself.
        """
        self.python = python
        self._connection, theirs = Pipe()
        self.listening = False
        """Whether it is there, so that an interrupt lets its step clean up."""
        self.step: Artifact | None = None
        """The step that runs, if it is to be watched."""
        self._deadline = math.inf
        """Monotonic time at which that step has run too long."""
        self._ready_by = time.monotonic() + _READY
        with theirs:
            # A step that reads its standard input finds nothing there.
            self._process = subprocess.Popen(
                _command(python, theirs.fileno(), watched), env=_environment(python),
                stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], process_group=0,
            )  # fmt: skip
        self._end_group_with_us()

    def _end_group_with_us(self) -> None:
        """Have all that its steps have started killed when this process dies, however that dies.

        Of it alone the kernel takes care (`child_main`), and on Linux only; vLLM's engine would stay, with its memory.
        """
        reading, writing = os.pipe()
        self._alive: int | None = writing
        """Our end of a pipe, until all is killed."""
        subprocess.run(
            ["/bin/sh", "-c", _WATCH.format(group=self.pid)], stdin=reading, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, check=False,
        )  # fmt: skip
        os.close(reading)

    @property
    def pid(self) -> int:
        """Its process number, which is that of its group."""
        return self._process.pid

    def alive(self) -> bool:
        """Tell whether it is still there."""
        return self._process.poll() is None

    def send(self, requests: bytes, study: str | None, copy: str | None = None) -> None:
        """Send a bundle; of a process that is gone `receive` tells.

        Args:
            requests: the pickled requests.
            study: folder of the study that they are of; None for stages of this package.
            copy: folder of a copy of it, which is used in its place.
        """
        with contextlib.suppress(OSError):
            self._connection.send(Ordered(study, requests, copy))

    def receive(self, seconds: float) -> Done | Unreadable | None:
        """Wait for the end of the bundle; return None if it has not ended.

        Raises:
            EndedError: the process is gone.
            InterpreterError: steps cannot run under its interpreter.
        """
        until = time.monotonic() + seconds
        while True:
            try:
                if not self._connection.poll(max(0.0, until - time.monotonic())):
                    # A process that a step forked may hold the other end of the connection.
                    if self.alive() or self._connection.poll(0):
                        if self.python and not self.listening and time.monotonic() > self._ready_by:
                            self.kill()
                            raise self._unfit(f"it is not ready after {_READY:g} s")
                        return None
                    raise EOFError
                message: Any = self._connection.recv()
            except (EOFError, OSError) as error:
                how = self._how_it_ended()
                if self.python and not self.listening:
                    raise self._unfit(_NOT_STARTED.get(how, f"it ended before it was ready ({how})")) from error
                raise EndedError(how) from error
            match message:
                case Listening():
                    self.listening = True
                case Watched(address, timeout):
                    self.step = address
                    self._deadline = math.inf if timeout is None else time.monotonic() + timeout + GRACE
                case Done() | Unreadable():
                    return message
                case str():
                    self.kill()
                    raise self._unfit(message)

    def overdue(self) -> bool:
        """Tell whether the step has run on for long after its time limit."""
        return time.monotonic() > self._deadline

    def _unfit(self, reason: str) -> InterpreterError:
        return InterpreterError(f"no step can run under {self.python} on {socket.gethostname()}: {reason}")

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
        """Kill it, with all that its steps have started; once, since another group may have its number afterwards."""
        if self._alive is None:
            return
        self._signal(signal.SIGKILL)
        # One that waits for a dead mount does not even die.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        self._connection.close()
        with contextlib.suppress(OSError):
            os.write(self._alive, b"\n")
        os.close(self._alive)
        self._alive = None

    def _signal(self, number: signal.Signals) -> None:
        # Gone, or, on macOS, not yet waited for.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _command(python: str | None, end: int, watched: bool) -> list[str]:
    if python is None:
        options = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        code = _CODE.format(path=ascii([str(each) for each in sys.path]), end=end, pid=os.getpid())
        return [sys.executable, *options, "-c", code]
    packages = ascii([(each.name, str(each)) for each in PACKAGES])
    code = _OTHER_CODE.format(packages=packages, end=end, pid=os.getpid(), python=ascii(python), watched=watched)
    return ["/bin/sh", "-c", _START_OTHER, "sh", python, "-c", code]


def _environment(python: str | None) -> dict[str, str] | None:
    """Return the variables of a process under another interpreter, of which steps find its programs first."""
    if python is None:
        return None
    kept = {name: value for name, value in os.environ.items() if name not in _OF_THIS_ENVIRONMENT}
    return kept | {"PATH": os.pathsep.join([str(Path(python).parent), kept.get("PATH", os.defpath)])}

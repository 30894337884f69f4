"""Seals an attempt: what a stage does to its process ends with the step, or the process ends.

Whatever can be put back is put back after every step (`surroundings`), and costs nobody anything. Threads cannot be
ended from outside, and a program may have lost more than a child process of it that is killed; so a step that leaves
something behind keeps its own outcome, and this process is `spoilt`: it runs no further step.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import resource
import secrets
import shutil
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from orchestrator.attempt.process import PROCESS
from orchestrator.attempt.surroundings import CHANGING, PARTS, STEADY, Part
from workers.model_cache import kept

#: Seconds that threads and children which are about to end get for it. Only where there are any.
_GRACE = 0.2
#: Seconds within which killed children disappear.
_PATIENCE = 2.0
#: A share of the files that this process may have open, above which there may be too few for the next bundle.
_FILES = 0.5

#: Threads that libraries keep for all their callers, by the module of their class or function …
_KEPT_MODULES = (
    "orchestrator.",  # heartbeats of claims and scratch folders
    "fsspec.", "grpc.", "mlflow.", "ray.", "torch.",  # input and output, and the queues of data loaders
    "tqdm.",  # the monitor of progress bars
    "transformers.",  # converts a model in the Hub's cache
)  # fmt: skip
#: … or by their name: event loops of fsspec, and what these loops give to threads. A loop of the stage's own is told
#: by the thread that it runs in.
_KEPT_NAMES = ("fsspecIO", "asyncio_")


#: Number of loaded modules -> the steady parts as they were then; None between bundles, when everybody may change them.
_known: dict[int, list[tuple[str, Part, Any]]] | None = None


class sealed:  # noqa: N801 (a context manager, as those of contextlib)
    """Put this process back as it was, whatever was done to it meanwhile; what cannot be put back makes it spoilt.

    What a model needs that was loaded meanwhile and is cached stays with the model. Threads that are not Python's never
    matter: those of OpenMP, BLAS and Arrow are there for good.
    """

    def __enter__(self) -> None:
        self._process = os.getpid()
        self._adopting = _adopt_orphans(True)
        self._model = kept()
        self._threads = threading.enumerate()
        self._children = _children(self._threads)
        number = len(sys.modules)
        steady = _known.get(number) if _known is not None else None
        if steady is None:
            steady = _read(STEADY)
            if _known is not None:
                _known[number] = steady
        self._before = [*steady, *_read(CHANGING)]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._put_back()
            if os.getpid() != self._process:
                # A child that a stage forked has returned from the stage, too: two processes would go on from here.
                os._exit(0)
            self._clear_away()
        except BaseException:
            # Ctrl-C, or a time limit.
            _spoil("it was interrupted while it cleared away what a step had left")
            raise
        finally:
            _adopt_orphans(self._adopting)

    def _put_back(self) -> None:
        # Functions of Python may have been replaced: none is used before those of `builtins` are back.
        for name, part, before in self._before:
            try:
                if part.read() != before:
                    part.restore(before)
            except Exception as failure:  # What a stage put there may raise anything.
                _spoil(f"a step changed {name}, which cannot be restored ({type(failure).__name__})")

    def _clear_away(self) -> None:
        if self._new_threads() or self._new_children():
            # Pools and data loaders end what they started when they are dropped.
            gc.collect()
        deadline = time.monotonic() + _GRACE
        threads = self._left_threads(deadline)
        children = self._left_children(deadline)
        if kept() is not self._model:
            return
        if threads:
            _spoil(f"a step left {_counted(threads, 'a thread', 'threads')} running: {', '.join(threads)}")
        if children:
            left = _counted(children, "a child process", "child processes")
            _spoil(f"a step left {left} running: {', '.join(children)}; killed")

    def _new_threads(self) -> list[threading.Thread]:
        threads = threading.enumerate()
        if threads == self._threads:
            return []
        return [thread for thread in threads if thread not in self._threads and not _is_kept(thread)]

    def _left_threads(self, deadline: float) -> list[str]:
        """Return the names of the threads that do not end."""
        new = self._new_threads()
        for thread in new:
            threading.Thread.join(thread, max(0.0, deadline - time.monotonic()))
        return [ascii(thread.name) for thread in new if threading.Thread.is_alive(thread)]

    def _new_children(self) -> set[int]:
        return _children(self._threads) - self._children

    def _left_children(self, deadline: float) -> list[str]:
        """Kill the child processes that do not end, with all that they started; return their names."""
        left: dict[int, str] = {}
        giving_up = deadline + _PATIENCE
        while new := self._new_children():
            running = {child for child in new if not _reaped(child)}
            if kept() is not self._model or time.monotonic() > giving_up:
                break
            if running and time.monotonic() > deadline:
                # What they have started becomes our child next.
                for child in running:
                    left.setdefault(child, _name_of(child))
                    with contextlib.suppress(OSError):
                        os.kill(child, signal.SIGKILL)
            if running:
                time.sleep(0.005)
        return list(left.values())


@contextlib.contextmanager
def same_folder() -> Iterator[None]:
    """Go back to the working directory in the end, within work that is sealed as a whole."""
    part = PARTS["the working directory"]
    before = part.read()
    try:
        yield
    finally:
        if part.read() != before:
            # Where somebody removed it, there is none to go back to.
            with contextlib.suppress(OSError):
                part.restore(before)


@contextlib.contextmanager
def sealed_bundle() -> Iterator[None]:
    """Seal the steps of a bundle at a lower cost; spoil this process if it has so many files open in the end that there
    may be too few for another.
    """
    global _known
    _known = {}
    try:
        yield
    finally:
        _known = None
    # Not on every platform.
    with contextlib.suppress(OSError):
        count = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (for each bundle)
        if count > _FILES * resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            _spoil(f"steps left {count:,} files open")


def detach(folder: Path, names: Collection[str]) -> None:
    """Put copies in the place of files, so that what a step left running has none of them open."""
    for name in names:
        copy = f"{folder}/.{secrets.token_hex(8)}"
        shutil.copy2(f"{folder}/{name}", copy)
        os.replace(copy, f"{folder}/{name}")  # noqa: PTH105


def make_read_only(folder: Path, names: Collection[str]) -> None:
    """Take everybody's right to write from the files of an artifact, and give it to their owner for its folders.

    A folder that cannot be written could not be deleted. No program is stopped by it that has a file open already, or
    runs as root; what such a one writes is noticed, since every reader compares digests.
    """
    folders = {str(folder)}
    for name in names:
        while "/" in name:
            name = name.rpartition("/")[0]
            folders.add(f"{folder}/{name}")
    for path in folders:
        _change_mode(path, taken=0, given=0o700)
    for name in names:
        _change_mode(f"{folder}/{name}", taken=0o222, given=0o400)


def _change_mode(path: str, taken: int, given: int) -> None:
    mode = os.stat(path).st_mode & 0o7777  # noqa: PTH116 (thousands of times a second)
    wanted = mode & ~taken | given
    if mode != wanted:
        try:
            os.chmod(path, wanted)  # noqa: PTH101
        except OSError as error:
            # Some file systems have no modes, or only one.
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise


def _read(parts: dict[str, Part]) -> list[tuple[str, Part, Any]]:
    found = []
    for name, part in parts.items():
        try:
            found.append((name, part, part.read()))
        except Exception:  # noqa: S112
            # A library may refuse to tell, if somebody has used two ways of setting one thing.
            continue
    return found


def _spoil(reason: str) -> None:
    PROCESS.spoil(reason)


def _counted(names: Collection[str], one: str, several: str) -> str:
    return one if len(names) == 1 else f"{len(names)} {several}"


# --- threads


def _is_kept(thread: threading.Thread) -> bool:
    home = type(thread).__module__
    if home == "threading":
        # A thread of C that has once called Python is a dummy.
        home = getattr(getattr(thread, "_target", None), "__module__", None) or ""
    dummy = isinstance(thread, threading._DummyThread)
    return dummy or f"{home}.".startswith(_KEPT_MODULES) or str(thread.name).startswith(_KEPT_NAMES)


# --- child processes

#: Modules whose `_resource_tracker` runs a program for all their callers.
_TRACKERS = (
    "multiprocessing.resource_tracker",
    "multiprocess.resource_tracker",  # of Hugging Face's datasets
    "joblib.externals.loky.backend.resource_tracker",
)


#: `PR_SET_CHILD_SUBREAPER` and `PR_GET_CHILD_SUBREAPER` of prctl(2).
_SET_SUBREAPER, _GET_SUBREAPER = 36, 37
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _adopt_orphans(wanted: bool) -> bool:
    """Have children of our children become ours when their parent ends, or no longer; return how it was before.

    So no daemon gets away.
    """
    before = ctypes.c_int(0)
    if _prctl:
        _prctl(_GET_SUBREAPER, ctypes.byref(before), 0, 0, 0)
        if bool(before.value) != wanted:
            _prctl(_SET_SUBREAPER, int(wanted), 0, 0, 0)
    return bool(before.value)


def _children(threads: Collection[threading.Thread]) -> set[int]:
    """List the child processes, but not those of other threads of ours that were there before the step."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (ChildProcessError, AttributeError):
        # There is none: a microsecond. Or the platform does not say.
        return set()
    ours = threading.current_thread(), threading.main_thread()
    others = {str(thread.native_id) for thread in threads if thread not in ours}
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for number in set(os.listdir("/proc/self/task")) - others:  # noqa: PTH208
            # A thread may end meanwhile.
            with contextlib.suppress(OSError):
                found.update(map(int, Path(f"/proc/self/task/{number}/children").read_bytes().split()))
    trackers = (getattr(sys.modules.get(name), "_resource_tracker", None) for name in _TRACKERS)
    return found - {getattr(tracker, "_pid", None) for tracker in trackers}


def _reaped(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG)[0] == child
    except ChildProcessError:
        # Somebody else has.
        return True


def _name_of(child: int) -> str:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        return f"{child} ({words[:60]!a})"
    return str(child)

"""What a stage may do to its process that nobody expects: to the state of it, by what it leaves, and by ending it."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import ctypes
import gc
import locale
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

Misdeed = Callable[[Path], object]

#: Seconds after which what was left behind writes into what was committed; the tests wait for longer.
LATER = 2.0


def fail(*_: object) -> NoReturn:
    """In the place of a function that others need."""
    raise RuntimeError("not what it was")


class PanicException(BaseException):
    """As PyO3 raises it where Rust panics."""


# --- what is put back


def _other_environment(out: Path) -> None:
    os.environ.update(OMP_NUM_THREADS="64", TMPDIR="/nowhere", NEW="1")
    del os.environ["PATH"]


def _other_mapping(out: Path) -> None:
    os.environ = {}  # type: ignore[assignment]  # noqa: B003


def _deaf(out: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)


def _numpy(out: Path) -> None:
    import numpy

    numpy.seterr(all="raise")


def _no_input(out: Path) -> None:
    # A worker of Ray has none.
    if sys.stdin:
        sys.stdin.close()
    with contextlib.suppress(OSError):
        os.close(0)


def _few_files(out: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def _without_json(out: Path) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == "json"]:
        del sys.modules[name]


def _no_path(out: Path) -> None:
    sys.path[:] = ["/nowhere"]


def _block(out: Path) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})


def _shallow(out: Path) -> None:
    sys.setrecursionlimit(sys.getrecursionlimit() // 4)


def _traced(out: Path) -> None:
    sys.settrace(lambda *_: None)
    sys.setprofile(lambda *_: None)
    threading.settrace(lambda *_: None)


def _replace(module: Any, *names: str) -> Misdeed:
    return lambda out: [setattr(module, name, fail) for name in names]


def _remove_locale(out: Path) -> None:
    locale.setlocale(locale.LC_ALL, "C" if locale.setlocale(locale.LC_ALL) != "C" else "C.UTF-8")


#: They succeed, and are not noticed by whoever comes next.
PUT_BACK: Mapping[str, Misdeed] = {
    "other_folder": os.chdir,
    "other_environment": _other_environment,
    "other_mapping": _other_mapping,
    "umask": lambda out: os.umask(0o777),
    "deaf": _deaf,
    "blocked": _block,
    "timer": lambda out: signal.setitimer(signal.ITIMER_REAL, 0.2),
    "numpy": _numpy,
    "no_input": _no_input,
    "few_files": _few_files,
    # Only root may take it back.
    **({"nice": lambda out: os.nice(5)} if os.geteuid() == 0 else {}),
    "one_core": lambda out: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    "without_json": _without_json,
    "no_path": _no_path,
    "shallow": _shallow,
    "traced": _traced,
    "no_collector": lambda out: gc.disable(),
    "warnings": lambda out: warnings.simplefilter("error"),
    "locale": _remove_locale,
    "sockets": lambda out: socket.setdefaulttimeout(0.001),
    "no_print": _replace(builtins, "print", "open", "len", "isinstance", "sorted", "dict", "set", "zip"),
    "no_time": _replace(time, "time", "monotonic", "perf_counter", "sleep"),
    "no_os": _replace(
        os, "rename", "open", "stat", "lstat", "scandir", "listdir", "getpid", "fstat", "chmod", "getcwd"
    ),
}


# --- what is left behind


def _late_writer(daemon: bool) -> Misdeed:
    def start(out: Path) -> None:
        # Whoever has a file open may write when it is read-only.
        stream = (out / "number.txt").open("a")

        def write() -> None:
            # For longer than a busy machine takes to look after it.
            with stream:
                for _ in range(8):
                    time.sleep(LATER / 4)
                    stream.write("later")
                    stream.flush()

        threading.Thread(target=write, name="late", daemon=daemon).start()

    return start


def _fork(out: Path) -> None:
    if not os.fork():
        time.sleep(60)
        os._exit(0)


def _daemon(out: Path) -> None:
    """A child of a child, in a session of its own, that writes again and again."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    with (out / "number.txt").open("a", buffering=1) as stream:
        for _ in range(600):
            stream.write("from a daemon\n")
            time.sleep(0.1)
    os._exit(0)


#: They succeed, and their process runs no other step.
WRITERS: Mapping[str, Misdeed] = {"thread": _late_writer(False), "daemon_thread": _late_writer(True)}
#: Likewise; what they leave is ended before their files are looked at.
LEFT: Mapping[str, Misdeed] = {
    "fork": _fork,
    "daemon": _daemon,
    "program": lambda out: subprocess.Popen(["sleep", "60"]),
    "session": lambda out: subprocess.Popen(["sleep", "60"], start_new_session=True),
    "shell": lambda out: os.system("sleep 60 & sleep 61 &"),
}


def _forked_twice(out: Path) -> None:
    """Both return from the stage."""
    os.fork()


#: They leave what ends by itself, and cost nothing.
ENDED: Mapping[str, Misdeed] = {
    "forked": _forked_twice,
    "short_thread": lambda out: threading.Thread(target=time.sleep, args=(0.05,)).start(),
    "short_program": lambda out: subprocess.Popen(["true"]),
}


# --- what ends the process

#: They end their process.
DEADLY: Mapping[str, Misdeed] = {
    "os_exit": lambda out: os._exit(0),
    "segfault": lambda out: ctypes.string_at(0),
    "closes": lambda out: os.closerange(3, 4096),
    "killed": lambda out: os.kill(os.getpid(), signal.SIGKILL),
}


# --- what is raised, written and printed


def _raise(error: BaseException) -> None:
    raise error


def _many_files(out: Path) -> None:
    for number in range(2_000):
        (out / f"{number}").touch()


def _many_words(out: Path) -> None:
    for _ in range(200):
        os.write(1, b"word " * 200_000)


def _reads_all() -> bool:
    """Whether no mode keeps us from reading a file, as root."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).chmod(0)
        return os.access(file.name, os.R_OK)


def _locked(out: Path) -> None:
    (out / "folder").mkdir()
    (out / "folder" / "file").touch()
    (out / "folder").chmod(0o555)


#: As in `toy.ODD`: what they do, how their attempts end, and what their errors speak of.
SAID: Mapping[str, tuple[Misdeed, str, str]] = {
    "panic": (lambda out: _raise(PanicException("called `Option::unwrap()`")), "failed", "Option::unwrap"),
    "interrupts": (
        lambda out: _raise(BaseExceptionGroup("g", [KeyboardInterrupt(), asyncio.CancelledError()])),
        "failed",
        "g (2 sub-exceptions)",
    ),
    "over_output": (lambda out: os.dup2(os.open(os.devnull, os.O_WRONLY), 1), "succeeded", ""),
    "many_files": (_many_files, "succeeded", ""),
    "many_words": (_many_words, "succeeded", ""),
    "unreadable": (
        lambda out: (out / "number.txt").chmod(0),
        *(("succeeded", "") if _reads_all() else ("rejected", "number.txt cannot be read back")),
    ),
    "locked_folder": (_locked, "succeeded", ""),
    "locked": (lambda out: out.chmod(0o555), "succeeded", ""),
}


def _with_process(misdeed: Misdeed) -> Misdeed:
    """The log says which process it was."""
    return lambda out: (print(os.getpid(), flush=True), misdeed(out))


#: Those that cost them their process.
COSTLY = {name: _with_process(misdeed) for name, misdeed in {**WRITERS, **LEFT, **DEADLY}.items()}
#: All others, as `SAID`.
CHEAP = {**SAID, **{name: (misdeed, "succeeded", "") for name, misdeed in {**PUT_BACK, **ENDED}.items()}}
#: Name -> what a stage does.
ALL: Mapping[str, Misdeed] = {**{name: misdeed for name, (misdeed, *_) in CHEAP.items()}, **COSTLY}

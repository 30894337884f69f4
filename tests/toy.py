"""Toy stages for tests of the orchestrator: real functions that add, fail, hang, crash or lie on request."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import importlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import workers
from workers import config as configs
from workers.device import device
from workers.metric import Metric, Undefined
from workers.model_cache import cached_model
from workers.stage import Call, Input, Stage

Behaviour = Literal[
    "work", "raise", "crash", "crash_once", "hang", "no_metric", "extra_metric", "nan", "memory", "disk_full",
    "print", "slow", "tell", "nap", "exit", "gobble", "markup", "undefined", "look", "compute", "sick", "sick_once",
    "account", "cancel_together", "cancel_later", "odd_file", "stuck",
]  # fmt: skip

Metrics = Mapping[str, float | Undefined]

#: What a page must show as it is.
MARKUP = "<script>window.pwned = 1</script> [a link](javascript:alert(1)) **bold** $x$ `code` :red[red]"


class SourceConfig(configs.Config):
    """A number from nowhere."""

    value: float
    shard: int = 0
    shards: int = 1
    behaviour: Behaviour = "work"
    marker: str = ""
    """A file that `crash_once` leaves behind so that it crashes only once."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return (Metric("value", shards="sum"),)


class AskConfig(configs.Config):
    """Asks a model something."""

    model: str
    question: int

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("answer",)


class BandConfig(configs.Config):
    """Steps of a group are done together."""

    group: str = ""
    value: float
    behaviour: Behaviour = "work"

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("answer",)


class OddConfig(configs.Config):
    """Does something that nobody expects of a stage."""

    value: float
    behaviour: str = "work"
    """"work", or one of ODD, ODD_METRICS or `misdeeds.ALL`."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return (Metric("value", nullable=True),)


class TotalConfig(configs.Config):
    """Adds up its inputs."""

    add: float = 0
    behaviour: Behaviour = "work"
    marker: str = ""

    def metrics(self) -> tuple[str | Metric, ...]:
        return (Metric("total", nullable=True, shards="sum"),)


def source(config: SourceConfig, out: Path) -> Metrics:
    value = config.value + config.shard
    (out / "number.txt").write_text(str(value))
    return _behave(config.behaviour, config.marker, {"value": value})


def wait(path: str | Path) -> None:
    """Until somebody makes a file."""
    while not Path(path).exists():
        time.sleep(0.02)


def pieces(config: SourceConfig, out: Path) -> Metrics:
    """Three files, each into a folder that is made if need be; after the first it says so, and waits until it may."""
    said = Path(config.marker)
    for number in range(3):
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{number}.txt").write_text(str(config.value))
        (said / "begun").touch()
        wait(said / "go")
    return _behave(config.behaviour, "", {"value": config.value})


def double(config: TotalConfig, out: Path, *, number: Path) -> Metrics:
    value = 2 * float((number / "number.txt").read_text()) + config.add
    (out / "number.txt").write_text(str(value))
    return _behave(config.behaviour, config.marker, {"total": value})


def ask(config: AskConfig, out: Path) -> dict[str, float]:
    def load() -> int:
        with Path(os.environ["TOY_TRACE"]).open("a") as stream:
            stream.write(f"load {config.model}\n")
        return len(config.model)

    time.sleep(0.05)
    return {"answer": float(cached_model(config.model, load) + config.question)}


def band(config: BandConfig, out: Path) -> Metrics:
    if config.behaviour == "odd_file":
        os.mkfifo(out / "pipe")
    return _behave(config.behaviour, "", {"answer": config.value})


def bands(calls: Sequence[Call]) -> Iterator[dict[str, float] | None]:
    """As `band` for each; who crashes does so in the work that all share."""
    with Path(os.environ["TOY_TRACE"]).open("a") as stream:
        stream.write(f"together {len(calls)}\n")
    for call in calls:
        if call.config.behaviour in ("crash", "hang"):
            _behave(call.config.behaviour, "", {})
        if call.config.behaviour == "no_metric":
            raise ValueError("nothing works together")
        if call.config.behaviour == "cancel_together":
            raise asyncio.CancelledError
    for call in calls:
        (call.out / "answer.txt").write_text(str(call.config.value))
        if call.config.behaviour == "odd_file":
            os.mkfifo(call.out / "pipe")
    return _all_answered(calls)


def _all_answered(calls: Sequence[Call]) -> Iterator[dict[str, float] | None]:
    with ThreadPoolExecutor(1) as pool:
        yield from pool.map(_answered, calls)


def _answered(call: Call) -> dict[str, float] | None:
    if call.config.behaviour == "cancel_later":
        raise asyncio.CancelledError
    return {"answer": call.config.value} if call.config.behaviour in ("work", "odd_file") else None


def total(config: TotalConfig, out: Path, *, numbers: list[Path]) -> Metrics:
    value = sum(float((number / "number.txt").read_text()) for number in numbers) + config.add
    (out / "number.txt").write_text(str(value))
    return _behave(config.behaviour, config.marker, {"total": value})


class UnspeakableError(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class HostileMetrics(Mapping[str, float]):
    """Metrics that cannot be read."""

    def __getitem__(self, name: str) -> float:
        raise RuntimeError("no such thing")

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("nothing to see")


#: An error message that would fool a terminal: a lone surrogate, colours, a title, a line that is written over.
SHADY = "an \udcff odd \x1b[31mword\x1b]0;title\x07\x1b[2J\rdone \x9b1m\nsecond\tline"


def _raise(error: BaseException) -> None:
    raise error


def _in_the_place_of_the_folder(out: Path) -> None:
    shutil.rmtree(out)
    out.symlink_to("/tmp")


def _deep(out: Path) -> None:
    """Many folders in each other."""
    here = os.open(out, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)


def _socket(out: Path) -> None:
    # The name of a socket has at most 107 characters.
    before = os.open(".", os.O_RDONLY)
    os.chdir(out)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
    os.fchdir(before)
    os.close(before)


def _shady_log(out: Path) -> None:
    os.write(1, SHADY.encode("utf-8", "surrogateescape"))
    raise ValueError(SHADY)


def _new_streams(out: Path) -> None:
    sys.stdout = sys.stderr = None


def _closed(out: Path) -> None:
    print("before")
    for stream in (sys.stdout, sys.__stdout__, sys.stderr, sys.__stderr__):
        assert stream is not None
        stream.close()
    os.close(1)
    os.close(2)
    raise ValueError("after")


#: What a stage may do that nobody expects: what it does, how its attempt ends, and what its error speaks of.
ODD: Mapping[str, tuple[Callable[[Path], object], str, str]] = {
    "link": (lambda out: (out / "link").symlink_to("nowhere"), "rejected", "link is a symbolic link to 'nowhere'"),
    "absolute_link": (
        lambda out: (out / "passwd").symlink_to("/etc/passwd"),
        "rejected",
        "symbolic link to '/etc/passwd'",
    ),
    "folder_link": (lambda out: (out / "folder").symlink_to("/etc"), "rejected", "folder is a symbolic link to '/etc'"),
    "socket": (_socket, "rejected", "socket is a socket"),
    "fifo": (lambda out: os.mkfifo(out / "pipe"), "rejected", "pipe is a FIFO"),
    "device": (lambda out: os.mknod(out / "null", 0o20666, os.makedev(1, 3)), "rejected", "null is a character device"),
    "manifest": (lambda out: (out / "manifest.json").write_text("{}"), "rejected", "manifest.json"),
    "removed": (shutil.rmtree, "io_error", "output folder"),
    "replaced": (_in_the_place_of_the_folder, "io_error", "output folder"),
    "not_utf8": (lambda out: Path(os.fsdecode(os.fsencode(out) + b"/caf\xe9")).touch(), "rejected", "caf\\udce9"),
    "newline": (lambda out: (out / "two\nlines").touch(), "rejected", "two\\nlines"),
    "deep": (_deep, "rejected", "too long"),
    "cancelled": (lambda out: _raise(asyncio.CancelledError()), "failed", "CancelledError"),
    "sys_exit": (lambda out: sys.exit(0), "failed", "sys.exit(0)"),
    "keyboard": (lambda out: _raise(KeyboardInterrupt()), "failed", "KeyboardInterrupt"),
    "generator_exit": (lambda out: _raise(GeneratorExit()), "failed", "GeneratorExit"),
    "group": (lambda out: _raise(BaseExceptionGroup("two", [SystemExit(1), ValueError("x")])), "failed", "two"),
    "unspeakable": (lambda out: _raise(UnspeakableError()), "failed", "UnspeakableError"),
    "shady": (_shady_log, "failed", "an \\udcff odd word\ndone"),
    "closed": (_closed, "failed", "after"),
    "silent": (lambda out: _raise(ValueError("\x1b[0m\n")), "failed", "ValueError"),
    "open_files": (lambda out: _raise(OSError(errno.EMFILE, "Too many open files")), "io_error", "ulimit -n"),
    "no_right": (lambda out: _raise(PermissionError(errno.EACCES, "Permission denied", "/x")), "failed", "/x"),
    "elsewhere_full": (
        lambda out: _raise(OSError(errno.EROFS, "Read-only file system", "/proc/x")),
        "failed",
        "/proc/x",
    ),
    "no_streams": (_new_streams, "succeeded", ""),
    "elsewhere": (os.chdir, "succeeded", ""),
}

#: Metrics that are none, and what the error speaks of.
ODD_METRICS: Mapping[str, tuple[object, str]] = {
    "surrogate_name": ({"value": 1.0, "\udcff": 1.0}, "undeclared"),
    "complex": ({"value": 1j}, "expected a number"),
    "text": ({"value": "0.5"}, "expected a number"),
    "huge": ({"value": 10**400}, "expected a number"),
    "huger": ({"value": 10**5000}, "expected a number"),
    "hostile": (HostileMetrics(), "cannot be read"),
    "no_reason": ({"value": Undefined(None)}, "its reason is no text"),  # type: ignore[arg-type]
}


def odd(config: OddConfig, out: Path) -> object:
    (out / "number.txt").write_text(str(config.value))
    if config.behaviour in ODD:
        ODD[config.behaviour][0](out)
    elif config.behaviour != "work" and config.behaviour not in ODD_METRICS:
        # Not by an `import`, which would make it code of every toy stage.
        importlib.import_module("misdeeds").ALL[config.behaviour](out)
    return ODD_METRICS[config.behaviour][0] if config.behaviour in ODD_METRICS else {"value": config.value}


def _behave(behaviour: Behaviour, marker: str, metrics: dict[str, float]) -> Metrics:
    if trace := os.environ.get("TOY_TRACE"):
        # One line per call, whatever becomes of it.
        with Path(trace).open("a") as stream:
            stream.write(behaviour + "\n")
    if behaviour == "raise":
        raise ValueError("the toy was told to raise")
    if behaviour == "account":
        print("paid by", os.environ.get("SWEEP_ACCOUNT"))
    if behaviour == "markup":
        print(MARKUP)
        raise ValueError(MARKUP)
    if behaviour == "crash" or (behaviour == "crash_once" and not Path(marker).exists()):
        if marker:
            Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "exit":
        os._exit(7)
    if behaviour == "look":
        seen = {"process": os.getpid(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "code": workers.__file__}
        print(json.dumps(seen))
    if behaviour == "compute":
        print(device())
    if behaviour == "sick" or (behaviour == "sick_once" and not Path(marker).exists()):
        if marker:
            Path(marker).touch()
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
    if behaviour == "hang":
        time.sleep(600)
    if behaviour == "stuck":
        # Waits in C, deaf to signals, and no thread gets its turn.
        mutex = ctypes.create_string_buffer(64)
        for _ in range(2):
            ctypes.PyDLL(None).pthread_mutex_lock(mutex)
    if behaviour == "nap":
        time.sleep(0.02)
    if behaviour == "slow":
        time.sleep(0.5)
    if behaviour == "tell":
        print("optimizer steps: 3 of 60 in 2 s, about 38 s left", flush=True)
        time.sleep(6)
    if behaviour == "gobble":
        # Touched, so that it is really taken, and held until somebody notices.
        taken = [bytes(50 * 2**20).replace(b"\0", b"x") for _ in range(100)]
        time.sleep(30)
        assert taken
    if behaviour == "memory":
        raise MemoryError("the toy was told to run out of memory")
    if behaviour == "disk_full":
        raise OSError(errno.ENOSPC, "No space left on device")
    if behaviour == "print":
        print("a word to stdout")
        print("a word to stderr", file=sys.stderr)
        os.system("echo a word from a child")
    if behaviour == "no_metric":
        return {}
    if behaviour == "extra_metric":
        return {**metrics, "surprise": 1.0}
    if behaviour == "nan":
        return dict.fromkeys(metrics, float("nan"))
    if behaviour == "undefined":
        return dict.fromkeys(metrics, Undefined("the toy was told not to know"))
    return metrics


STAGES = {
    "toy_source": Stage("toy:source", 1, SourceConfig, "number"),
    "toy_odd": Stage("toy:odd", 1, OddConfig, "number"),
    "toy_pieces": Stage("toy:pieces", 1, SourceConfig, "number"),
    "toy_ask": Stage("toy:ask", 1, AskConfig, "number", loads=("model",)),
    "toy_band": Stage("toy:band", 1, BandConfig, "number", loads=("group",), together="toy:bands"),
    "toy_double": Stage("toy:double", 1, TotalConfig, "number", {"number": Input("number")}),
    "toy_total": Stage("toy:total", 1, TotalConfig, "number", {"numbers": Input("number", many=True)}),
}
"""The toy stages, for sweeps with `uses: [toy]`."""


def runtime_env() -> dict[str, Any]:
    """What makes the toy stages known to Ray workers."""
    tests = Path(__file__).parent
    return {
        "env_vars": {"PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])},
    }


def connect() -> None:
    """Start a local Ray on two cores whose workers know the toy stages."""
    from orchestrator.run.executors.ray_start import start_ray

    start_ray(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=runtime_env())

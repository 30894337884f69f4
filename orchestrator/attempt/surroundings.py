"""What of this process a stage may change and finds as it was at its next call: read before a step, put back after it.

Every part is compared with what was read right before the step, after the imports and limits of `PROCESS.prepare`. What
reading costs is in `tests/benchmarks/bench_seal.py`. Generators of random numbers are not here: stages draw from
generators of their own, made of a seed.
"""

from __future__ import annotations

import builtins
import gc
import locale
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
import time
import warnings

#: `signal.getsignal` takes thirty times as long, since it looks for a name of each handler.
from _signal import getsignal  # type: ignore[import-not-found]
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple


class Part(NamedTuple):
    """A part of the state of this process."""

    read: Callable[[], Any]
    """Returns it, None where there is none; two are compared with `==`."""
    restore: Callable[[Any], object]
    """Puts back what was read; raises OSError or ValueError where that is impossible."""


def _dictionary(names: dict[str, Any]) -> Part:
    """The names of a module, some of which a stage may have replaced; what it added stays."""
    return Part(names.copy, names.update)


# --- Python


def _read_hooks() -> tuple[Any, ...]:
    return sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.getprofile(), sys.excepthook


def _restore_hooks(hooks: tuple[Any, ...]) -> None:
    trace, profile, of_threads, profile_of_threads, sys.excepthook = hooks
    sys.settrace(trace)
    sys.setprofile(profile)
    threading.settrace(of_threads)
    threading.setprofile(profile_of_threads)


def _restore_collector(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()


def _restore_path(before: list[str]) -> None:
    # What a library added while it was imported is needed by what it imports later.
    sys.path[:] = before + [each for each in sys.path if each not in before]


#: Modules of Python that any step may need; another copy of one has other classes.
_MODULES = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in sys.stdlib_module_names}


def _restore_modules(_before: int) -> None:
    for name, module in _MODULES.items():
        sys.modules.setdefault(name, module)


def _restore_filters(before: list[Any]) -> None:
    warnings.resetwarnings()
    warnings.filters[:] = before  # type: ignore[index]


def _restore_start_method(method: str | None) -> None:
    multiprocessing.set_start_method(method, force=True)


# --- the process


def _read_folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 (a third of the time, for each step)
    except OSError:
        # Somebody removed it.
        return None


def _restore_folder(before: str | None) -> None:
    if before is not None:
        os.chdir(before)


def _read_umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _read_environment() -> dict[bytes, bytes]:
    # What is behind the mapping: reading that decodes every variable.
    return dict(os.environ._data)  # type: ignore[attr-defined]


def _restore_environment(before: Mapping[bytes, bytes]) -> None:
    for name in _read_environment().keys() - before.keys():
        del os.environb[name]
    for name, value in before.items():
        # Also those that are equal: a stage may have told only one of Python and C.
        os.environb[name] = value


def _read_input() -> tuple[Any, tuple[int, int] | None]:
    try:
        found = os.fstat(0)
        return sys.stdin, (found.st_dev, found.st_ino)
    except OSError:
        return sys.stdin, None


def _restore_input(before: tuple[Any, tuple[int, int] | None]) -> None:
    stream, file = before
    if file and _read_input()[1] != file:
        # The next file that is opened must not become the input of child processes.
        nothing = os.open(os.devnull, os.O_RDONLY)
        if nothing:
            os.dup2(nothing, 0)
            os.close(nothing)
        # Where 0 was free, Python keeps it from child processes.
        os.set_inheritable(0, True)
    sys.stdin = open(0, closefd=False) if stream is not None and stream.closed else stream  # noqa: SIM115


_LIMITS = [
    getattr(resource, f"RLIMIT_{name}")
    for name in ("AS", "CORE", "CPU", "DATA", "FSIZE", "NOFILE", "NPROC", "STACK")
    if hasattr(resource, f"RLIMIT_{name}")
]


def _read_limits() -> list[tuple[int, int]]:
    return [resource.getrlimit(limit) for limit in _LIMITS]


def _restore_limits(before: list[tuple[int, int]]) -> None:
    for limit, values in zip(_LIMITS, before, strict=True):
        # Raises where the hard limit was lowered and we are not root.
        resource.setrlimit(limit, values)


def _read_priority() -> tuple[int, Any]:
    return os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def _restore_priority(before: tuple[int, Any]) -> None:
    niceness, cores = before
    if cores:
        os.sched_setaffinity(0, cores)
    os.setpriority(os.PRIO_PROCESS, 0, niceness)


# --- signals

_SIGNALS = sorted(set(range(1, 32)) & signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


def _read_handlers() -> list[Any] | None:
    if threading.current_thread() is not threading.main_thread():
        # Here a stage cannot set one, and the main thread may at any time.
        return None
    return [getsignal(number) for number in _SIGNALS]


def _restore_handlers(before: list[Any] | None) -> None:
    for number, handler in zip(_SIGNALS, before or (), strict=False):
        now = getsignal(number)
        # None is a handler that was not set by Python, and cannot be restored. The DataLoader of torch sets one for
        # SIGCHLD, once and for all.
        if handler is not None and now != handler and not (number == signal.SIGCHLD and callable(now)):
            signal.signal(number, handler)


def _read_mask() -> set[Any]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _restore_mask(before: set[Any]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _read_timers() -> list[tuple[float, float]]:
    """When each timer rings, by the monotonic clock, and how often then; 0 for one that is off."""
    timers = [signal.getitimer(each) for each in _TIMERS]
    return [(time.monotonic() + left if left else 0.0, interval) for left, interval in timers]


def _restore_timers(before: list[tuple[float, float]]) -> None:
    for each, (rings, interval) in zip(_TIMERS, before, strict=True):
        # One that has rung meanwhile has done so for whoever set it.
        signal.setitimer(each, max(0.0, rings - time.monotonic()) if rings else 0.0, interval)


# --- libraries, if they are loaded


def _read_numpy() -> Any:
    numpy = sys.modules.get("numpy")
    return numpy.geterr() if numpy else None


def _restore_numpy(before: Any) -> None:
    # Where the step imported it: its defaults (numpy.seterr).
    sys.modules["numpy"].seterr(**before or {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"})


#: Where torch keeps how it multiplies float32, what is general before what is particular, with its defaults.
_PRODUCTS = {
    "backends": "none", "backends.cudnn": "none", "backends.mkldnn": "none", "backends.cuda.matmul": "none",
    "backends.cudnn.conv": "tf32", "backends.cudnn.rnn": "tf32", "backends.mkldnn.matmul": "none",
    "backends.mkldnn.conv": "none", "backends.mkldnn.rnn": "none",
}  # fmt: skip


def _read_torch() -> Any:
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    cudnn = torch.backends.cudnn
    return (
        torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled(), _read_products(torch),
        torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_num_threads(), cudnn.benchmark, cudnn.deterministic,
    )  # fmt: skip


def _read_products(torch: Any) -> tuple[str, bool, list[str]]:
    """Read how float32 is multiplied: by the older names, which raise where newer ones were used, and by the newer."""
    try:
        older = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        older = "highest", True
    return *older, [attrgetter(place)(torch).fp32_precision for place in _PRODUCTS]


def _restore_torch(before: Any) -> None:
    torch = sys.modules["torch"]
    cudnn = torch.backends.cudnn
    if before is None:
        # The step imported it: its defaults.
        products = ("highest", True, list(_PRODUCTS.values()))
        before = (
            torch.float32,
            torch.device("cpu"),
            True,
            products,
            False,
            False,
            torch.get_num_threads(),
            False,
            False,
        )
    dtype, device, gradients, products, deterministic, only_warn, threads, *flags = before
    if torch.get_default_device() != device:
        # None is the CPU without the detour that any other choice takes.
        torch.set_default_device(None if device.type == "cpu" else device)
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(gradients)
    older, cudnn.allow_tf32, newer = products
    torch.set_float32_matmul_precision(older)
    for place, precision in zip(_PRODUCTS, newer, strict=True):
        attrgetter(place)(torch).fp32_precision = precision
    torch.use_deterministic_algorithms(deterministic, warn_only=only_warn)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    cudnn.benchmark, cudnn.deterministic = flags


#: Parts that nothing of ours changes between two steps of a bundle, unless it imports something. First what everything
#: else here needs.
STEADY: dict[str, Part] = {
    "the recursion limit": Part(sys.getrecursionlimit, sys.setrecursionlimit),
    "tracing": Part(_read_hooks, _restore_hooks),
    "builtins": _dictionary(vars(builtins)),
    "os": _dictionary(vars(os)),
    "time": _dictionary(vars(time)),
    "the working directory": Part(_read_folder, _restore_folder),
    "the umask": Part(_read_umask, os.umask),
    "standard input": Part(_read_input, _restore_input),
    "resource limits": Part(_read_limits, _restore_limits),
    "the priority": Part(_read_priority, _restore_priority),
    "blocked signals": Part(_read_mask, _restore_mask),
    "the garbage collector": Part(gc.isenabled, _restore_collector),
    "the locale": Part(lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)),
    "how processes are started": Part(lambda: multiprocessing.get_start_method(allow_none=True), _restore_start_method),
    "the timeout of sockets": Part(socket.getdefaulttimeout, socket.setdefaulttimeout),
}
#: The others, which are read before every step.
CHANGING: dict[str, Part] = {
    "the environment": Part(_read_environment, _restore_environment),
    "signal handlers": Part(_read_handlers, _restore_handlers),
    "timers": Part(_read_timers, _restore_timers),
    # One that is taken out while another is imported goes unnoticed: to look for each of them takes 10 µs.
    "loaded modules": Part(lambda: len(sys.modules), _restore_modules),
    "the import path": Part(sys.path.copy, _restore_path),
    "filters of warnings": Part(lambda: list(warnings.filters), _restore_filters),
    "numpy's errors": Part(_read_numpy, _restore_numpy),
    "torch's settings": Part(_read_torch, _restore_torch),
}
PARTS: dict[str, Part] = {**STEADY, **CHANGING}

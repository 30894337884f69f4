"""This machine: clock, limits, memory that is shared, name, and room for what is fetched and written meanwhile."""

from __future__ import annotations

import os
import resource
import socket
import tempfile
import time
from pathlib import Path

import psutil

from orchestrator.code import PACKAGES
from orchestrator.doctor.devices import gpus
from orchestrator.doctor.examination import Probe
from orchestrator.doctor.file_system import existing, room
from orchestrator.doctor.finding import Finding, ok, warning, wrong
from orchestrator.doctor.packages import requirements
from orchestrator.store.cache import cache_folder
from orchestrator.store.process import UNKNOWN, this_process

#: Open files that Ray asks for (`ray start` warns below it), and those that a driver needs at least.
_FILES, _FEWEST_FILES = 4096, 256
#: The share of memory that Ray wants of /dev/shm for its objects, and the bytes it takes at least.
_SHARE, _OBJECTS = 0.3, 78 * 2**20
#: Bytes that logs, temporary files and copies of artifacts should have.
_SPACE = 2 * 2**30


def machine_probes() -> list[Probe]:
    """Return the probes of this machine."""
    return [
        Probe("Python and packages", requirements, 30.0),
        Probe("clock", lambda: [clock()]),
        Probe("limits", lambda: [open_files(), shared_memory()]),
        Probe("host name", lambda: [host_name()]),
        Probe("processes", lambda: [processes()]),
        Probe("room", rooms),
        Probe("GPUs", lambda: [gpus()], 90.0),
    ]


def node_findings() -> list[Finding]:
    """Look at what every node of a cluster needs."""
    return [open_files(), shared_memory(), *rooms()]


def rooms() -> list[Finding]:
    """Tell how much room there is for what is fetched, and for what is written meanwhile."""
    return [
        room("cache", existing(cache_folder()), _SPACE),
        room("temporary files", Path(tempfile.gettempdir()), _SPACE),
    ]


def clock() -> Finding:
    """Tell whether the clock can be right: no clock is before what was written by it."""
    written = max(path.stat().st_mtime for place in PACKAGES for path in place.rglob("*.py"))
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < written - 3600:
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(written))
        seen = f"{shown}, which is before this package was installed ({when})"
        return wrong("clock", f"{seen}: certificates and signatures are refused", "set it by NTP")
    return ok("clock", shown)


def open_files() -> Finding:
    """Tell how many files a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Ray raises its own limit as far as it may.
    most = float("inf") if hard == resource.RLIM_INFINITY else hard
    seen = f"{_count(soft)} (ulimit -n), at most {_count(hard)}"
    remedy = f"ulimit -n {_FILES} or more, where Ray and sweep are started"
    if most < _FEWEST_FILES or 0 <= soft < _FEWEST_FILES:
        return wrong("open files", f"{seen}: a driver opens more", remedy)
    if most < _FILES:
        return warning("open files", f"{seen}: Ray wants {_FILES:,}", remedy)
    return ok("open files", seen)


def _count(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else f"{limit:,}"


def shared_memory() -> Finding:
    """Tell whether Ray finds room for its objects in /dev/shm."""
    name, place = "shared memory", Path("/dev/shm")  # noqa: S108 (Ray's place)
    if not place.is_dir():
        return ok(name, "there is no /dev/shm; Ray keeps its objects in files")
    status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize
    wanted = max(_SHARE * psutil.virtual_memory().available, _OBJECTS)
    seen = f"{free / 1e9:,.1f} GB free in /dev/shm"
    if free < wanted:
        remedy = "enlarge it: docker run --shm-size=…, or mount -o remount,size=50% /dev/shm"
        return warning(name, f"{seen}; Ray wants {wanted / 1e9:,.1f} GB, and takes slower files instead", remedy)
    return ok(name, seen)


def host_name() -> Finding:
    """Tell how this machine is called in records and messages."""
    name = socket.gethostname()
    if not name or name.partition(".")[0] in ("localhost", "(none)"):
        seen = f"{name!r}: records of steps do not tell where they ran; nothing else relies on it"
        return warning("host name", seen, "give the machine a name of its own (hostnamectl)")
    return ok("host name", name)


def processes() -> Finding:
    """Tell whether a dead process can be told from one of another machine."""
    space = this_process().space
    if space == UNKNOWN:
        seen = "this platform or container does not tell in which space of processes it is (/proc)"
        return warning("processes", f"{seen}: what a dead driver held is free after three minutes only", "mount /proc")
    return ok("processes", f"in space {space}: what a process held that dies here is free at once")

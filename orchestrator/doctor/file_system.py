"""The file system below a folder: its kind, and what is free on it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.doctor.finding import Finding, ok, warning, wrong

#: Kinds that are gone with the machine's power, or with the container.
_FLEETING = {"tmpfs": "the memory of this machine", "ramfs": "the memory of this machine", "overlay": "a container"}
#: Kinds whose rules are not those of POSIX, or not for sure.
_FOREIGN = frozenset({"cifs", "smb3", "smbfs", "9p", "vboxsf", "vfat", "exfat", "ntfs", "ntfs3", "fuseblk", "sshfs"})
#: Mounted buckets: a folder there is a prefix, and a rename copies.
_BUCKETS = ("s3fs", "goofys", "mountpoint-s3", "gcsfuse", "blobfuse", "rclone", "geesefs")
#: Bytes below which a sweep may soon stop.
_FEW_BYTES = 2 * 2**30
#: Files likewise: a step makes a folder, a manifest, a log and what its stage writes.
_FEW_FILES = 10_000
#: Seconds that NFS may show a folder as it was (its default): the term of a lease counts on that.
_LATE = 60


@dataclass(frozen=True, slots=True)
class Mount:
    """Where and how a file system is mounted."""

    source: str
    place: str
    kind: str
    options: frozenset[str]


def mount_of(path: Path) -> Mount | None:
    """Return the mount that a path lies on (proc(5)); None where the platform does not tell."""
    try:
        lines = Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    whole = os.path.realpath(path)
    best: Mount | None = None
    for line in lines:
        source, place, kind, options, *_ = (_unescaped(word) for word in line.split(" "))
        inside = whole == place or whole.startswith(place.rstrip("/") + "/")
        # Of two mounts at one place the later one is seen.
        if inside and (best is None or len(place) >= len(best.place)):
            best = Mount(source, place, kind, frozenset(options.split(",")))
    return best


def _unescaped(word: str) -> str:
    for code, character in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        word = word.replace(code, character)
    return word


def kind_of(path: Path) -> Finding:
    """Tell what kind of file system a store lies on, and what that means for it."""
    mount = mount_of(path)
    return judge(mount) if mount else ok("file system", "its kind is unknown: there is no /proc/self/mounts")


def judge(mount: Mount) -> Finding:
    """Tell what a kind of file system means for a store on it."""
    name, seen = "file system", f"{mount.kind}, mounted at {mount.place}"
    program = mount.kind.removeprefix("fuse.")
    if mount.kind in _FLEETING:
        remedy = "choose a folder on a disk with --outputs or SWEEP_OUTPUTS"
        return warning(name, f"{seen}: it is in {_FLEETING[mount.kind]}, and gone with it", remedy)
    if program in _BUCKETS:
        return warning(
            name,
            f"{seen}: a mounted bucket renames by copying, so leases on it prove nothing",
            "give the bucket itself as the output root, e.g. --outputs s3://bucket/folder",
        )
    if program in _FOREIGN:
        return warning(
            name,
            f"{seen}: not a POSIX file system; what is promised of leases was never tried on one",
            "use a local disk, NFS or an object store, or let only one driver use it",
        )
    if mount.kind.startswith("nfs"):
        return _judge_nfs(mount, f"{seen}, of {mount.source}")
    return ok(name, seen)


def _judge_nfs(mount: Mount, seen: str) -> Finding:
    name = "file system"
    if mount.options & {"soft", "softerr"}:
        seen += ", with the option soft: a server that is slow for a while makes writes fail"
        return warning(name, seen, "mount it with the option hard")
    given = dict(each.partition("=")[::2] for each in mount.options)
    late = given.get("acdirmax") or given.get("actimeo") or ""
    if late.isdecimal() and int(late) > _LATE:
        seen += f": a folder may be shown as it was {late} s ago, and leases count on {_LATE}"
        return warning(name, seen, f"mount it with acdirmax={_LATE}")
    return ok(name, seen)


def room(name: str, folder: Path, few_bytes: int = _FEW_BYTES, few_files: int = _FEW_FILES) -> Finding:
    """Tell how much room there is for files in a folder, which exists."""
    status = os.statvfs(folder)
    free, inodes = status.f_bavail * status.f_frsize, status.f_favail
    # Some file systems have no fixed number of inodes, and say 0 of 0.
    counted = status.f_files > 0
    total = status.f_blocks * status.f_frsize
    seen = f"{_size(free)} of {_size(total)} free" + (f", {inodes:,} inodes" if counted else "") + f" at {folder}"
    more_bytes = "free some space, or choose another place"
    more_files = "delete files (many small ones), or choose another place"
    if total and free < min(few_bytes, total) // 20:
        return wrong(name, seen, more_bytes)
    if counted and inodes < few_files // 100:
        return wrong(name, f"{seen}: soon no file can be made there", more_files)
    if total and free < few_bytes:
        return warning(name, seen, more_bytes)
    if counted and inodes < few_files:
        return warning(name, seen, more_files)
    return ok(name, seen)


def existing(path: Path) -> Path:
    """Return the nearest folder above a path that exists and can be seen, or the path itself."""
    path = path.absolute()
    while not _is_there(path) and path != path.parent:
        path = path.parent
    return path


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        # Whoever may not look into a folder is told so of the folder.
        return False


def _size(count: float) -> str:
    """Write a number of bytes: "58.1 GB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"

"""The files of an artifact: listed with their digests, their names checked, compared with their manifest."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestrator.regular_file import IrregularFileError, kind_of, open_file
from orchestrator.store.errors import NO_FILE, DamagedArtifactError, UnfitError, passes
from orchestrator.texts import plain_text
from orchestrator.types import Manifest

#: The name of an artifact's own record, which no file of it may have.
MANIFEST = "manifest.json"
#: The path of a file in an artifact has at most so many bytes: the names of objects in S3 have at most 1,024, with the
#: store's own part of them.
_LONGEST = 512


def list_files(folder: Path) -> dict[str, tuple[int, str]]:
    """List every file below a folder that is to become an artifact: relative path -> (bytes, sha256).

    An artifact consists of regular files in folders: the target of a link may change or be gone tomorrow, or missing on
    another machine; a FIFO is never opened, since that may wait for ever.

    Raises:
        UnfitError: something else is there, or a file that cannot be read back, or whose name not every store takes.
        OSError: the files cannot be read for the moment.
    """
    try:
        return dict(sorted(_listed(folder)))
    except OSError as error:
        if passes(error):
            raise
        place = str(error.filename or folder).removeprefix(f"{folder}/")
        raise UnfitError(f"{_named(place)} cannot be read back: {error.strerror or error}") from error


def _listed(folder: Path) -> Iterator[tuple[str, tuple[int, str]]]:
    try:
        there = stat.S_ISDIR(os.lstat(folder).st_mode)
    except FileNotFoundError:
        there = False
    if not there:
        raise UnfitError(
            "its output folder is gone: a stage writes into the folder that it is given, and leaves it there"
        )
    ahead = [""]
    while ahead:
        below = ahead.pop()
        with os.scandir(f"{folder}/{below}") as listing:
            for item in listing:
                name = below + item.name
                check_name(name)
                if item.is_dir(follow_symlinks=False):
                    ahead.append(f"{name}/")
                else:
                    yield name, _digest(f"{folder}/{name}", name)


def check_name(name: str) -> None:
    """Refuse a file that could be committed and not be read back by every store and system.

    Raises:
        UnfitError: an artifact cannot hold a file of this name.
    """
    if name == MANIFEST:
        raise UnfitError(f"{name} is the name of the store's own record: choose another name, or a folder for it")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise UnfitError(f"the name of {_named(name)} is not UTF-8") from error
    if size > _LONGEST:
        raise UnfitError(f"{_named(name)} has a path of {size} bytes, which is too long: {_LONGEST} are allowed")
    if plain_text(name) != name or "\n" in name or "\t" in name:
        raise UnfitError(f"the name of {_named(name)} has control characters")
    if unfit_name([name]):
        raise UnfitError(f"the name of {_named(name)} has a backslash, which is a separator on some systems")


def _digest(path: str, name: str) -> tuple[int, str]:
    mode = os.lstat(path).st_mode
    if not stat.S_ISREG(mode):
        raise UnfitError(
            f"{_named(name)} is {_kind(path, mode)}; an artifact is made of regular files: copy what it holds"
        )
    # Whatever takes its place in this moment: a link is not followed, a FIFO not waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:  # noqa: PTH123
        return os.fstat(descriptor).st_size, hashlib.file_digest(stream, "sha256").hexdigest()


def _kind(path: str, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return f"a symbolic link to {os.readlink(path)[:200]!r}"  # noqa: PTH115
    return f"a {kind_of(mode)}"


def _named(name: str) -> str:
    """Format a path for people: as it is where that is possible."""
    short = name if len(name) <= 200 else f"{name[:200]}…"
    return short if plain_text(name) == name and "\n" not in name else repr(short)


#: A part of a relative path: neither `.` nor `..`, nothing that is a separator somewhere, and text.
_PART = r"(?!\.{1,2}(?:/|\Z))[^/\\\x00\ud800-\udfff]+"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")


def unfit_name(names: Iterable[str]) -> str | None:
    """Find the first name that no file of an artifact may have, such as a way out of its folder; else None."""
    return next((name for name in names if name == MANIFEST or not _NAME.fullmatch(name)), None)


#: A file as it was when it was last read whole: path, size, time of change in ns.
Signature = tuple[str, int, int]


def verify_files(folder: str, manifest: Manifest, verified: set[Signature]) -> list[Signature]:
    """Check files against their manifest.

    Args:
        folder: the folder that they are in.
        manifest: what they are to be.
        verified: files that this process has read whole already, which are not read again; new ones are added.

    Returns:
        The files as they are now.

    Raises:
        DamagedArtifactError: a file is missing, or its size or bytes differ.
    """
    signatures = []
    for name, (size, sha256) in manifest.files.items():
        path = f"{folder}/{name}"
        try:
            stat = os.stat(path)  # noqa: PTH116 (thousands of times a second)
            if stat.st_size != size:
                message = f"{path} has {stat.st_size} bytes, its manifest says {size}"
                raise DamagedArtifactError(manifest.address, message, manifest)
            signature = (path, stat.st_size, stat.st_mtime_ns)
            if signature not in verified:
                with open_file(path) as stream:
                    found = hashlib.file_digest(stream, "sha256").hexdigest()
                if found != sha256:
                    raise DamagedArtifactError(
                        manifest.address, f"the bytes of {path} differ from its manifest", manifest
                    )
                verified.add(signature)
        except FileNotFoundError as error:
            raise DamagedArtifactError(manifest.address, f"{path} is missing", manifest) from error
        except OSError as error:
            # Something else is in its place: a folder, a FIFO, a socket, a link to itself.
            if not isinstance(error, IrregularFileError) and error.errno not in NO_FILE:
                raise
            reason = f"{path} is no file: {error.strerror}"
            raise DamagedArtifactError(manifest.address, reason, manifest) from error
        signatures.append(signature)
    return signatures


def verify_content(content: bytes, manifest: Manifest, name: str) -> bytes:
    """Check the bytes of one file against its manifest, and return them.

    Raises:
        DamagedArtifactError: it is not the file that was committed.
    """
    if hashlib.sha256(content).hexdigest() != manifest.files[name][1]:
        raise DamagedArtifactError(manifest.address, f"the bytes of {name} differ from its manifest")
    return content


def unchanged(signatures: list[Signature]) -> bool:
    """Whether files have the size and time of change that they had."""
    try:
        for path, size, changed in signatures:
            stat = os.stat(path)  # noqa: PTH116
            if stat.st_size != size or stat.st_mtime_ns != changed:
                return False
    except OSError:
        return False
    return True

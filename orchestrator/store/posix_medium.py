"""Small files in a folder of a POSIX file system."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from orchestrator.regular_file import IrregularFileError, open_descriptor
from orchestrator.store.atomic import move_over
from orchestrator.store.errors import NO_FILE, StoreError, remedy
from orchestrator.store.medium import K

#: What file systems say that have no hard links.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class PosixMedium:
    """A folder, which need not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def translate_errors(self, verb: str = "written") -> Iterator[None]:
        """Turn OSError into StoreError, which says what could not be done."""
        try:
            yield
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            reason = f"{error.strerror or error}{place}"
            raise StoreError(f"the store {self.root} cannot be {verb}: {reason}; {remedy(error)}") from error

    def names(self, folder: str) -> list[str]:
        """See `Medium.names`. NFS keeps a file that was deleted while it was open under a name with a dot."""
        with self.translate_errors("read"):
            try:
                with os.scandir(f"{self.root}/{folder}") as listing:
                    return [item.name for item in listing if not item.name.startswith(".")]
            except OSError as error:
                if error.errno not in NO_FILE:
                    raise
                return []

    def read(self, paths: Mapping[K, str]) -> dict[K, bytes | None]:
        """See `Medium.read`. A folder is no file, nor is a FIFO or a link to itself, so it is missing."""
        found: dict[K, bytes | None] = {}
        with self.translate_errors("read"):
            for name, path in paths.items():
                try:
                    found[name] = read_file(f"{self.root}/{path}")
                except OSError as error:
                    if not isinstance(error, IrregularFileError) and error.errno not in NO_FILE:
                        raise
                    found[name] = None
        return found

    def create(self, path: str, content: bytes) -> bool:
        """See `Medium.create`; safe against a power failure, and whole however the process ends."""
        with self.translate_errors():
            folder, _, name = path.rpartition("/")
            part = f"{self.root}/{folder}/.{secrets.token_hex(8)}"
            try:
                create_file(part, content)
            except FileNotFoundError:
                self.make_folder(folder)
                create_file(part, content)
            try:
                flush(part)
                return _link(part, f"{self.root}/{folder}/{name}", content)
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(part)  # noqa: PTH108

    def replace(self, path: str, content: bytes) -> None:
        """See `Medium.replace`; safe against a power failure."""
        with self.translate_errors():
            folder, _, name = path.rpartition("/")
            place = self.make_folder(folder)
            part = place / f".{secrets.token_hex(8)}"
            with part.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            move_over(part, place / name)
            flush(str(place))

    def delete(self, paths: Collection[str]) -> None:
        """See `Medium.delete`."""
        with self.translate_errors():
            for path in paths:
                (self.root / path).unlink(missing_ok=True)

    def make_folder(self, folder: str) -> Path:
        """Make a folder unless there is one; raises OSError."""
        path = self.root / folder
        path.mkdir(parents=True, exist_ok=True)
        return path


def read_file(path: str) -> bytes:
    """Read a small file, in a third of the time that `open` takes; a sweep has tens of thousands."""
    descriptor = open_descriptor(path)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def create_file(path: str, content: bytes, folder: int | None = None) -> None:
    """Write a small file, which must not exist.

    Args:
        path: absolute, or relative to the folder.
        content: its bytes.
        folder: the descriptor of an open folder.

    Raises:
        OSError: it cannot be written; FileExistsError: it exists.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
    finally:
        os.close(descriptor)


def _link(part: str, path: str, content: bytes) -> bool:
    """Give a file a second name, which nothing has; returns whether nothing had it. Raises OSError."""
    try:
        os.link(part, path)
    except FileExistsError:
        # Where the answer was lost NFS asks again, and is told that the name is taken: by us.
        return os.path.samestat(os.stat(part), os.stat(path))  # noqa: PTH116
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            create_file(path, content)
        except FileExistsError:
            return False
    return True


def flush(path: str) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_file_system(folder: str) -> bool:
    """Wait until everything written to a file system is on its disk; False where the platform cannot do that."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if library.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), folder)
    finally:
        os.close(descriptor)
    return True

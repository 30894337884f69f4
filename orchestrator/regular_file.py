"""Regular files: what else has a name, a FIFO or a device, may keep its reader waiting for ever, or never end."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader

_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
}


class IrregularFileError(OSError):
    """What was to be read is no regular file. `strerror` says what it is."""


def kind_of(mode: int) -> str:
    """Name what a mode (`st_mode`) is that of, if it is no regular file: "FIFO"."""
    return _KINDS.get(stat.S_IFMT(mode), "special file")


def open_descriptor(path: str | os.PathLike[str]) -> int:
    """Open a regular file, or one that a link leads to, for reading; waits for nobody.

    Raises:
        IsADirectoryError: it is a folder.
        IrregularFileError: it is something else that is no regular file.
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise IrregularFileError(errno.EINVAL, f"it is a {kind_of(mode)} and no regular file", os.fspath(path))


def open_file(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file for reading, as bytes; errors as those of `open_descriptor`."""
    return open(open_descriptor(path), "rb")

"""The end of a log."""

from __future__ import annotations

import os
from io import BufferedReader
from typing import BinaryIO

from orchestrator.regular_file import open_file
from orchestrator.texts import plain_text


def _open(place: str) -> BinaryIO | BufferedReader:
    if "://" not in place:
        return open_file(place)
    from upath import UPath

    stream: BinaryIO = UPath(place).open("rb")
    return stream


def tail(place: str, limit: int = 20_000) -> str:
    """Read the end of a log: so many bytes, without control sequences; where it cannot be read, say so.

    Args:
        place: path, or URI in an object store.
        limit: bytes, at most.
    """
    try:
        with _open(place) as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(size - limit, 0))
            text = plain_text(stream.read().decode(errors="replace"))
    except (OSError, ValueError, ImportError) as error:
        # What a record names may be no place at all.
        return f"({plain_text(place, 300)} cannot be read: {getattr(error, 'strerror', None) or error})"
    return text if size <= limit else f"… the last {limit // 1000} of {size // 1000} kB\n" + text.partition("\n")[2]

"""The end of a log."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.texts import plain_text


def tail(place: str, limit: int = 20_000) -> str:
    """Read the end of a log: so many bytes, without control sequences; where it cannot be read, say so.

    Args:
        place: path, or URI in an object store.
        limit: bytes, at most.
    """
    if "://" in place:
        from upath import UPath

        path: Path | UPath = UPath(place)
    else:
        path = Path(place)
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(size - limit, 0))
            text = plain_text(stream.read().decode(errors="replace"))
    except OSError as error:
        return f"({place} cannot be read: {error.strerror or error})"
    return text if size <= limit else f"… the last {limit // 1000} of {size // 1000} kB\n" + text.partition("\n")[2]

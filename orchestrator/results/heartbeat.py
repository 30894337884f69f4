"""The heartbeat of a running driver: `running.json` beside the results table, rewritten every few seconds.

A driver that ends removes it; one that was killed leaves a file that grows old.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import time
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orchestrator.regular_file import open_file
from orchestrator.store.atomic import replace_file

if TYPE_CHECKING:
    from upath import UPath

#: Seconds between two heartbeats.
HEARTBEAT_EVERY = 2.0
#: A heartbeat that is older (seconds) is that of a dead driver.
_EXPIRES_AFTER = 3 * HEARTBEAT_EVERY
_FILE = "running.json"
#: What is told of the time that is left (`orchestrator.explain.eta.Eta`).
_LEFT = {"low", "high", "unknown", "steps"}
#: Bytes; that of a million cells has a tenth of it.
_LARGEST = 2**24


def write_heartbeat(folder: Path | UPath, content: Mapping[str, Any]) -> None:
    """Tell other processes that a driver is alive, and where its sweep stands.

    Args:
        folder: the output folder of the sweep.
        content: what else is told, as JSON: `plan` (its digest), `steps` (entry -> state -> how many), `cells` (the
            statuses, packed by `pack_codes`), `errors` (groups of cells that ended alike), `usage` (what is in use of
            the machines), `sick` (device or node that gets no work -> why), `pace` (entry -> rate, seconds and time
            left) and `left` (the time left of all).

    Raises:
        StoreError: the file cannot be written.
    """
    replace_file(folder / _FILE, json.dumps({"time": time.time(), **content}).encode())


def read_heartbeat(folder: Path | UPath, entries: Collection[str] | None = None) -> dict[str, Any] | None:
    """Return what a living driver told last, and `time`; None when no driver runs.

    Args:
        folder: the output folder of the sweep.
        entries: the entries of the sweep as the caller knows it; a driver of a sweep with others does not count.
    """
    # A file that is missing or torn, or written by another version of this code.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        path = folder / _FILE
        with open_file(path) if isinstance(path, Path) else path.open("rb") as stream:
            content: dict[str, Any] = json.loads(stream.read(_LARGEST))
        alive = abs(time.time() - content["time"]) < _EXPIRES_AFTER
        if alive and (entries is None or _is_told_of(entries, content)):
            return content
    return None


def _is_told_of(entries: Collection[str], content: Mapping[str, Any]) -> bool:
    """Tell whether a heartbeat is that of a sweep with certain entries, and whole; may raise what a wrong type does."""
    steps, pace = content["steps"], content["pace"]
    if pace.keys() != set(entries):
        return False
    lefts = [content["left"], *(each["left"] for each in pace.values())]
    if not isinstance(content.get("cells", ""), str) or any(left.keys() != _LEFT for left in lefts):
        return False
    counts = [count for name in entries for count in steps.get(name, {}).values()]
    rates = [each[name] for each in pace.values() for name in ("per_minute", "seconds") if each[name] is not None]
    ends = [end for left in lefts for end in left.values()]
    return all(type(each) in (int, float) and 0 <= each < math.inf for each in (*counts, *rates, *ends))


def remove_heartbeat(folder: Path | UPath) -> None:
    """Tell other processes that no driver runs any more. Where that cannot be told, they see the heartbeat expire."""
    # Each service has exceptions of its own; none is an OSError for sure.
    with contextlib.suppress(Exception):
        (folder / _FILE).unlink()


def pack_codes(codes: npt.NDArray[np.uint8]) -> str:
    """Encode the statuses of all cells (`Results.codes`) as a short text: some hundred characters for 12,960 cells."""
    return base64.b64encode(zlib.compress(codes.tobytes(), 1)).decode()


def unpack_codes(text: str) -> npt.NDArray[np.uint8]:
    """Decode what `pack_codes` made.

    Raises:
        ValueError: it is something else.
    """
    try:
        return np.frombuffer(zlib.decompressobj().decompress(base64.b64decode(text), _LARGEST), np.uint8)
    except zlib.error as error:
        raise ValueError(str(error)) from error

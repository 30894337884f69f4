"""The heartbeat of a driver: what it tells other processes while it runs."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import numpy.typing as npt


def pack_codes(codes: npt.NDArray[np.uint8]) -> str:
    """Encode the statuses of all cells (`Results.codes`) as a short text: some hundred characters for 12,960 cells."""
    return base64.b64encode(zlib.compress(codes.tobytes(), 1)).decode()


def unpack_codes(text: str) -> npt.NDArray[np.uint8]:
    """Decode what `pack_codes` made."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)

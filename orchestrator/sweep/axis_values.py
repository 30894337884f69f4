"""Plain values of an axis: what can be a coordinate."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.sweep.problems import DocPath
from orchestrator.types import Scalar


def value_messages(values: Sequence[Any]) -> Iterator[tuple[DocPath, str]]:
    """Yield the mistakes in a list of values: which of them, and what is wrong with it."""
    seen: set[Scalar] = set()
    for index, value in enumerate(values):
        if not isinstance(value, str | int | float):
            message = f"is no value of an axis (text, number, true or false); found {value!r}"
        elif isinstance(value, float) and not math.isfinite(value):
            message = f"{value} is not a coordinate; give a number"
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            message = "is a whole number of more than 64 bits; write it as text"
        elif (written := unicodedata.normalize("NFC", value) if isinstance(value, str) else value) in seen:
            # 1 and true are one dictionary key, so they cannot be two coordinates.
            message = f"{value!r} is there twice; keep one"
        elif str(written) in map(str, seen):
            message = f"{value!r} reads like {next(each for each in seen if str(each) == str(written))!r}; keep one"
        else:
            seen.add(written)
            continue
        yield (index,), message

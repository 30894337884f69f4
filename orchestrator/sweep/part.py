"""What the parts of a sweep file have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of a sweep file: it never changes, and has no fields but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def matches(pattern: Mapping[str, Any], coords: Mapping[str, Any]) -> bool:
    """Tell whether coordinates lie in {axis: value or list of values}."""
    return all(
        axis in coords and coords[axis] in (wanted if isinstance(wanted, list) else [wanted])
        for axis, wanted in pattern.items()
    )

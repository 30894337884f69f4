"""A step as a stage sees it that does several at once (`Stage.together`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Call:
    """One call of a stage function: `function(config, out, **inputs)`."""

    config: Any
    out: Path
    inputs: Mapping[str, Path | list[Path]]

    def path(self, name: str) -> Path:
        """The folder of an input that is one artifact."""
        found = self.inputs[name]
        assert isinstance(found, Path), f"{name} has shards"
        return found

    def paths(self, name: str) -> list[Path]:
        """The folders of an input that gathers all shards."""
        found = self.inputs[name]
        assert isinstance(found, list), f"{name} is one artifact"
        return found

"""The folder for what can be fetched or computed again: delete it at any time when no sweep is running."""

from __future__ import annotations

import os
from pathlib import Path

ENVIRONMENT = "SWEEP_CACHE"


def cache_folder() -> Path:
    """`$SWEEP_CACHE`, else `alignment-sweeps` in the user's cache folder; it need not exist."""
    chosen = os.environ.get(ENVIRONMENT)
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alignment-sweeps"

"""Commands that are shown: on the same sweep at the same places, ready for a shell."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path


def program() -> list[str]:
    """How this program was called."""
    return ["sweep"] if Path(sys.argv[0]).name == "sweep" else ["python", "-m", "orchestrator"]


def repeat_places(overrides: Iterable[str] | None, outputs: str | None, store: str | None) -> list[str]:
    """The options that say which sweep is meant and where it lies."""
    options = [each for text in overrides or () for each in ("-s", text)]
    options += ["--outputs", outputs] if outputs else []
    return options + (["--store", store] if store else [])


def repeat_selection(only: Iterable[str] | None, exclude: Iterable[str] | None) -> list[str]:
    """The options that select cells."""
    kept = [word for text in only or () for word in ("--only", text)]
    return kept + [word for text in exclude or () for word in ("--exclude", text)]

"""Commands as they are shown to people: on the same sweep at the same places, ready for a shell."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from orchestrator.redact import redact


def format_command(words: Iterable[str]) -> str:
    """Format a command for a shell, without secrets: an environment variable stands for a word that has one.

    Where no variable has that word as its value, the secret is left to be filled in.
    """
    return " ".join(_spell_word(word) for word in words)


def _spell_word(word: str) -> str:
    hidden = redact(word)
    if hidden == word:
        return shlex.quote(word)
    name = next((name for name, value in os.environ.items() if value == word), None)
    return f'"${name}"' if name else shlex.quote(hidden)


def program() -> list[str]:
    """Return the words by which this program was called."""
    return ["sweep"] if Path(sys.argv[0]).name == "sweep" else ["python", "-m", "orchestrator"]


def repeat_places(overrides: Iterable[str] | None, outputs: str | None, store: str | None) -> list[str]:
    """Return the options that say which sweep is meant and where it lies."""
    options = [each for text in overrides or () for each in ("-s", text)]
    options += ["--outputs", outputs] if outputs else []
    return options + (["--store", store] if store else [])


def repeat_selection(only: Iterable[str] | None, exclude: Iterable[str] | None) -> list[str]:
    """Return the options that select cells."""
    kept = [word for text in only or () for word in ("--only", text)]
    return kept + [word for text in exclude or () for word in ("--exclude", text)]


def repeat_options(options: Mapping[str, str | int | bool | None]) -> list[str]:
    """Return other options by name, without those that were not given."""
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    return [word for name, value in given.items() for word in ([name] if value is True else [name, str(value)])]

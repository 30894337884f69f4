"""Commands as messages show them: on the same sweep and the same folders, ready to paste into a shell."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from orchestrator.redact import redact


def format_command(words: Iterable[str]) -> str:
    """Format a command for a shell; a word with a secret is replaced by an environment variable of that value.

    If there is no such variable, the secret is masked and is to be filled in.
    """
    return " ".join(_format_word(word) for word in words)


def _format_word(word: str) -> str:
    hidden = redact(word)
    if hidden == word:
        return shlex.quote(word)
    name = next((name for name, value in os.environ.items() if value == word), None)
    return f'"${name}"' if name else shlex.quote(hidden)


def program() -> list[str]:
    """Return the words that call this program, as it was called."""
    return ["sweep"] if Path(sys.argv[0]).name == "sweep" else ["python", "-m", "orchestrator"]


def repeat_places(overrides: Iterable[str] | None, outputs: str | None, store: str | None) -> list[str]:
    """Return the options `-s`, `--outputs` and `--store` again, as words."""
    options = [each for text in overrides or () for each in ("-s", text)]
    options += ["--outputs", outputs] if outputs else []
    return options + (["--store", store] if store else [])


def repeat_selection(only: Iterable[str] | None, exclude: Iterable[str] | None) -> list[str]:
    """Return the options `--only` and `--exclude` again, as words."""
    kept = [word for text in only or () for word in ("--only", text)]
    return kept + [word for text in exclude or () for word in ("--exclude", text)]


def repeat_options(options: Mapping[str, str | int | bool | None]) -> list[str]:
    """Return other options (name -> value) as words; None and False are left out, True is a flag."""
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    return [word for name, value in given.items() for word in ([name] if value is True else [name, str(value)])]

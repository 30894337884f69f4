"""Answers of servers, each stored in a file as soon as it arrives, so that none is paid for twice.

The folder outlives the step. A file holds one answer and its use of tokens, and is named by the digest of the whole
request. No key is stored in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Answer:
    """An answer of a server, and the tokens that it bills for, None where it does not report them."""

    text: str
    prompt_tokens: int | None
    """Tokens of the prompt; like the next, those of garbled replies to the same question included."""
    answer_tokens: int | None
    unread: str = ""
    """The reason where there is no text: `REFUSED`, `FILTERED`, `GARBLED` or `TOO_LONG` of `workers.judges.requests`, a
    colon, and the server's words; "" where there is one."""


def answers_folder() -> Path:
    """Return `$SWEEP_ANSWERS`, else `answers` in `$SWEEP_CACHE` or in the user's cache; it need not exist."""
    if chosen := os.environ.get("SWEEP_ANSWERS"):
        return Path(chosen).expanduser()
    if cache := os.environ.get("SWEEP_CACHE"):
        return Path(cache).expanduser() / "answers"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alignment-sweeps" / "answers"


def answer_file(folder: Path, asked: object) -> Path:
    """Return the file of the answer to `asked`, a JSON-like value."""
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return folder / digest[:2] / f"{digest}.json"


def read_answer(path: Path) -> Answer | None:
    """Read an answer; None if it was never written, or was damaged by a crash of the machine."""
    try:
        answer = Answer(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        return None
    counted = all(type(each) is int or each is None for each in (answer.prompt_tokens, answer.answer_tokens))
    return answer if counted and isinstance(answer.text, str) and isinstance(answer.unread, str) else None


def write_answer(path: Path, answer: Answer) -> None:
    """Write an answer atomically: a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", encoding="utf-8", delete=False) as file:
        json.dump(vars(answer), file)
    Path(file.name).replace(path)

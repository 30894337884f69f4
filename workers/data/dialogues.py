"""Dialogues as texts: a prompt and its answer, in the format of Anthropic's hh-rlhf (github.com/anthropics/hh-rlhf).

A prompt always ends with "\\n\\nAssistant:", and an answer always begins with one space, so `prompt + answer` is the
transcript. Other white space is changed only so far:

- Around an answer it is removed: it would be a giveaway to a reward model. An answer by itself keeps the indentation of
  its first line if that is a tab or at least two spaces: it is a piece of code. It follows the one space.
- Turns are put together from text by itself (a `prompt` column, messages): white space around them is removed, and the
  empty line before a "Human:" or "Assistant:" within them, so that no text can pass for a turn. A `prompt` that begins
  with "Human:", or has human turns and ends with "\\n\\nAssistant:", is a transcript already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.seeding import shuffle_key
from workers.tables import PREFERENCES

HUMAN = "\n\nHuman:"
ASSISTANT = "\n\nAssistant:"

#: The line ends before what would pass for a turn, but is not one.
_FALSE_TURN = re.compile(r"\n{2,}(?=Human:|Assistant:)")


@dataclass(frozen=True)
class Dialogue:
    """A prompt ("\\n\\nHuman: …\\n\\nAssistant:") and its answer, the chosen one where there are two."""

    prompt: str
    response: str
    rejected: str | None = None
    """The other answer, always there if pairs were read, else None."""
    subset: str = ""
    """Subset that the source names, or ""."""


def pair_order(seed: int) -> Callable[[Dialogue], bytes]:
    """Return the key for sorting that shuffles pairs of answers."""
    return lambda pair: shuffle_key(seed, pair.prompt, pair.response, str(pair.rejected))


def write_pairs(pairs: Sequence[Dialogue], subsets: Sequence[str], out: Path) -> None:
    """Write `preferences.parquet`, with a subset for each pair."""
    columns = {
        "prompt": [pair.prompt for pair in pairs],
        "chosen": [pair.response for pair in pairs],
        "rejected": [pair.rejected for pair in pairs],
        "subset": list(subsets),
    }
    PREFERENCES.write(columns, out)


def as_prompt(text: str) -> str:
    """Make `text` a prompt that ends with "\\n\\nAssistant:"; text without a human turn is wrapped in one.

    Raises:
        ValueError: it is empty, its last human turn is empty, or it ends with an answer of the assistant.
    """
    stripped = text.strip()
    closed = f"\n\n{stripped}".endswith(ASSISTANT)
    body = f"\n\n{stripped}".removesuffix(ASSISTANT).rstrip()
    if not body:
        raise ValueError("the prompt is empty")
    if HUMAN not in body:
        return f"{HUMAN} {body.lstrip()}{ASSISTANT}"
    human, assistant = body.rfind(HUMAN), body.rfind(ASSISTANT)
    # hh-rlhf has dialogues in which the assistant speaks twice in a row; the marker at the end makes them unambiguous.
    if assistant > human and not closed:
        raise ValueError("the prompt ends with an answer of the Assistant, not with a question")
    if assistant < human and body.endswith(HUMAN):
        raise ValueError("the last human turn of the prompt is empty")
    return body + ASSISTANT


def as_question(text: str) -> str:
    """Make `text`, which stands in a column apart from the answers, a prompt.

    A transcript stays one; in any other text nothing may pass for a turn.

    Raises:
        ValueError: as `as_prompt`.
    """
    stripped = f"\n\n{text.strip()}"
    if stripped.startswith(HUMAN) or (HUMAN in stripped and stripped.endswith(ASSISTANT)):
        return as_prompt(stripped)
    question = stripped.removesuffix(ASSISTANT).strip()
    if not question:
        raise ValueError("the prompt is empty")
    return join_turns([(HUMAN, question)])


def as_answer(text: str) -> str:
    """Make `text` an answer; it may be code, so the indentation of its first line is part of it."""
    lines = re.sub(r"\A(?:[^\S\n]*\n)+", "", text).rstrip()
    return f" {lines if lines.startswith(('  ', chr(9))) else lines.lstrip()}"


def join_turns(turns: Sequence[tuple[str, str]]) -> str:
    """Join turns, (`HUMAN` or `ASSISTANT`, text) each, to a prompt in which nothing but a turn looks like one."""
    return "".join(f"{speaker} {_FALSE_TURN.sub(chr(10), text.strip())}" for speaker, text in turns) + ASSISTANT

"""Dialogues as messages, and in the chat template of a model."""

from __future__ import annotations

import re
from typing import Any

from workers.data.dialogues import ASSISTANT, HUMAN

_TURN = re.compile(f"{HUMAN}|{ASSISTANT}")
_ROLES = {HUMAN: "user", ASSISTANT: "assistant"}


def messages(dialogue: str) -> list[dict[str, str]]:
    """Split "\\n\\nHuman: …\\n\\nAssistant: …" into turns, `{"role": "user" or "assistant", "content": …}`.

    White space around a turn is removed, and so are empty turns, such as the open one at the end of a prompt. Turns of
    the same speaker in a row (hh-rlhf has some) become one, because templates want speakers to alternate. What stands
    before the first turn is a message of the role "system".

    Raises:
        ValueError: there is no human turn.
    """
    marks = [*_TURN.finditer(dialogue)]
    starts = [*(mark.start() for mark in marks), len(dialogue)]
    turns = [("system", dialogue[: starts[0]])]
    turns += [(_ROLES[mark.group()], dialogue[mark.end() : end]) for mark, end in zip(marks, starts[1:], strict=True)]
    found: list[dict[str, str]] = []
    for role, text in turns:
        content = text.strip()
        if content and found and found[-1]["role"] == role:
            found[-1]["content"] += f"\n\n{content}"
        elif content:
            found.append({"role": role, "content": content})
    if not any(message["role"] == "user" for message in found):
        raise ValueError(f"no human turn in {dialogue[:80]!r}")
    return found


def answer_message(answer: str) -> dict[str, str]:
    """Make the answer a message, without the space that separates it from the prompt in plain text."""
    return {"role": "assistant", "content": answer.removeprefix(" ")}


def render(tokenizer: Any, prompt: str, answer: str | None = None) -> str:
    """Write `prompt` and its answer in the chat template of `tokenizer`; without one, open for an answer.

    The template writes its own special tokens: tokenise the text with `add_special_tokens=False`.

    Raises:
        ValueError: the tokenizer has no chat template, or the prompt no human turn.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            f"{tokenizer.name_or_path}: chat is true, but the tokenizer has no chat template; take an instruct model, "
            "or set chat: false"
        )
    turns = messages(prompt) + ([] if answer is None else [answer_message(answer)])
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer is None))

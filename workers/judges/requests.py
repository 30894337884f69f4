"""Requests to a generative judge, and the form of judgments.

A request shows a question and two answers and asks for the better one, in one of two forms:

- json, as in Con-J: `{"rationale": "…", "verdict": 1}`, the rationale first, so that it can carry the verdict;
- brackets, as in RISE-Judge and MT-Bench: reasoning that ends in `[[A]]` or `[[B]]`.

Wording 0 is the Chinese request of Con-J in English, with other names of the keys; so is the hinted request
(github.com/YeZiyi1998/Con-J, README.md and src/openrlhf/utils/templates.py, Apache-2.0). The other wordings are ours:
RISE-Judge (arXiv 2502.11689) has a teacher rewrite the role, criteria and format of its requests, but does not publish
the result.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from workers.data.dialogues import ASSISTANT, HUMAN
from workers.judges.configs import Form

#: First words of the reason why a judgment has no text: the request is longer than the model's context; the server
#: refuses the request, or its content; or its reply is garbled.
TOO_LONG, REFUSED, FILTERED, GARBLED = "too long", "refused", "filtered", "garbled"


class Shown(NamedTuple):
    """A pair of answers as a judge sees it."""

    prompt: str
    first: str
    second: str
    hint: int
    """The answer (1 or 2, by place) that the request gives as the better one; 0 gives none."""


class Written(NamedTuple):
    """A judgment, or the reason why there is none."""

    text: str
    unread: str = ""
    """Reason why there is no text; "" where the judge wrote one, be it empty."""


#: Role, task and criteria. Short, because tiny models have 512 tokens of context.
WORDINGS = (
    "As an expert in evaluation, say which of two answers to a question is better in coherence, accuracy, coverage and "
    "overall quality.",
    "You are an impartial judge. Two assistants answered the same question. Decide who helps the user more: weigh "
    "accuracy first, then relevance, depth and clarity. Neither order nor length of the answers matters.",
    "Compare two replies as a careful teacher would. Look for mistakes and missing steps, then at whether the question "
    "is really answered, then at style, and choose the better reply.",
    "Your task is quality control of a chat assistant. Of the two answers below, find the one that follows the "
    "instruction more closely, is true, does no harm, and wastes no words.",
    "Think as the person who asked. Which of the two answers would serve you better? Consider usefulness, correctness, "
    "completeness and tone.",
    "Act as the referee of a contest between two writers who got the same question. Judge content before form: facts, "
    "reasoning, completeness, readability.",
)
#: Numbers of the wordings whose instruction of the form stands after the answers instead of before them.
_FORMAT_LAST = (1, 3, 5)

_FORMATS = {
    (
        "json",
        True,
    ): 'Reply with JSON only, explanation first: {"rationale": "your explanation", "verdict": 1 or 2}',
    ("json", False): 'Reply with JSON only, without any explanation: {"verdict": 1 or 2}',
    ("brackets", True): "Explain your judgment step by step, then end with [[A]] or [[B]].",
    ("brackets", False): "Reply with [[A]] or [[B]] only, without any explanation.",
}
_NAMES = {"json": ("1", "2"), "brackets": ("A", "B")}


def request(prompt: str, first: str, second: str, form: Form, rationale: bool, wording: int) -> str:
    """Write the dialogue "\\n\\nHuman: …\\n\\nAssistant:" that requests a judgment.

    It has one human turn. Where the question is a dialogue of several turns, all of them are shown, set apart by a line
    break instead of an empty line.

    Args:
        prompt: "\\n\\nHuman: …\\n\\nAssistant:".
        first: the answer that is shown first.
        second: the other one.
        form: form of the judgment.
        rationale: whether to request one.
        wording: index in `WORDINGS`.
    """
    how = _FORMATS[form, rationale]
    shown = _shown(prompt, first, second, form)
    parts = [shown, how] if wording in _FORMAT_LAST else [how, shown]
    return _asked("\n\n".join((WORDINGS[wording], *parts)))


def hinted_request(prompt: str, first: str, second: str, form: Form, wording: int, hint: int) -> str:
    """Write a request that gives answer `hint` (1 or 2) as the better one, and asks for the reasons only."""
    better = _NAMES[form][hint - 1]
    shown = _shown(prompt, first, second, form)
    return _asked(f"{WORDINGS[wording]}\n\n{shown}\n\nAnswer {better} is known to be better. Explain why:")


def format_judgment(rationale: str | None, verdict: int | str, form: Form) -> str:
    """Format a rationale, if there is one, and a verdict in the form that a judge is requested to use.

    Args:
        rationale: text.
        verdict: 1 or 2; anything else is kept as it is, and no parser reads it as a verdict.
        form: json or brackets.
    """
    number = int(verdict) if str(verdict).isdecimal() else verdict
    if form == "json":
        reasons = {} if rationale is None else {"rationale": rationale.strip()}
        return json.dumps({**reasons, "verdict": number}, ensure_ascii=False)
    name = _NAMES[form][number - 1] if number in (1, 2) and isinstance(number, int) else number
    return f"[[{name}]]" if rationale is None else f"{rationale.strip()} [[{name}]]"


def _asked(text: str) -> str:
    return f"{HUMAN} {text.rstrip()}{ASSISTANT}"


def _shown(prompt: str, first: str, second: str, form: Form) -> str:
    one, two = _NAMES[form]
    return f"Question: {_question(prompt)}\n\nAnswer {one}: {_inside(first)}\n\nAnswer {two}: {_inside(second)}"


def _question(prompt: str) -> str:
    text = _inside(prompt.removesuffix(ASSISTANT))
    single = prompt.startswith(HUMAN) and prompt.count(HUMAN) == 1 and prompt.count(ASSISTANT) <= 1
    return text.removeprefix("Human:").strip() if single else text


def _inside(text: str) -> str:
    """Join what would be taken for a turn of the dialogue around `text`; sampled answers sometimes go on so."""
    return re.sub(r"\n\n+(?=(Human|Assistant):)", "\n", f"\n\n{text.strip()}").strip()

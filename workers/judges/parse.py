"""Stage `judge_parse`: verdicts read from judgments."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from workers.judges.configs import Form, JudgeParseConfig
from workers.tables import JUDGMENTS, VERDICTS

_BRACKETS = {"[[A]]": 1, "[[B]]": 2}
_NUMBERS = {"1": 1, "2": 2, "A": 1, "B": 2}

#: `"verdict": 1` and what comes near it, with the value as it stands: up to a comma, brace or line end.
_FIELD = re.compile(r"""\bverdict\b["'*`]*\s*[:=]\s*([^\n,}]*)""", re.IGNORECASE)
_VALUE = re.compile(r"""["'*`\s]*(?:answer\s+)?([12])(?:\s+is\s+(?:\w+\s+)?better)?["'*`.\s]*""", re.IGNORECASE)
#: A third letter or a tie is a verdict too, but none that can be read.
_BRACKETED = re.compile(r"\[\[(A|B|C|tie)\]\]", re.IGNORECASE)
#: The request, repeated.
_ECHO = re.compile(r"\[\[A\]\]\W*(?:or|and|/|,)?\W*\[\[B\]\]", re.IGNORECASE)
_SENTENCE = re.compile(r"[^.!?\n]+")
_DOUBT = re.compile(r"\b(?:not|if|whether|which|would|might|could|neither)\b|n't\b", re.IGNORECASE)
_PHRASES = (
    re.compile(r"\b(?:answer|response|reply)\s+([12AB])\s+is\s+(?:\w+ly\s+)?(?:the\s+)?(?:much\s+)?better\b", re.I),
    re.compile(r"\bbetter\s+(?:answer|response|reply|one)\s+is\s+(?:answer\s+|response\s+)?([12AB])\b", re.I),
    re.compile(r"\bI\s+(?:choose|prefer|pick)\s+(?:answer|response|reply)\s+([12AB])\b", re.I),
)
_BARE = re.compile(r"""["'*`\s(]*(?:answer\s+)?([12AB])["'*`\s).]*""")


def judge_parse(config: JudgeParseConfig, out: Path, *, judgments: list[Path]) -> dict[str, float]:
    """Read the verdict of each judgment: 1, 2, or 0 where there is no text or it names neither.

    Args:
        config: the form, and how strictly it is required.
        out: receives `verdicts.parquet`, the judgments of all shards in order, each with its verdict.
        judgments: shards of the judgments.

    Returns:
        `verdicts`: rows written. `unparsed_rate`: share of them with verdict 0. `unread_judgments`: those of them that
        have no text, because the request was too long or refused, or the reply garbled; the reason is in column
        `unread`. `first_position_rate`: share of verdict 1 among the others; 0.5, which means nothing, where there are
        none.

    Raises:
        ValueError: there are no judgments.
    """
    table = pa.concat_tables([JUDGMENTS.read(folder) for folder in judgments])
    if table.num_rows == 0:
        raise ValueError(f"{judgments[0]}: no judgments")
    unread = table.column("unread").to_pylist()
    verdicts = [
        0 if reason else _verdict(config, text)
        for text, reason in zip(table.column("text").to_pylist(), unread, strict=True)
    ]
    columns = {name: table.column(name) for name in table.column_names}
    VERDICTS.write({**columns, "verdict": verdicts}, out)
    read = len(verdicts) - verdicts.count(0)
    return {
        "verdicts": float(len(verdicts)),
        "unparsed_rate": verdicts.count(0) / len(verdicts),
        "unread_judgments": float(sum(map(bool, unread))),
        "first_position_rate": verdicts.count(1) / read if read else 0.5,
    }


def _verdict(config: JudgeParseConfig, text: str) -> int:
    if config.strict:
        return strict_verdict(text, config.form, config.rationale)
    return lenient_verdict(text, config.form)


def strict_verdict(text: str, form: Form, rationale: bool) -> int:
    """Return 1 or 2 where the text has the requested form and nothing else, white space around it aside; else 0.

    json: an object with exactly the keys rationale (a text that is not blank) and verdict (the number 1 or 2), in this
    order. brackets: one `[[A]]` or `[[B]]`, which ends the text, behind some reasoning. Without a rationale, the
    verdict alone.
    """
    if form == "json":
        return _strict_json(text, rationale)
    found = [*re.finditer(r"\[\[[AB]\]\]", text)]
    body = text.strip()
    if len(found) != 1 or not body.endswith(found[0].group()):
        return 0
    reasons = body.removesuffix(found[0].group()).strip()
    return _BRACKETS[found[0].group()] if bool(reasons) == rationale else 0


def _strict_json(text: str, rationale: bool) -> int:
    try:
        # As a list of pairs, so that order and double keys show.
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return 0
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        return 0
    if [key for key, _ in pairs] != (["rationale", "verdict"] if rationale else ["verdict"]):
        return 0
    verdict = pairs[-1][1]
    if type(verdict) is not int or verdict not in (1, 2):
        return 0
    reasons = pairs[0][1]
    return verdict if not rationale or (isinstance(reasons, str) and reasons.strip()) else 0


def lenient_verdict(text: str, form: Form) -> int:
    """Return 1 or 2 where the text states it in one of these ways; else 0. The first way that occurs decides.

    1. In the requested form: its last verdict. Of json, objects anywhere in the text (code fences, prose and
       raw line breaks inside of strings do no harm), and where there is none, or it is cut off, `verdict: …` with the
       value 1, "1", 'Answer 1' or the like. Of brackets, `[[A]]` and `[[B]]`.
    2. In the other form, likewise.
    3. In plain words: "Answer 1 is better", "the better answer is B", "I prefer answer 2", in sentences without doubt
       or negation. If they contradict each other, 0.
    4. As nothing but a number or letter.

    A last verdict that is neither of the two answers (`3`, `[[C]]`, `1 or 2`) is a verdict: it decides, for 0.
    """
    ways = (_in_json, _in_brackets) if form == "json" else (_in_brackets, _in_json)
    for way in (*ways, _in_words, _bare):
        verdict = way(text)
        if verdict is not None:
            return verdict
    return 0


def _in_json(text: str) -> int | None:
    found: list[tuple[int, int]] = []
    rest = text
    for start, end, value in _objects(text):
        found.append((start, _value(value)))
        rest = rest[:start] + " " * (end - start) + rest[end:]
    found += [(match.start(), _value(match.group(1))) for match in _FIELD.finditer(rest)]
    return max(found)[1] if found else None


def _objects(text: str) -> list[tuple[int, int, Any]]:
    """Find start, end and verdict of each JSON object in `text` that has one, from the left."""
    decoder = json.JSONDecoder(strict=False)
    found: list[tuple[int, int, Any]] = []
    start = text.find("{")
    while start >= 0:
        end = start + 1
        try:
            value, stop = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            pass
        else:
            if "verdict" in value:
                found.append((start, stop, value["verdict"]))
                end = stop
        start = text.find("{", end)
    return found


def _value(value: object) -> int:
    if isinstance(value, str):
        match = _VALUE.fullmatch(value)
        bracketed = _BRACKETS.get(value.strip(" \"'*`.").upper(), 0)
        return _NUMBERS[match.group(1)] if match else bracketed
    return value if type(value) is int and value in (1, 2) else 0


def _in_brackets(text: str) -> int | None:
    found = _BRACKETED.findall(_ECHO.sub(" ", text))
    return _NUMBERS.get(found[-1].upper(), 0) if found else None


def _in_words(text: str) -> int | None:
    sentences = [sentence for sentence in _SENTENCE.findall(text) if not _DOUBT.search(sentence)]
    found = {
        _NUMBERS[name.upper()] for sentence in sentences for phrase in _PHRASES for name in phrase.findall(sentence)
    }
    return None if not found else found.pop() if len(found) == 1 else 0


def _bare(text: str) -> int | None:
    match = _BARE.fullmatch(text)
    return _NUMBERS[match.group(1)] if match else None

"""Makes judgments.jsonl: what an imaginary teacher writes about pairs of answers from helpful.jsonl and harmless.jsonl.

    python sweeps/data/make_judgments.py

Deterministic: the same script writes the same bytes. The pairs are the first that stage `preferences` takes from
each file with seed 0, in its very words; each is judged in both orders. A verdict agrees with the label in about
85 of 100 judgments, whatever the teacher said in the other order, and a few say neither 1 nor 2. The rationale names
what can be seen in the texts, and something vague where nothing speaks for the answer that it prefers.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

from make_data import CLOSE, CURT, RAMBLE, VAGUE, WARM

from workers.config import LocalPath
from workers.data.dialogue_rows import read_dialogues
from workers.data.dialogues import pair_order

#: Of each file.
PAIRS = 120
#: Chance that a verdict agrees with the label, and that it is neither 1 nor 2.
RIGHT, MALFORMED = 0.85, 0.03

SPECIFIC = ["gives concrete steps", "is specific and practical", "says exactly what to do", "names clear steps"]
POLITE = ["is polite and warm", "has a friendly tone", "is kind to the reader"]
RELEVANT = ["stays on the subject", "is relevant throughout", "answers what was asked"]
SHALLOW = ["reads more smoothly", "sounds more confident", "is easier to take in", "feels a little more natural"]
FAULTS = [
    (CURT, ["is rude", "brushes the question off", "does not try to help"]),
    (RAMBLE, ["wanders off the subject", "talks about other things"]),
    (VAGUE, ["stays vague", "says nothing definite"]),
]


def has(answer: str, phrases: list[str]) -> bool:
    """Whether one of the phrases is in the answer."""
    return any(phrase in answer for phrase in phrases)


def rationale(draw: random.Random, better: str, worse: str, number: int) -> str:
    """At most 25 words for the answer `better`, which is shown as answer `number`."""
    merits = []
    if " For " in better:  # a topic and its steps
        merits.append(draw.choice(SPECIFIC))
    if has(better, WARM + CLOSE) and not has(worse, WARM + CLOSE):
        merits.append(draw.choice(POLITE))
    if has(worse, RAMBLE) and not has(better, RAMBLE):
        merits.append(draw.choice(RELEVANT))
    faults = [draw.choice(words) for phrases, words in FAULTS if has(worse, phrases) and not has(better, phrases)]
    text = f"Answer {number} {' and '.join(merits[:2] or [draw.choice(SHALLOW)])}"
    return f"{text}, while answer {3 - number} {faults[0]}." if faults else f"{text}."


def judgment(prompt: str, first: str, second: str, right: int) -> dict[str, str | int]:
    """What the teacher says when the answers are shown in this order; `right` is the one that the label prefers."""
    draw = random.Random(f"alignment-sweeps judgments 1 {json.dumps([prompt, first, second])}")
    prefers = right if draw.random() < RIGHT else 3 - right
    better, worse = (first, second) if prefers == 1 else (second, first)
    text = rationale(draw, better, worse, prefers)
    verdict = 3 if draw.random() < MALFORMED else prefers
    return {"prompt": prompt, "first": first, "second": second, "rationale": text, "verdict": verdict}


def lines() -> str:
    """The text of the file."""
    written = []
    for name in ("helpful.jsonl", "harmless.jsonl"):
        source = Path(__file__).parent / name
        named = LocalPath(path=str(source), sha256=hashlib.sha256(source.read_bytes()).hexdigest())
        pairs, _ = read_dialogues(named, incomplete_rows="error", pairs=True)
        for pair in sorted(pairs, key=pair_order(0))[:PAIRS]:
            written.append(judgment(pair.prompt, pair.response, str(pair.rejected), right=1))
            written.append(judgment(pair.prompt, str(pair.rejected), pair.response, right=2))
    return "".join(json.dumps(each) + "\n" for each in written)


if __name__ == "__main__":
    (Path(__file__).parent / "judgments.jsonl").write_text(lines(), encoding="utf-8")

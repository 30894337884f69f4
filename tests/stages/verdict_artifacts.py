"""Preferences, and verdicts of judges that are functions, as artifact folders; and two real test sets, where they are.

The real sets are no part of the project: LLMBar (github.com/princeton-nlp/LLMBar, MIT) and EvalBiasBench
(github.com/ncsoft/offsetbias, BSD-3-Clause), in folders `llmbar` and `evalbiasbench` of `REAL_DATA`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from workers import tables
from workers.seeding import generator

REAL_DATA = Path(os.environ.get("JUDGE_TEST_SETS", "/work/shared/data"))


class Pair(NamedTuple):
    prompt: str
    chosen: str
    rejected: str
    subset: str = ""


#: (what is shown first, what is shown second, the right answer) -> 1, 2 or 0.
Judge = Callable[[str, str, str], int]


def oracle(first: str, second: str, chosen: str) -> int:
    return 1 if first == chosen else 2


def always_first(first: str, second: str, chosen: str) -> int:
    return 1


def longer(first: str, second: str, chosen: str) -> int:
    return 1 if len(first) >= len(second) else 2


def mute(first: str, second: str, chosen: str) -> int:
    return 0


def write_preferences(folder: Path, pairs: Sequence[Pair]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    columns = {name: [getattr(pair, name) for pair in pairs] for name in Pair._fields}
    tables.PREFERENCES.write(columns, folder)
    return folder


def chosen_first(pairs: Sequence[Pair], seed: int = 0) -> list[bool]:
    """The order that is drawn for each pair."""
    return (generator(seed, "test/order").random(len(pairs)) < 0.5).tolist()


def judged(pairs: Sequence[Pair], judge: Judge, orders: str = "drawn", samples: int = 1) -> list[dict[str, Any]]:
    """The rows of the verdicts about pairs by a judge."""
    rows = []
    for pair, straight in zip(pairs, chosen_first(pairs), strict=True):
        drawn = (pair.chosen, pair.rejected) if straight else (pair.rejected, pair.chosen)
        for first, second in [drawn, drawn[::-1]][: 2 if orders == "both" else 1]:
            says = judge(first, second, pair.chosen)
            is_drawn = (first, second) == drawn
            rows += [verdict(pair.prompt, first, second, says, sample, drawn=is_drawn) for sample in range(samples)]
    return rows


def verdict(
    prompt: str, first: str, second: str, says: int, sample: int = 0, *, drawn: bool = True, hint: int = 0
) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "first": first,
        "second": second,
        "drawn": drawn,
        "hint": hint,
        "sample": sample,
        "request": f"\n\nHuman: Which answer to {prompt!r} is better?\n\nAssistant:",
        "text": f"The better one is {says}.",
        "unread": "",
        "verdict": says,
    }


def write_verdicts(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    columns = pa.Table.from_pylist(rows, schema=tables.VERDICTS.schema).to_pydict()
    tables.VERDICTS.write(columns, folder)
    return folder


#: The files of LLMBar by the names that RewardBench gave these subsets.
LLMBAR = {
    "llmbar-natural": "natural",
    "llmbar-adver-neighbor": "adversarial-neighbor",
    "llmbar-adver-GPTInst": "adversarial-gptinst",
    "llmbar-adver-GPTOut": "adversarial-gptout",
    "llmbar-adver-manual": "adversarial-manual",
}


def llmbar() -> list[Pair]:
    """419 pairs with subsets as in RewardBench's Chat Hard, as the set `rewardbench`."""
    if not (REAL_DATA / "llmbar").is_dir():
        pytest.skip(f"LLMBar is not in {REAL_DATA}; set JUDGE_TEST_SETS to the folder that holds llmbar/*.json")
    pairs = []
    for subset, name in LLMBAR.items():
        for row in json.loads((REAL_DATA / "llmbar" / f"{name}.json").read_text(encoding="utf-8")):
            answers = [row["output_1"], row["output_2"]]
            chosen = answers.pop(row["label"] - 1)
            pairs.append(Pair(row["input"], chosen, answers[0], f"rewardbench/{subset}"))
    return pairs


def evalbiasbench() -> list[Pair]:
    """80 pairs in six types of bias, as the set `bias`."""
    if not (REAL_DATA / "evalbiasbench").is_dir():
        pytest.skip(f"EvalBiasBench is not in {REAL_DATA}; set JUDGE_TEST_SETS to the folder that holds evalbiasbench/")
    file = REAL_DATA / "evalbiasbench" / "biasbench.json"
    return [
        Pair(row["instruction"], row[f"response{row['label']}"], row[f"response{3 - row['label']}"], f"bias/{kind}")
        for kind, rows in json.loads(file.read_text(encoding="utf-8")).items()
        for row in rows
    ]

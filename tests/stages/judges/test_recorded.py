"""Recorded judgments: found by their texts, in the order in which they were recorded."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from workers import tables
from workers.data.dialogues import as_prompt
from workers.judges.configs import JudgeParseConfig, JudgeSampleConfig
from workers.judges.parse import judge_parse
from workers.judges.sample import judge_sample

pytestmark = pytest.mark.train

CON_J = Path("/work/shared/data/con-j/judged-code-pairs.jsonl.gz")

PROMPT = "\n\nHuman: Why?\n\nAssistant:"


def write_pairs(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    prompts, chosen, rejected = zip(*rows, strict=True)
    columns = {"prompt": prompts, "chosen": chosen, "rejected": rejected, "subset": [""] * len(rows)}
    tables.PREFERENCES.write(columns, folder)
    return folder


def write_lines(path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return source(path)


def source(path: Path) -> dict[str, Any]:
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def run(folder: Path, recorded: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
    backend = {"recorded": recorded} | settings.pop("backend", {})
    config = JudgeSampleConfig.model_validate({"samples": 1, "backend": backend} | settings)
    metrics = judge_sample(config, folder, preferences=folder)
    assert set(metrics) == set(config.declared())
    return tables.JUDGMENTS.read(folder).to_pylist()


def test_texts_are_found_by_question_and_answers_however_they_are_spelled(tmp_path: Path) -> None:
    write_pairs(tmp_path, [(PROMPT, " Yes.", " No.")])
    lines = [{"prompt": "Why?", "first": "Yes. ", "second": "\nNo.", "text": "I prefer answer 1."}]
    (row,) = run(tmp_path, write_lines(tmp_path / "r.jsonl", lines))
    assert (row["first"], row["second"], row["text"]) == (" Yes.", " No.", " I prefer answer 1.")


@pytest.mark.parametrize("seed", range(4))
def test_where_only_one_order_is_recorded_it_is_the_drawn_one(tmp_path: Path, seed: int) -> None:
    write_pairs(tmp_path, [(PROMPT, " Yes.", " No.")])
    lines = [{"prompt": PROMPT, "first": " No.", "second": " Yes.", "rationale": " It is. ", "verdict": "2"}]
    (row,) = run(tmp_path, write_lines(tmp_path / "r.jsonl", lines), seed=seed)
    assert (row["first"], row["drawn"]) == (" No.", True)
    assert row["text"] == ' {"rationale": "It is.", "verdict": 2}'
    (row,) = run(tmp_path, source(tmp_path / "r.jsonl"), seed=seed, form="brackets")
    assert row["text"] == " It is. [[B]]"
    with pytest.raises(ValueError, match="1 of 2 judgments are not recorded"):
        run(tmp_path, source(tmp_path / "r.jsonl"), seed=seed, orders="both")
    with pytest.raises(ValueError, match="1 of 1 judgments are not recorded"):
        run(tmp_path, source(tmp_path / "r.jsonl"), seed=seed, chosen_first=1)


def test_bare_verdicts_need_no_rationale(tmp_path: Path) -> None:
    write_pairs(tmp_path, [(PROMPT, " Yes.", " No.")])
    recorded = write_lines(tmp_path / "r.jsonl", [{"prompt": "Why?", "first": "Yes.", "second": "No.", "verdict": 1}])
    assert run(tmp_path, recorded, rationale=False)[0]["text"] == ' {"verdict": 1}'
    with pytest.raises(ValueError, match="no column 'rationale'"):
        run(tmp_path, recorded)


def test_several_rows_of_a_pair_are_its_samples_and_too_few_are_an_error(tmp_path: Path) -> None:
    write_pairs(tmp_path, [(PROMPT, " Yes.", " No."), (PROMPT, " Yes.", " Maybe.")])
    lines = [
        {"prompt": "Why?", "first": "Yes.", "second": other, "text": f"{other} {i}"}
        for i in range(2)
        for other in ("No.", "Maybe.")
    ]
    rows = run(tmp_path, write_lines(tmp_path / "r.jsonl", lines), samples=2)
    assert [row["text"] for row in rows] == [" No. 0", " No. 1", " Maybe. 0", " Maybe. 1"]
    message = r"2 of 6 judgments are not recorded. The first one: judgment 3 of prompt '.*Why.*', first ' Yes.'"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, source(tmp_path / "r.jsonl"), samples=3)


def test_judgments_of_another_sweep_can_be_read_again_with_their_hints(tmp_path: Path) -> None:
    write_pairs(tmp_path, [(PROMPT, " Yes.", " No.")])
    lines = [
        {"prompt": PROMPT, "first": first, "second": second, "hint": hint, "text": f"{first}{hint}"}
        for first, second in ((" Yes.", " No."), (" No.", " Yes."))
        for hint in (0, 1, 2)
    ]
    recorded = write_lines(tmp_path / "r.jsonl", lines)
    rows = run(tmp_path, recorded, hints=True, orders="both")
    assert [row["text"] for row in rows] == [f" {row['first'].strip()}{row['hint']}" for row in rows]
    again = tmp_path / "again.parquet"
    (tmp_path / "judgments.parquet").rename(again)
    assert run(tmp_path, source(again), hints=True, orders="both") == rows


def test_a_recorded_judgment_that_was_not_read_stays_so_with_its_reason(tmp_path: Path) -> None:
    write_pairs(tmp_path, [(PROMPT, " Yes.", " No.")])
    pair = {"prompt": "Why?", "first": "Yes.", "second": "No."}
    lines = [pair | {"text": " ", "unread": "too long: 9 tokens"}, pair | {"text": "1", "unread": ""}]
    rows = run(tmp_path, write_lines(tmp_path / "r.jsonl", lines), samples=2)
    assert [(row["text"], row["unread"]) for row in rows] == [(" ", "too long: 9 tokens"), (" 1", "")]


def test_rows_without_an_answer_are_left_out_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path, [(PROMPT, " Yes.", " No.")])
    lines = [
        {"prompt": "Why?", "first": None, "second": "No.", "text": "x"},
        {"prompt": "Why?", "first": "Yes.", "second": "No.", "text": "y"},
    ]
    assert run(tmp_path, write_lines(tmp_path / "r.jsonl", lines))[0]["text"] == " y"
    assert "left out 1 rows without a question or answer: ['line 1']" in capsys.readouterr().out


def test_what_is_wrong_with_a_row_is_said_with_its_place(tmp_path: Path) -> None:
    write_pairs(tmp_path, [(PROMPT, " Yes.", " No.")])
    pair = {"prompt": "Why?", "first": "Yes.", "second": "No."}
    for wrong, message in (
        ({"prompt": "Why?", "first": "Yes.", "text": "x"}, "line 1: no column 'second' among"),
        (pair | {"text": 3}, "line 1: text is a int, not text"),
        (pair | {"rationale": None, "verdict": 1}, "line 1: rationale is a NoneType, not text"),
        (pair | {"rationale": "x", "verdict": None}, "line 1: verdict is a NoneType, not 1 or 2"),
    ):
        recorded = write_lines(tmp_path / "r.jsonl", [wrong])
        with pytest.raises(ValueError, match=message):
            run(tmp_path, recorded)


@pytest.mark.skipif(not CON_J.exists(), reason=f"the recorded judgments of Con-J are not here ({CON_J})")
def test_the_recorded_judgments_of_con_j_become_verdicts(tmp_path: Path) -> None:
    """Its columns have other names; one of 1,904 rows has no answers, and one has the same answer twice."""
    lines = [json.loads(line) for line in gzip.decompress(CON_J.read_bytes()).splitlines()]
    rows = []
    for line in lines:
        if line["answer_1"] and line["answer_2"]:
            answers = [f" {line[name].strip()}" for name in ("answer_1", "answer_2")]
            rows.append((as_prompt(line["question"]), answers[line["label"] - 1], answers[2 - line["label"]]))
    write_pairs(tmp_path, rows)
    columns = {"prompt": "question", "first": "answer_1", "second": "answer_2"}
    judgments = run(tmp_path, source(CON_J), backend={"columns": columns})
    verdicts = judge_parse(JudgeParseConfig(strict=True), tmp_path, judgments=[tmp_path])
    found = tables.VERDICTS.read(tmp_path).column("verdict").to_pylist()
    assert (len(lines), len(rows), len(judgments)) == (1904, 1903, 1903)
    assert round(verdicts["unparsed_rate"] * 1903) == 3
    right = [
        judgment[("first", "second")[verdict - 1]] == row[1]
        for judgment, verdict, row in zip(judgments, found, rows, strict=True)
        if verdict
    ]
    assert sum(right) == sum(line["verdict"] == str(line["label"]) for line in lines if line["answer_1"])

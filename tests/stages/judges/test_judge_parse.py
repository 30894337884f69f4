"""Verdicts: a strict reading takes only what was asked for, a lenient one the last verdict in the text."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import tables
from workers.judges.configs import Form, JudgeParseConfig
from workers.judges.parse import judge_parse, lenient_verdict, strict_verdict
from workers.judges.requests import format_judgment

CON_J = Path("/work/shared/data/con-j/judged-code-pairs.jsonl.gz")

#: Pieces of judgments, right and wrong, that make texts near the border of what can be read.
PIECES = [
    *('{"rationale": "', "good", '", "verdict": ', '{"verdict": ', '"', "}", "{", "1", "2", "3", "\\", "\n", " ", ", "),
    *("[[A]]", "[[B]]", "[[C]]", "```", "verdict: ", " or ", "not ", "Answer 1 is better", "Answer B is better. "),
]
pieces = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
judgments = st.builds(
    format_judgment, pieces, st.sampled_from([1, 2, 3]), st.sampled_from(["json", "brackets"])
) | st.builds(format_judgment, st.none(), st.sampled_from([1, 2, 3]), st.sampled_from(["json", "brackets"]))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"rationale": "Because.", "verdict": 2}', 2),
        (' {"rationale": "Say [[A]] or \\"verdict\\": 1", "verdict": 2}\n', 2),
        ('{"verdict": 2, "rationale": "Because."}', 0),  # the verdict came before its reasons
        ('{"rationale": "Because.", "verdict": "2"}', 0),
        ('{"rationale": "Because.", "verdict": 3}', 0),
        ('{"rationale": "Because.", "verdict": true}', 0),
        ('{"rationale": "Because.", "verdict": 1.0}', 0),
        ('{"rationale": " ", "verdict": 1}', 0),
        ('{"rationale": ["Because."], "verdict": 1}', 0),
        ('{"rationale": "Because.", "verdict": 1, "sure": 1}', 0),
        ('{"rationale": "Because.", "verdict": 1, "verdict": 2}', 0),
        ('[["rationale", "Because."], ["verdict", 1]]', 0),
        ('```json\n{"rationale": "Because.", "verdict": 1}\n```', 0),
        ('Sure: {"rationale": "Because.", "verdict": 1}', 0),
        ('{"rationale": "Because.", "verdict": 1', 0),
        ("{" * 5000, 0),
        ("", 0),
    ],
)
def test_strict_json_is_an_object_with_the_rationale_first_and_nothing_else(text: str, verdict: int) -> None:
    assert strict_verdict(text, "json", True) == verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("A is wrong.\nSo [[B]]", 2),
        ("A is right. [[A]] \n", 1),
        ("[[A]]", 0),  # no reasons
        ("A is right. [[A]].", 0),
        ("[[A]] is wrong, so [[B]]", 0),
        ("So [[C]]", 0),
        ("So [[b]]", 0),
        ("So [B]", 0),
    ],
)
def test_strict_brackets_end_the_text_and_stand_there_once(text: str, verdict: int) -> None:
    assert strict_verdict(text, "brackets", True) == verdict


def test_without_a_rationale_only_the_bare_verdict_is_strict() -> None:
    assert strict_verdict('{"verdict": 2}', "json", False) == 2
    assert strict_verdict('{"rationale": "x", "verdict": 2}', "json", False) == 0
    assert strict_verdict(" [[A]]", "brackets", False) == 1
    assert strict_verdict("So [[A]]", "brackets", False) == 0


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('Sure!\n```json\n{"rationale": "line\nbreak", "verdict": 1}\n```', 1),
        ('{"verdict": 2, "rationale": "not verdict: 1"}', 2),
        ('{"rationale": "x", "verdict": "1"}', 1),
        ('{"rationale": "x", "verdict": "Answer 2"}', 2),
        ("{'rationale': 'x', 'verdict': 2}", 2),
        ('{"rationale": "it said "no", "verdict": 2}', 2),  # a quote that was not escaped
        ('{"rationale": "cut off, "verdict": 1', 1),
        ('{"verdict": 1} On second thoughts: {"verdict": 2}', 2),
        ('{"judgment": {"verdict": 2}}', 2),
        ("**Verdict:** 2", 2),
        ("Verdict: Answer 1 is better.", 1),
        ('{"rationale": "Answer 1 is better", "verdict": 3}', 0),
        ('{"rationale": "x", "verdict": 1.5}', 0),
        ('Reply with {"rationale": "your explanation", "verdict": 1 or 2}', 0),  # the request said again
        ("I think so. [[B]]", 2),
        ("Answer 1 is better.", 1),
        ("The first is long. The better answer is 2!", 2),
        ("Answer 1 is clearly better than answer 2.", 1),
        ("Answer 1 is better. Answer 2 is better.", 0),
        ("I do not think that answer 1 is better.", 0),
        ("Tell me whether answer 1 is better.", 0),
        (" 2\n", 2),
        ("2 of them are fine", 0),
        ("", 0),
    ],
)
def test_a_lenient_reading_of_json_finds_the_last_verdict(text: str, verdict: int) -> None:
    assert lenient_verdict(text, "json") == verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("[[A]] at first, but then [[B]]. Done", 2),
        ("First [[A]], in the end a tie: [[C]]", 0),
        ("[[a]]", 1),
        ("End with [[A]] or [[B]].", 0),  # the request said again
        ("End with [[A]] or [[B]]. So: [[A]]", 1),
        ("x[[1]] is R code", 0),
        ('{"verdict": 2}', 2),
        ("Answer B is better.", 2),
        ("A", 1),
        ("A reason is missing", 0),
    ],
)
def test_a_lenient_reading_of_brackets_finds_the_last_verdict(text: str, verdict: int) -> None:
    assert lenient_verdict(text, "brackets") == verdict


@given(text=judgments | pieces | st.text(), form=st.sampled_from(["json", "brackets"]), rationale=st.booleans())
def test_what_a_strict_reading_reads_a_lenient_one_reads_likewise(text: str, form: Form, rationale: bool) -> None:
    verdict = strict_verdict(text, form, rationale)
    assert verdict in (0, 1, 2)
    assert lenient_verdict(text, form) == verdict or verdict == 0


def shard(folder: Path, texts: list[str], unread: list[str] | None = None) -> Path:
    folder.mkdir()
    columns: dict[str, object] = {
        "prompt": [f"\n\nHuman: {i}?\n\nAssistant:" for i in range(len(texts))],
        "first": [" x"] * len(texts),
        "second": [" y"] * len(texts),
        "drawn": [True] * len(texts),
        "hint": [0] * len(texts),
        "sample": [0] * len(texts),
        "request": ["\n\nHuman: Which?\n\nAssistant:"] * len(texts),
        "text": texts,
        "unread": unread or [""] * len(texts),
    }
    tables.JUDGMENTS.write(columns, folder)
    return folder


def test_verdicts_of_all_shards_are_written_in_order_and_counted(tmp_path: Path) -> None:
    shards = [
        shard(tmp_path / "0", ['{"rationale": "x", "verdict": 1}', "?", "Answer 2 is better."]),
        shard(tmp_path / "1", ['{"rationale": "x", "verdict": 1}']),
    ]
    strict = judge_parse(JudgeParseConfig(strict=True), tmp_path, judgments=shards)
    assert strict == {"verdicts": 4, "unparsed_rate": 0.5, "unread_judgments": 0, "first_position_rate": 1.0}
    lenient = judge_parse(JudgeParseConfig(), tmp_path, judgments=shards)
    assert lenient == {"verdicts": 4, "unparsed_rate": 0.25, "unread_judgments": 0, "first_position_rate": 2 / 3}
    assert set(lenient) == set(JudgeParseConfig().declared())
    table = tables.VERDICTS.read(tmp_path)
    assert table.column("verdict").to_pylist() == [1, 0, 2, 1]
    assert table.column("prompt").to_pylist()[3] == "\n\nHuman: 0?\n\nAssistant:"


def test_a_judge_that_never_says_prefers_no_position(tmp_path: Path) -> None:
    metrics = judge_parse(JudgeParseConfig(), tmp_path, judgments=[shard(tmp_path / "0", ["?", ""])])
    assert metrics == {"verdicts": 2, "unparsed_rate": 1.0, "unread_judgments": 0, "first_position_rate": 0.5}


@pytest.mark.parametrize("strict", [True, False])
def test_a_judgment_that_was_not_read_is_no_verdict_and_keeps_its_reason(tmp_path: Path, strict: bool) -> None:
    said = '{"rationale": "x", "verdict": 1}'
    reasons = ["", "refused: HTTP 400", "too long: the request has 9 tokens, 8 allowed"]
    shards = [shard(tmp_path / "0", [said, said, " "], reasons)]
    metrics = judge_parse(JudgeParseConfig(strict=strict), tmp_path, judgments=shards)
    assert metrics == {"verdicts": 3, "unparsed_rate": 2 / 3, "unread_judgments": 2, "first_position_rate": 1.0}
    table = tables.VERDICTS.read(tmp_path)
    assert table.column("verdict").to_pylist() == [1, 0, 0]
    assert table.column("unread").to_pylist() == reasons


def test_no_judgments_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no judgments"):
        judge_parse(JudgeParseConfig(), tmp_path, judgments=[shard(tmp_path / "0", [])])


@pytest.mark.skipif(not CON_J.exists(), reason=f"the recorded judgments of Con-J are not here ({CON_J})")
@pytest.mark.parametrize("form", ["json", "brackets"])
def test_the_recorded_judgments_of_con_j_are_read_but_for_three_with_verdict_3(form: Form) -> None:
    rows = [json.loads(line) for line in gzip.decompress(CON_J.read_bytes()).splitlines()]
    texts = [format_judgment(row["rationale"], row["verdict"], form) for row in rows]
    strict = [strict_verdict(text, form, True) for text in texts]
    assert strict == [lenient_verdict(text, form) for text in texts]
    assert Counter(strict) == {1: 893, 2: 1008, 0: 3}
    assert {row["verdict"] for row, verdict in zip(rows, strict, strict=True) if not verdict} == {"3"}

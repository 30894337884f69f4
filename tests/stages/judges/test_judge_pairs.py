"""Contrastive pairs of judgments: Con-J's caps, types and counts, and label noise without new sampling."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judgments import Row, Said, read_pairs, samples, write_preferences, write_verdicts

from workers.judges.configs import JudgePairsConfig, SurvivingRowsConfig
from workers.judges.contrastive_pairs import judge_pairs
from workers.judges.surviving_rows import surviving_rows

A, B, C = (Row(f"p{i}", f" good {i}", f" bad {i}") for i in range(3))
CON_J = Path("/work/shared/data/con-j/judged-code-pairs.jsonl.gz")


def run(
    folder: Path, rows: list[Row], said: list[Said], config: JudgePairsConfig | None = None
) -> tuple[list[dict[str, str]], dict[str, float]]:
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    config = config or JudgePairsConfig()
    metrics = judge_pairs(
        config,
        out,
        verdicts=write_verdicts(folder / "verdicts", said),
        preferences=write_preferences(folder / "preferences", rows),
    )
    assert set(metrics) == set(config.declared())
    return read_pairs(out), metrics


@pytest.mark.parametrize(
    ("verdicts", "hinted", "expected"),
    [
        ("RRRRWWWW", "", {"repeated": 3}),
        ("RRRRRRRW", "", {"repeated": 1}),
        ("RRWWWW--", "", {"repeated": 2, "unparsed": 1}),
        ("R-------", "", {"unparsed": 1}),
        ("RRRRWW--", "RW", {"repeated": 2, "unparsed": 1, "hinted": 1}),
        ("RRRRRRRR", "RW", {"hinted": 1}),
        ("WWWWWWWW", "RW", {"hinted": 1}),
        # A hint that was not followed is not a pair of a true and a false one.
        ("RRRRRRRW", "RR", {"repeated": 1}),
        ("RRRRRRRW", "WW", {"repeated": 1}),
    ],
)
def test_a_row_gives_at_most_three_one_and_one(
    verdicts: str, hinted: str, expected: dict[str, int], tmp_path: Path
) -> None:
    said = samples(A, verdicts)
    for hint, verdict in enumerate(hinted, start=1):
        said += samples(A, verdict, hint=hint)
    pairs, metrics = run(tmp_path, [A], said)
    assert Counter(pair["subset"] for pair in pairs) == expected
    assert {kind: metrics[f"{kind}_pairs"] for kind in expected} == expected
    assert metrics["pairs"] == sum(expected.values())
    for pair in pairs:
        assert pair["chosen"][0] == "R"
        assert pair["rejected"][0] == ("-" if pair["subset"] == "unparsed" else "W")
        assert pair["prompt"] == said[0].request
    repeated = [pair for pair in pairs if pair["subset"] == "repeated"]
    for side in ("chosen", "rejected"):
        assert len({pair[side] for pair in repeated}) == len(repeated), "each judgment is in one repeated pair"


def test_rows_are_counted_by_why_they_gave_no_pair(tmp_path: Path) -> None:
    rows = [A, B, C, Row("p3", " x", " y"), Row("p4", " x", " y"), Row("p5", " x", " y")]
    said = [
        *samples(A, "RW"),
        *samples(B, "RRR"),
        *samples(C, "WW-"),
        *samples(rows[3], "--"),
        *samples(rows[4], "W"),
    ]
    _, metrics = run(tmp_path, rows, said)
    counts = {name: value for name, value in metrics.items() if name.endswith(("_rows", "pairs")) and value}
    assert counts == {
        "pairs": 1,
        "repeated_pairs": 1,
        "rows_with_pairs": 1,
        "rows_without_pairs": 5,
        "all_right_rows": 1,
        "all_wrong_rows": 2,
        "unjudged_rows": 1,
    }


def test_what_the_judge_did_not_write_is_in_no_pair(tmp_path: Path) -> None:
    refused = Said(A.prompt, A.chosen, A.rejected, 0, " ", sample=1, unread="filtered: the content")
    with pytest.raises(ValueError, match="no pair of a right and a wrong judgment"):
        run(tmp_path / "alone", [A], [*samples(A, "R"), refused])
    pairs, metrics = run(tmp_path / "among", [A], [*samples(A, "R-"), refused])
    assert [pair["rejected"] for pair in pairs] == ["-1 on p0"]
    assert (metrics["unparsed_pairs"], metrics["rows_with_pairs"]) == (1, 1)


def test_the_label_of_the_preferences_decides_and_not_the_one_that_was_judged(tmp_path: Path) -> None:
    said = [*samples(A, "RRWW-"), *samples(A, "R", hint=1), *samples(A, "W", hint=2)]
    straight, _ = run(tmp_path / "straight", [A], said)
    turned, metrics = run(tmp_path / "turned", [Row(A.prompt, A.rejected, A.chosen)], said)
    assert metrics["pairs"] == 4
    both_read = [[pair for pair in pairs if pair["subset"] != "unparsed"] for pairs in (straight, turned)]
    swapped = [{**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} for pair in both_read[1]]
    assert swapped == both_read[0], "the same judgments are paired, the other way round"
    assert turned[2]["chosen"][0] == "W"
    assert turned[2]["rejected"][0] == "-"


def test_pairs_are_of_one_request_in_both_orders(tmp_path: Path) -> None:
    said = [*samples(A, "RRRRW"), *samples(A, "RWWWWW", turned=True)]
    pairs, metrics = run(tmp_path, [A], said)
    assert [pair["prompt"] for pair in pairs] == [said[0].request, said[-1].request]
    for pair in pairs:
        assert ("t on" in pair["chosen"]) == ("t on" in pair["rejected"])
    assert metrics["rows_with_pairs"] == 1
    with pytest.raises(ValueError, match="no pair"):
        run(tmp_path, [A], [*samples(A, "RRR"), *samples(A, "WWW", turned=True)])


def test_judgments_of_other_rows_and_repeated_ones_are_not_used(tmp_path: Path) -> None:
    said = [*samples(A, "RW"), *samples(B, "RW")]
    once, _ = run(tmp_path / "once", [A], said)
    twice, metrics = run(tmp_path / "twice", [A], [*said, *said])
    assert once == twice
    assert metrics["pairs"] == 1


def test_a_preference_that_is_there_twice_gives_its_pairs_twice(tmp_path: Path) -> None:
    """As it counts twice for a scalar model."""
    pairs, metrics = run(tmp_path, [A, A], samples(A, "RW"))
    assert pairs[0] == pairs[1]
    assert (len(pairs), metrics["rows_with_pairs"]) == (2, 2)


def test_the_seed_chooses_and_the_order_of_the_judgments_does_not(tmp_path: Path) -> None:
    said = samples(A, "R" * 12 + "W" * 12)
    seeds = [run(tmp_path, [A], said, JudgePairsConfig(seed=seed))[0] for seed in range(3)]
    assert seeds[0] == run(tmp_path, [A], said[::-1])[0]
    assert seeds[0] != seeds[1] != seeds[2]


@settings(max_examples=25, deadline=None)
@given(
    verdicts=st.lists(st.text("RW-", max_size=9), min_size=1, max_size=4),
    caps=st.tuples(st.integers(0, 4), st.integers(0, 2)).filter(any),
)
def test_counts_are_the_formula(
    verdicts: list[str], caps: tuple[int, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [Row(f"p{i}", " a", " b") for i in range(len(verdicts))]
    said = [each for row, text in zip(rows, verdicts, strict=True) for each in samples(row, text)]
    config = JudgePairsConfig(repeated=caps[0], unparsed=caps[1], hinted=0)
    counts = [Counter(text) for text in verdicts]
    repeated = [min(count["R"], count["W"], caps[0]) for count in counts]
    unparsed = [min(count["R"], count["-"], caps[1]) for count in counts]
    folder = tmp_path_factory.mktemp("formula")
    if sum(repeated + unparsed) == 0:
        with pytest.raises(ValueError, match=r"no pair|none of its"):
            run(folder, rows, said, config)
        return
    _, metrics = run(folder, rows, said, config)
    assert (metrics["repeated_pairs"], metrics["unparsed_pairs"]) == (sum(repeated), sum(unparsed))
    assert metrics["rows_with_pairs"] == sum(map(any, zip(repeated, unparsed, strict=True)))


def test_nothing_to_pair_is_an_error_that_counts_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"2 rows \(1 not judged\) have 2 right, 0 wrong and 0 unreadable.*hints: true"
    ):
        run(tmp_path, [A, B], samples(A, "RR"))
    with pytest.raises(ValueError, match="none of its 2 judgments is about one of the 1 rows"):
        run(tmp_path, [B], samples(A, "RW"))


def test_surviving_rows_are_those_that_gave_pairs(tmp_path: Path) -> None:
    said = [*samples(A, "RW"), *samples(B, "RR"), *samples(C, "WR", turned=True)]
    run(tmp_path, [A, B, C], said)
    survivors = tmp_path / "survivors"
    survivors.mkdir()
    config = SurvivingRowsConfig()
    inputs = {"preferences": tmp_path / "preferences", "verdicts": tmp_path / "verdicts", "pairs": tmp_path / "out"}
    metrics = surviving_rows(config, survivors, **inputs)
    assert metrics == {"preferences": 2, "lost_rows": 1}
    assert set(metrics) == set(config.declared())
    assert [row["prompt"] for row in read_pairs(survivors)] == ["p0", "p2"]
    with pytest.raises(ValueError, match="no pair is about one of the 3 rows"):
        surviving_rows(config, survivors, **{**inputs, "pairs": inputs["preferences"]})


def recorded() -> list[dict[str, Any]]:
    if not CON_J.is_file():
        pytest.skip(f"{CON_J} is not on this machine")
    with gzip.open(CON_J, "rt") as lines:
        found = [json.loads(line) for line in lines]
    assert len(found) == 1904
    return [each for each in found if each["answer_1"] is not None]  # row 32291 has no answers


def test_con_js_recorded_judgments_are_paired_with_counts(tmp_path: Path) -> None:
    """One judgment a row cannot be paired with another of its row. Beside a made-up right one, each wrong one can."""
    rows, said = [], []
    for each in recorded():
        answers = (each["answer_1"], each["answer_2"])
        chosen, rejected = answers if each["label"] == 1 else answers[::-1]
        rows.append(Row(each["question"], chosen, rejected))
        verdict = int(each["verdict"]) if each["verdict"] in ("1", "2") else 0
        said.append(Said(each["question"], *answers, verdict, each["rationale"]))
    with pytest.raises(ValueError, match=r"1903 rows \(0 not judged\) have 1316 right, 584 wrong and 3 unreadable"):
        run(tmp_path, rows, said)
    for each, row in zip(said[:], rows, strict=True):
        right = 1 if each.first == row.chosen else 2
        said.append(each._replace(verdict=right, text="by the label", sample=1))
    _, metrics = run(tmp_path, rows, said)
    found = {name: value for name, value in metrics.items() if value}
    assert found == {
        "pairs": 587,
        "repeated_pairs": 584,
        "unparsed_pairs": 3,
        "rows_with_pairs": 587,
        "rows_without_pairs": 1316,
        "all_right_rows": 1316,
    }

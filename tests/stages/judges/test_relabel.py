"""Pairs of a policy's responses, and preferences as a judge sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from verdict_artifacts import (
    Pair,
    always_first,
    judged,
    longer,
    mute,
    oracle,
    verdict,
    write_preferences,
    write_verdicts,
)

from workers import tables
from workers.judges.configs import RelabelConfig, ResponsePairsConfig
from workers.judges.pairs_to_judge import response_pairs
from workers.judges.relabel import relabel

PAIRS = [
    Pair("p0", " one", " three", "kept"),
    Pair("p1", " seven", " six"),
    Pair("p2", " four", " eleven"),
    Pair("p3", " nine", " ten"),
]


def preferences_in(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tables.PREFERENCES.read(folder).to_pylist()
    return rows


@pytest.fixture
def run(tmp_path: Path) -> Callable[[list[dict[str, Any]]], tuple[dict[str, float], list[dict[str, Any]]]]:
    def label(verdicts: list[dict[str, Any]]) -> tuple[dict[str, float], list[dict[str, Any]]]:
        (tmp_path / "out").mkdir(exist_ok=True)
        metrics = relabel(
            RelabelConfig(),
            tmp_path / "out",
            preferences=write_preferences(tmp_path / "preferences", PAIRS),
            verdicts=write_verdicts(tmp_path / "verdicts", verdicts),
        )
        assert set(metrics) == set(RelabelConfig().declared())
        return metrics, preferences_in(tmp_path / "out")

    return label


Run = Callable[[list[dict[str, Any]]], tuple[dict[str, float], list[dict[str, Any]]]]


@pytest.mark.parametrize("orders", ["drawn", "both"])
def test_the_chosen_answer_becomes_the_one_that_the_judge_prefers(run: Run, orders: str) -> None:
    metrics, rows = run(judged(PAIRS, longer, orders, samples=3))
    assert [(row["chosen"], row["rejected"]) for row in rows] == [
        (" three", " one"), (" seven", " six"), (" eleven", " four"), (" nine", " ten"),
    ]  # fmt: skip
    assert [row["subset"] for row in rows] == ["kept", "", "", ""]
    assert metrics == {"preferences": 4, "turned_rate": 0.5, "undecided_rows": 0}


def test_a_judge_that_agrees_with_the_labels_turns_none(run: Run) -> None:
    metrics, rows = run(judged(PAIRS, oracle))
    assert rows == [pair._asdict() for pair in PAIRS]
    assert metrics["turned_rate"] == 0


def test_pairs_without_a_verdict_or_with_two_different_ones_are_lost_and_counted(run: Run) -> None:
    says = [
        verdict("p0", " one", " three", 0),  # unread
        verdict("p1", " seven", " six", 1),
        verdict("p1", " six", " seven", 1, drawn=False),  # the first place, whatever stands there
        verdict("p2", " four", " eleven", 2),
        verdict("p2", " eleven", " four", 1, drawn=False),
        verdict("p3", " ten", " nine", 2),
    ]
    metrics, rows = run(says)
    assert [(row["prompt"], row["chosen"]) for row in rows] == [("p2", " eleven"), ("p3", " nine")]
    assert metrics == {"preferences": 2, "turned_rate": 0.5, "undecided_rows": 2}


def test_nothing_decided_or_nothing_asked_is_an_error(run: Run) -> None:
    for says in (judged(PAIRS, mute), judged(PAIRS, always_first, "both")):
        with pytest.raises(ValueError, match=r"decided none of the 4 pairs of .*unparsed_rate"):
            run(says)
    with pytest.raises(ValueError, match="no verdict about ' nine' and ' ten', answers to 'p3'"):
        run(judged(PAIRS, oracle)[:3])


Write = Callable[[list[list[str]]], Path]


def test_neighbouring_responses_become_pairs_of_all_shards_in_order(
    tmp_path: Path, tiny_write_responses: Write
) -> None:
    shards = [
        tiny_write_responses([[" a", " b", " c", " d", " e"], [" f", " f", " g", " h", " i"]]),
        tiny_write_responses([[" k\n\nHuman: no", " k\n\nHuman: yes", " m", " n", " o"]]),
    ]
    config = ResponsePairsConfig(pairs=2)
    metrics = response_pairs(config, tmp_path, responses=shards)
    assert set(metrics) == set(config.declared())
    rows = preferences_in(tmp_path)
    assert [(row["chosen"], row["rejected"]) for row in rows] == [
        (" a", " b"), (" c", " d"), (" g", " h"), (" m", " n"),
    ]  # fmt: skip
    # What the policy writes after its turn has ended is no part of its answer.
    assert metrics == {"preferences": 4, "equal_pairs": 2}
    assert [row["prompt"] for row in rows] == [rows[0]["prompt"]] * 2 + [rows[2]["prompt"], rows[0]["prompt"]]
    uncut = response_pairs(ResponsePairsConfig(pairs=2, cut_at=None), tmp_path, responses=shards)
    assert uncut == {"preferences": 5, "equal_pairs": 1}


def test_too_few_or_all_equal_responses_are_refused_with_the_remedy(
    tmp_path: Path, tiny_write_responses: Write
) -> None:
    three = tiny_write_responses([[" a", " a", " b"], [" c", " c", " d"]])
    with pytest.raises(ValueError, match="2 pairs per prompt need 4 responses, but there are 3: raise `responses`"):
        response_pairs(ResponsePairsConfig(pairs=2), tmp_path, responses=[three])
    with pytest.raises(ValueError, match="all 2 pairs are twice the same response: raise `temperature`"):
        response_pairs(ResponsePairsConfig(), tmp_path, responses=[three])
    with pytest.raises(ValueError, match=r"2 responses per prompt, but .* has 3"):
        response_pairs(ResponsePairsConfig(), tmp_path, responses=[three, tiny_write_responses([[" a", " b"]])])

"""Credit by row, and what sways a judge: exact values for judges whose behaviour is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from verdict_artifacts import (
    REAL_DATA,
    Judge,
    Pair,
    always_first,
    chosen_first,
    evalbiasbench,
    judged,
    llmbar,
    longer,
    mute,
    oracle,
    verdict,
    write_preferences,
    write_verdicts,
)

from workers import tables
from workers.judges.configs import JudgeEvaluateConfig
from workers.judges.evaluate import judge_evaluate
from workers.judges.judged_pairs import JudgedPairs, majority

FOUR = [
    Pair("p0", " long chosen", " short", "a/x"),
    Pair("p1", " tiny", " quite long", "a/y"),
    Pair("p2", " same", " size", "b"),
    Pair("p3", " good one", " bad", "b"),
]
AB = {"a": "pairs", "b": "pairs"}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[dict[str, float], list[dict[str, Any]]]]:
    def evaluate(
        pairs: Sequence[Pair], verdicts: list[dict[str, Any]], sets: dict[str, Any], both_orders: bool = False
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        config = JudgeEvaluateConfig(sets=sets, both_orders=both_orders)
        (tmp_path / "out").mkdir(exist_ok=True)
        metrics = judge_evaluate(
            config,
            tmp_path / "out",
            verdicts=write_verdicts(tmp_path / "verdicts", verdicts),
            test_sets=write_preferences(tmp_path / "sets", pairs),
        )
        assert set(metrics) == set(config.declared())
        assert all(type(value) is float for value in metrics.values())
        assert all(0 <= value <= 1 for value in metrics.values())
        return metrics, tables.JUDGED_ROWS.read(tmp_path / "out").to_pylist()

    return evaluate


Run = Callable[..., tuple[dict[str, float], list[dict[str, Any]]]]


def test_credit_is_one_for_the_right_answer_half_for_none_and_the_mean_over_samples(run: Run) -> None:
    says = [
        verdict("p0", " long chosen", " short", 1),
        verdict("p0", " long chosen", " short", 0, 1),
        verdict("p1", " quite long", " tiny", 1),
        verdict("p1", " quite long", " tiny", 2, 1),
        verdict("p2", " size", " same", 0),
        verdict("p2", " size", " same", 0, 1),
        verdict("p3", " good one", " bad", 2),
        verdict("p3", " good one", " bad", 2, 1),
    ]
    # Neither a hint nor the other order counts, nor an answer to another pair.
    says += [verdict("p3", " good one", " bad", 1, hint=1), verdict("p3", " bad", " good one", 2, drawn=False)]
    says += [verdict("p9", " good one", " bad", 1)]
    metrics, rows = run(FOUR, says, AB)
    assert [row["credit"] for row in rows] == [0.75, 0.5, 0.5, 0.0]
    assert [(row["subset"], row["prompt"]) for row in rows] == [(pair.subset, pair.prompt) for pair in FOUR]
    assert metrics["accuracy"] == 0.4375
    assert JudgeEvaluateConfig(sets=AB).declared()["accuracy"].column == "credit"
    # Of two sets, each is the mean over a part of the rows.
    assert JudgeEvaluateConfig(sets=AB).declared()["a_accuracy"].column == ""
    assert metrics["a_accuracy"] == 0.625
    assert metrics["b_accuracy"] == 0.25
    # Of nine verdicts about these rows three could not be read; of the six others two point to the first.
    assert metrics["parse_failure_rate"] == pytest.approx(3 / 9)
    assert metrics["first_position_share"] == pytest.approx(2 / 6)
    # p2 has answers of equal length: of six read ones, long chosen, quite long and good one are the longer ones.
    assert metrics["length_agreement"] == pytest.approx(3 / 6)


def test_both_orders_count_judgments_that_stay_right_or_the_same(run: Run) -> None:
    says = [
        verdict("p0", " long chosen", " short", 1),
        verdict("p0", " short", " long chosen", 2, drawn=False),  # right in both
        verdict("p1", " quite long", " tiny", 1),
        verdict("p1", " tiny", " quite long", 2, drawn=False),  # wrong in both, hence consistent
        verdict("p2", " size", " same", 2),
        verdict("p2", " same", " size", 2, drawn=False),  # right, then wrong
        verdict("p3", " good one", " bad", 1),
        verdict("p3", " bad", " good one", 0, drawn=False),  # right, then unread
    ]
    metrics, rows = run(FOUR, says, AB, both_orders=True)
    assert metrics["both_order_accuracy"] == 0.25
    assert metrics["consistency"] == 0.5
    assert [row["credit"] for row in rows] == [1, 0, 1, 1]


def test_samples_of_the_two_orders_are_compared_one_by_one(run: Run) -> None:
    pair = Pair("p", " yes", " no way")
    straight, turned = [1, 1, 2, 2, 1], [2, 2, 1, 1, 1]
    says = [verdict("p", " yes", " no way", answer, sample) for sample, answer in enumerate(straight)]
    # However the rows lie in the table.
    says += [verdict("p", " no way", " yes", turned[sample], sample, drawn=False) for sample in (4, 3, 2, 1, 0)]
    metrics, rows = run([pair], says, {"mine": "pairs"}, both_orders=True)
    assert metrics["both_order_accuracy"] == 2 / 5
    assert metrics["consistency"] == 4 / 5
    assert metrics["first_position_share"] == 6 / 10
    assert rows[0]["credit"] == 3 / 5


@pytest.mark.parametrize("orders", ["drawn", "both"])
def test_a_judge_whose_every_text_is_unreadable_still_gives_a_cell(run: Run, orders: str) -> None:
    metrics, rows = run(FOUR, judged(FOUR, mute, orders, samples=3), AB, both_orders=orders == "both")
    assert [row["credit"] for row in rows] == [0.5] * 4
    for name in ("accuracy", "a_accuracy", "b_accuracy", "first_position_share", "length_agreement"):
        assert metrics[name] == 0.5
    assert metrics["parse_failure_rate"] == 1
    if orders == "both":
        assert metrics["both_order_accuracy"] == metrics["consistency"] == 0


def test_the_label_may_be_the_other_way_round_than_when_the_judge_was_asked(run: Run) -> None:
    says = judged(FOUR, oracle)
    turned = [Pair(pair.prompt, pair.rejected, pair.chosen, pair.subset) for pair in FOUR]
    assert run(turned, says, AB)[0]["accuracy"] == 0


def test_a_part_of_the_pairs_is_evaluated_on_the_same_verdicts_under_names_of_its_own(tmp_path: Path) -> None:
    """As a bias study does: the judge is asked once, and the rows that contradict the bias are a table of theirs."""
    verdicts = write_verdicts(tmp_path / "verdicts", judged(FOUR, longer))
    reversed_rows = [pair for pair in FOUR if len(pair.chosen) < len(pair.rejected)]
    config = JudgeEvaluateConfig(sets={"a": "pairs"}, prefix="reversed_")
    metrics = judge_evaluate(
        config, tmp_path, verdicts=verdicts, test_sets=write_preferences(tmp_path / "sets", reversed_rows)
    )
    assert set(metrics) == set(config.declared())
    assert metrics["reversed_accuracy"] == metrics["reversed_a_accuracy"] == 0
    assert {name for name, metric in config.declared().items() if metric.column == "credit"} == {
        "reversed_accuracy",
        "reversed_a_accuracy",
    }
    assert metrics["reversed_length_agreement"] == 1


def test_rows_without_a_subset_are_the_one_set_that_is_named(run: Run) -> None:
    plain = [pair._replace(subset="") for pair in FOUR]
    assert run(plain, judged(plain, oracle), {"held_out": "pairs"})[0]["held_out_accuracy"] == 1
    with pytest.raises(ValueError, match="rows of '', but `sets` names a, b"):
        run(plain, judged(plain, oracle), AB)


def test_bad_input_is_named_with_its_row_and_the_remedy(run: Run) -> None:
    says = judged(FOUR, oracle)
    with pytest.raises(ValueError, match=r"row 3: .*no verdict about ' good one' and ' bad', answers to 'p3'"):
        run(FOUR, says[:3], AB)
    with pytest.raises(ValueError, match="no verdict about"):
        run(FOUR, [*says[:3], says[3] | {"hint": 1}], AB)
    with pytest.raises(ValueError, match="no verdict of the drawn order about row 3"):
        run(FOUR, [*says[:3], says[3] | {"drawn": False}], AB)
    with pytest.raises(ValueError, match=r"row 0 of .*`orders: both`"):
        run(FOUR, says, AB, both_orders=True)
    with pytest.raises(ValueError, match="rows of 'b', but `sets` names a"):
        run(FOUR, says, {"a": "pairs"})
    with pytest.raises(ValueError, match="`sets` names 'c', but no row"):
        run(FOUR, says, AB | {"c": "pairs"})
    with pytest.raises(ValueError, match="test set 'a': 'x', 'y': no subset of RewardBench's chat"):
        run(FOUR, says, AB | {"a": {"rewardbench": ["chat"]}})
    with pytest.raises(ValueError, match=r"row 0: both answers to 'p' are ' x'"):
        run([Pair("p", " x", " x")], says, {"mine": "pairs"})
    with pytest.raises(ValueError, match="no rows to test on"):
        run([], says, AB)
    with pytest.raises(ValueError, match="verdict 3 about 'p0'"):
        run(FOUR, [says[0] | {"verdict": 3}, *says[1:]], AB)


def test_a_judge_has_decided_where_every_order_it_was_asked_in_has_the_same_majority(tmp_path: Path) -> None:
    cases: dict[str, tuple[list[int], list[int], str | None]] = {
        "one order": ([1], [], " x"),
        "majority": ([2, 2, 1, 0], [], " y"),
        "tie": ([1, 2], [], None),
        "unread": ([0, 0], [], None),
        "both agree": ([1], [2], " x"),
        "both for y": ([2], [1], " y"),
        "always first": ([1], [1], None),
        "other order unread": ([1], [0], None),
        "majorities agree": ([1, 1, 2], [2, 0, 2], " x"),
        "majority and tie": ([1, 1, 2], [2, 1], None),
    }
    rows = []
    for prompt, (straight, turned, _) in cases.items():
        rows += [verdict(prompt, " x", " y", says, sample) for sample, says in enumerate(straight)]
        rows += [verdict(prompt, " y", " x", says, sample, drawn=False) for sample, says in enumerate(turned)]
    judged_pairs = JudgedPairs(write_verdicts(tmp_path / "v", rows), repeats="each")
    for prompt, (_, _, expected) in cases.items():
        for pair in ((" x", " y"), (" y", " x")):
            found = majority(judged_pairs.verdicts_about(prompt, *pair))
            assert (None if found is None else pair[0] if found else pair[1]) == expected, prompt


def test_judgments_that_look_alike_are_one_text_to_learn_from_and_several_verdicts_to_count(tmp_path: Path) -> None:
    # A pair that occurs twice, the second time with its labels turned: of equal rewards each row has its own verdict.
    rows = [verdict("p", " x", " y", 2), verdict("p", " y", " x", 1), verdict("p", " x", " y", 1)]
    rows = [row | {"text": "", "request": ""} for row in rows] + [verdict("p", " x", " y", 1, hint=1)]
    folder = write_verdicts(tmp_path, rows)
    each, once = JudgedPairs(folder, repeats="each"), JudgedPairs(folder, repeats="once")
    assert [found.right for found in each.verdicts_about("p", " x", " y")] == [False, True, False]
    assert [found.row for found in once.about("p", " x", " y")] == [0, 3, 1]
    assert [found.true_hint for found in once.about("p", " x", " y")] == [None, True, None]
    assert [found.true_hint for found in once.about("p", " y", " x")] == [None, None, False]
    assert once.about("p", " x", " z") == []


# --- real test sets ---------------------------------------------------------------------------------------------------

CHAT_HARD = {"rewardbench": {"rewardbench": ["chat_hard"], "missing_subsets": "skip"}}


def test_llmbar_has_the_rows_of_the_chat_hard_subsets() -> None:
    pairs = llmbar()
    assert [sum(pair.subset == f"rewardbench/{name}" for pair in pairs) for name in (
        "llmbar-natural", "llmbar-adver-neighbor", "llmbar-adver-GPTInst", "llmbar-adver-GPTOut", "llmbar-adver-manual",
    )] == [100, 134, 92, 47, 46]  # fmt: skip


def test_llmbar_scores_judges_of_known_behaviour_exactly(run: Run) -> None:
    pairs = llmbar()
    straight = sum(chosen_first(pairs)) / 419
    metrics, rows = run(pairs, judged(pairs, oracle, "both"), CHAT_HARD, both_orders=True)
    assert len(rows) == 419
    for name in ("accuracy", "rewardbench_chat_hard", "rewardbench_overall", "both_order_accuracy", "consistency"):
        assert metrics[name] == 1
    assert metrics["first_position_share"] == 0.5
    assert metrics["parse_failure_rate"] == 0

    metrics, rows = run(pairs, judged(pairs, always_first, "both", samples=2), CHAT_HARD, both_orders=True)
    assert metrics["accuracy"] == pytest.approx(straight)
    assert {row["credit"] for row in rows} == {0.0, 1.0}
    assert metrics["first_position_share"] == 1
    assert metrics["both_order_accuracy"] == metrics["consistency"] == 0
    # Shown in both orders, each of the two answers is preferred once.
    assert metrics["length_agreement"] == 0.5

    metrics, _ = run(pairs, judged(pairs, mute, "both"), CHAT_HARD, both_orders=True)
    assert metrics["accuracy"] == metrics["rewardbench_overall"] == 0.5
    assert metrics["parse_failure_rate"] == 1


def test_the_longer_answer_of_llmbar_is_right_as_often_as_counting_characters_says(run: Run) -> None:
    pairs = llmbar()
    right = equal = total = 0
    for file in sorted((REAL_DATA / "llmbar").glob("*.json")):
        for row in json.loads(file.read_text(encoding="utf-8")):
            sizes = len(row["output_1"]), len(row["output_2"])
            total += 1
            equal += sizes[0] == sizes[1]
            right += sizes[row["label"] - 1] > sizes[2 - row["label"]]
    assert (right, equal, total) == LONGER_IS_RIGHT
    metrics, _ = run(pairs, judged(pairs, longer, "both"), CHAT_HARD, both_orders=True)
    assert metrics["length_agreement"] == 1
    # Where lengths are equal this judge says that the first is longer.
    assert metrics["both_order_accuracy"] == pytest.approx(right / total)
    assert metrics["consistency"] == pytest.approx(1 - equal / total)
    drawn = sum(
        len(pair.chosen) > len(pair.rejected) or (len(pair.chosen) == len(pair.rejected) and first)
        for pair, first in zip(pairs, chosen_first(pairs), strict=True)
    )
    assert metrics["accuracy"] == pytest.approx(drawn / total)


#: Of 419 pairs of LLMBar: the right answer has more characters, both have as many, all.
LONGER_IS_RIGHT = (113, 2, 419)


def test_the_subsets_of_llmbar_weigh_by_their_rows(run: Run) -> None:
    pairs = llmbar()
    natural = {pair.prompt for pair in pairs if pair.subset.endswith("natural")}
    says = judged(pairs, oracle)
    for row in says:
        if row["prompt"] not in natural:
            row["verdict"] = 3 - row["verdict"]
    metrics, rows = run(pairs, says, CHAT_HARD)
    assert metrics["rewardbench_chat_hard"] == pytest.approx(sum(row["credit"] for row in rows) / 419)
    # The whole section would be asked for without `missing_subsets: skip`, and it lacks a subset.
    with pytest.raises(ValueError, match="section 'chat_hard' lacks mt-bench-hard"):
        run(pairs, says, {"rewardbench": {"rewardbench": ["chat_hard"]}})


@pytest.mark.parametrize(("judge", "accuracy"), [(oracle, 1.0), (mute, 0.5), (longer, None), (always_first, None)])
def test_evalbiasbench_is_judged_in_a_drawn_order_since_its_label_is_always_the_first(
    run: Run, judge: Judge, accuracy: float | None
) -> None:
    pairs = evalbiasbench()
    assert len(pairs) == 80
    assert len({pair.subset for pair in pairs}) == 6
    metrics, _ = run(pairs, judged(pairs, judge), {"bias": "pairs"})
    if accuracy is None:
        shown = zip(pairs, chosen_first(pairs), strict=True)
        answers = [(p.chosen, p.rejected) if first else (p.rejected, p.chosen) for p, first in shown]
        right = [judge(*pair, "") == (1 if pair[0] == p.chosen else 2) for pair, p in zip(answers, pairs, strict=True)]
        accuracy = sum(right) / 80
        if judge is always_first:
            assert 0.3 < accuracy < 0.7  # the order is drawn
            assert metrics["first_position_share"] == 1
    assert metrics["accuracy"] == metrics["bias_accuracy"] == pytest.approx(accuracy)

"""A teacher's judgments: what RISE's filter admits, why rows are lost, and which cases are hard."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from judgments import Row, Said, read_pairs, samples, write_preferences, write_verdicts

from workers import tables
from workers.judges.configs import HardCasesConfig, JudgeDemonstrationsConfig
from workers.judges.demonstrations import judge_demonstrations
from workers.judges.hard_cases import hard_cases

ROWS = [Row(f"p{i}", f" good {i}", f" bad {i}") for i in range(6)]


def both(row: Row, drawn: str, other: str) -> list[Said]:
    return [*samples(row, drawn), *(each._replace(drawn=False) for each in samples(row, other, turned=True))]


SAID = [
    *both(ROWS[0], "R", "R"),
    *both(ROWS[1], "R", "W"),
    *both(ROWS[2], "W", "W"),
    *both(ROWS[3], "R", "-"),
    *both(ROWS[5], "R", "R"),
]


def run(
    folder: Path,
    rows: list[Row] = ROWS,
    said: list[Said] = SAID,
    mixed_in: Path | None = None,
    **config: object,
) -> tuple[list[dict[str, str]], dict[str, float]]:
    folder.mkdir(exist_ok=True)
    whole = JudgeDemonstrationsConfig.model_validate(config)
    metrics = judge_demonstrations(
        whole,
        folder,
        verdicts=write_verdicts(folder / "verdicts", said),
        preferences=write_preferences(folder / "preferences", rows),
        general=mixed_in,
    )
    assert set(metrics) == set(whole.declared())
    table = tables.DEMONSTRATIONS.read(folder)
    return list(table.to_pylist()), metrics


def write_general(folder: Path, count: int) -> Path:
    folder.mkdir()
    columns = {"prompt": [f"q{i}" for i in range(count)], "response": [" a"] * count}
    tables.DEMONSTRATIONS.write(columns, folder)
    return folder


def test_a_row_is_admitted_if_the_verdict_is_right_in_both_orders(tmp_path: Path) -> None:
    rows, metrics = run(tmp_path)
    assert metrics == {
        "demonstrations": 4,
        "admitted_rows": 2,
        "wrong_rows": 1,
        "inconsistent_rows": 1,
        "unparsed_rows": 1,
        "unequal_rows": 0,
        "unjudged_rows": 1,
    }
    admitted = {(each.request, each.text) for each in SAID if each.prompt in ("p0", "p5")}
    assert {(row["prompt"], row["response"]) for row in rows} == admitted


def test_with_one_order_only_the_drawn_one_counts(tmp_path: Path) -> None:
    rows, metrics = run(tmp_path, both_orders=False)
    assert metrics["admitted_rows"] == 4
    assert metrics["wrong_rows"] == 1
    assert {row["prompt"] for row in rows} == {each.request for each in SAID if each.drawn and each.prompt != "p2"}


def test_a_row_that_was_judged_in_one_order_only_cannot_pass_both(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"row 0 .* one order only.*orders: both.*both_orders: false"):
        run(tmp_path, said=samples(ROWS[0], "R"))


def test_every_sample_must_be_right_and_hinted_ones_do_not_count(tmp_path: Path) -> None:
    said = [*samples(ROWS[0], "RRW"), *samples(ROWS[1], "RR"), *samples(ROWS[1], "W", hint=2)]
    rows, metrics = run(tmp_path, said=said, both_orders=False)
    assert (metrics["inconsistent_rows"], metrics["admitted_rows"]) == (1, 1)
    assert sorted(row["response"] for row in rows) == ["R0 on p1", "R1 on p1"]


@pytest.mark.parametrize(("ratio", "unequal"), [(None, 0), (3.0, 0), (2.9, 1)])
def test_answers_of_unequal_length_are_lost_first(ratio: float | None, unequal: int, tmp_path: Path) -> None:
    odd = Row("p9", "aaa", "a")
    rows, said = [ROWS[0], odd], [*both(ROWS[0], "R", "R"), *both(odd, "W", "-")]
    _, metrics = run(tmp_path, rows, said, length_ratio=ratio)
    assert (metrics["unequal_rows"], metrics["unparsed_rows"]) == (unequal, 1 - unequal)


def test_general_demonstrations_are_mixed_in_and_shuffled(tmp_path: Path) -> None:
    general = write_general(tmp_path / "general", 20)
    found = [run(tmp_path / str(seed), mixed_in=general, seed=seed) for seed in (0, 1)]
    assert [metrics["demonstrations"] for _, metrics in found] == [24, 24]
    prompts = [[row["prompt"] for row in rows] for rows, _ in found]
    assert Counter(prompts[0]) == Counter(prompts[1])
    assert prompts[0] != prompts[1]
    kinds = [prompt.startswith("q") for prompt in prompts[0]]
    assert kinds not in (sorted(kinds), sorted(kinds, reverse=True))


def test_only_so_many_general_demonstrations_are_taken(tmp_path: Path) -> None:
    general = write_general(tmp_path / "general", 20)
    taken = []
    for seed in (0, 1):
        rows, metrics = run(tmp_path / str(seed), mixed_in=general, general=5, seed=seed)
        assert metrics["demonstrations"] == 9
        taken.append({row["prompt"] for row in rows if row["prompt"].startswith("q")})
    assert [len(each) for each in taken] == [5, 5]
    assert taken[0] != taken[1]
    with pytest.raises(ValueError, match="20 demonstrations, but general: 21"):
        run(tmp_path / "more", mixed_in=general, general=21)
    with pytest.raises(ValueError, match="`general` input"):
        run(tmp_path / "none", general=1)


def test_nothing_admitted_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no judgment is admitted; rows lost: 1 inconsistent, 1 wrong"):
        run(tmp_path, ROWS[1:3], SAID)


def test_hard_cases_are_the_judged_rows_that_are_not_admitted(tmp_path: Path) -> None:
    run(tmp_path)
    out = tmp_path / "hard"
    out.mkdir()
    config = HardCasesConfig()
    metrics = hard_cases(config, out, verdicts=tmp_path / "verdicts", preferences=tmp_path / "preferences")
    assert metrics == {"preferences": 3, "judged_rows": 5}
    assert set(metrics) == set(config.declared())
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in read_pairs(out)] == [*ROWS[1:4]]


def test_a_judge_that_is_always_right_leaves_no_hard_cases(tmp_path: Path) -> None:
    rows = write_preferences(tmp_path / "preferences", ROWS)
    said = write_verdicts(tmp_path / "verdicts", both(ROWS[0], "R", "R"))
    with pytest.raises(ValueError, match="right about all of the 1 rows"):
        hard_cases(HardCasesConfig(), tmp_path, verdicts=said, preferences=rows)

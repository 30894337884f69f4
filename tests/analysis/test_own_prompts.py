"""Functions of somebody's own that write tables of prompts: a metric may be the mean of the column of its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toy_runs

from orchestrator.analysis.per_prompt import PerPrompt
from orchestrator.analysis.singles import sample_of
from orchestrator.analysis.tested import examine
from orchestrator.session import Session, open_session

FUNCTION = """\
from pathlib import Path
from typing import TypedDict
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
class Metrics(TypedDict):
    score: float
    rank: float | None
    hit: float
    rows: float
def gains(arm: int, seed: int) -> np.ndarray:
    return np.random.default_rng([arm, seed]).normal(size=6) + 3 * arm
def measure(arm: int, seed: int, odd: str, out: Path, shard: int = 0, shards: int = 1) -> Metrics:
    score = gains(arm, seed)
    rank = [None if row == 2 or odd == "undefined" else float(row) for row in range(6)]
    columns = {"prompt": list("abcdef"), "score": score, "rank": pa.array(rank, pa.float64()), "hits": score > 0}
    metrics = {"score": float(score.mean()), "rank": None if odd == "undefined" else 2.6, "rows": 6.0}
    if odd == "median":
        metrics["score"] = float(np.median(score))
    pq.write_table(pa.table(columns), out / "table.parquet")
    return {**metrics, "hit": float((score > 0).mean())}
"""
SWEEP = """\
name: own
question: Which prompts?
axes: {arm: [1, 2], seed: [0, 1, 2], odd: [sound]}
stages:
  measure: {stage: "mine:measure", config: {arm: $arm, seed: $seed, odd: $odd}}
tracking: false
analysis:
  primary: {metric: score, better: higher}
  random: {seed: seed, prompt: measure/table.parquet}
  claims: {more: {compare: {arm: [2, 1]}}}
"""
PLACE = [("measure", "table.parquet")]


def ran(folder: Path, text: str = SWEEP, function: str = FUNCTION) -> Session:
    (folder / "mine.py").write_text(function)
    code, session = toy_runs.run_inline(folder, text=text)
    assert code == 0
    return open_session(session.file, outputs=str(folder / "out"))


def gains(arm: int, seed: int) -> list[float]:
    return (np.random.default_rng([arm, seed]).normal(size=6) + 3 * arm).tolist()  # type: ignore[no-any-return]


def test_a_metric_is_the_mean_of_the_column_of_its_name_nulls_left_out(tmp_path: Path) -> None:
    session = ran(tmp_path)
    reader = PerPrompt(session, PLACE)
    found = reader.read("score", range(6))
    assert found.problems == []
    coords = [session.plan.cell_coords(cell) for cell in range(6)]
    assert found.by_set[0].values.tolist() == [gains(int(each["arm"]), int(each["seed"])) for each in coords]
    (ranks,) = reader.read("rank", range(6)).by_set
    assert np.isnan(ranks.values).tolist() == [[False, False, True, False, False, False]] * 6
    (claim,) = examine(session).findings
    assert claim.found is not None
    assert (claim.found.prompts, claim.found.seeds, claim.verdict) == (6, 3, "holds")
    assert claim.found.new is not None
    assert claim.found.fixed is not None
    assert sample_of(session, session.table()).new == "new seeds and new prompts"


def test_what_has_no_column_of_its_name_is_said_to_have_none(tmp_path: Path) -> None:
    session = ran(tmp_path)
    for metric in ("hit", "rows"):
        assert PerPrompt(session, PLACE).read(metric, range(6)).problems == [
            f"6 of 6 cells have no {metric} by single prompts: "
            f"measure/table.parquet has no numbers in a column {metric!r}"
        ]


def test_a_metric_that_is_something_else_than_the_mean_of_its_column_is_not_taken_for_it(tmp_path: Path) -> None:
    session = ran(tmp_path, SWEEP.replace("[sound]", "[sound, median, undefined]"))
    found = PerPrompt(session, PLACE).read("score", range(18))
    odd = [session.plan.cell_coords(cell)["odd"] for cell in range(18)]
    assert (found.sets < 0).tolist() == [each == "median" for each in odd]
    assert found.problems == [
        "6 of 18 cells have no score by single prompts: it is not the mean of column 'score' of measure/table.parquet"
    ]
    ranks = PerPrompt(session, PLACE).read("rank", range(18))
    assert ranks.problems == []
    assert [bool(np.isnan(each).all()) for each in ranks.by_set[0].values] == [each == "undefined" for each in odd]
    # One cell that has none is enough to say nothing of new prompts, and why is told.
    (claim,) = examine(session).findings
    assert claim.found is not None
    assert (claim.found.new, claim.found.prompts) == (None, 0)
    assert "it is not the mean of column 'score'" in claim.found.notes[-1]


def test_metrics_that_the_sweep_declares_for_a_function_have_their_columns_too(tmp_path: Path) -> None:
    bare = FUNCTION.replace(" -> Metrics:", ":").replace('"rank": None if odd == "undefined" else 2.6, ', "")
    text = SWEEP.replace('"mine:measure", ', '"mine:measure", metrics: [score, rows, hit], ')
    assert PerPrompt(ran(tmp_path, text, bare), PLACE).read("score", range(6)).problems == []


def test_a_table_in_another_file_or_format_has_a_reason(tmp_path: Path) -> None:
    session = ran(tmp_path, SWEEP.replace("table.parquet}", "tables.parquet}"))
    (claim,) = examine(session).findings
    assert claim.found is not None
    assert claim.found.new is None
    assert claim.found.notes[-1] == (
        "6 of 6 cells have no score by single prompts: the artifact of measure has no tables.parquet"
    )
    (tmp_path / "csv").mkdir()
    write = 'pq.write_table(pa.table(columns), out / "table.parquet")'
    assert write in FUNCTION
    csv = FUNCTION.replace(write, '(out / "table.parquet").write_text("a,b")')
    found = PerPrompt(ran(tmp_path / "csv", SWEEP, csv), PLACE).read("score", range(6))
    assert len(found.problems) == 1
    assert found.problems[0].startswith("6 of 6 cells have no score by single prompts: table.parquet cannot be read (")


@pytest.mark.parametrize("odd", ["sound", "median"])
def test_the_shards_of_a_function_are_checked_each(tmp_path: Path, odd: str) -> None:
    # Nothing says how the numbers of shards make up that of the entry, so another entry is reported.
    total = FUNCTION + "\n\ndef total(parts: list[Path]) -> None: ...\n"
    text = SWEEP.replace("[sound]", f"[{odd}]").replace("  measure: {", "  measure: {shards: 2, ")
    text = text[: text.index("analysis:")].replace(
        "tracking:", '  total: {stage: "mine:total", inputs: {parts: measure}}\nresults: [total]\ntracking:'
    )
    found = PerPrompt(ran(tmp_path, text, total), PLACE).read("score", range(6))
    if odd == "sound":
        assert [each.values.shape for each in found.by_set] == [(6, 12)]
    else:
        assert "it is not the mean of column 'score'" in found.problems[0]

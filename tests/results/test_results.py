"""One typed Parquet row per cell, rebuilt from the store at any time, and the small tables made of it."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy
import toy_sweep

from orchestrator.analysis.summary import format_summary, summarise
from orchestrator.drive import drive
from orchestrator.results.metrics import reported_metrics
from orchestrator.results.parquet import read_results
from orchestrator.run.failures import error_groups
from orchestrator.session import Session, open_session
from orchestrator.sweep.problems import SweepError

MIXED = """\
name: mixed
question: What does a row hold?
axes:
  x: [1, 2]
  beta: [0.5, 1]
  kind:
    good: {behaviour: work}
    bad: {behaviour: raise}
stages:
  source: {stage: toy_source, config: {value: $x}}
  total:
    stage: toy_total
    inputs: {numbers: source}
    config: [$kind, {add: $beta}]
tracking: false
uses: [toy]
namespace: toy
"""


def finished(folder: Path, text: str, *overrides: str) -> Session:
    session = open_session(toy_sweep.write_sweep(folder, text), list(overrides), outputs=str(folder / "out"))
    drive(session, None, True, None)
    return session


def test_columns_are_typed_coordinates_metrics_and_what_became_of_the_cell(tmp_path: Path) -> None:
    session = finished(tmp_path, MIXED)
    table = read_results(session.outputs.folder)
    types = {field.name: field.type for field in table.schema}
    assert types["x"] == pa.int64()
    assert types["beta"] == pa.float64()
    assert types["kind"] == pa.string()
    assert types["total"] == pa.float64()
    for column in ("cell_id", "status", "error_class", "error", "attempts", "seconds", "key", "code_commit"):
        assert column in types
    assert table.num_rows == 8
    assert reported_metrics(table) == ["total"]
    assert table.schema.metadata[b"schema_version"] == b"1"


def test_the_table_reads_in_pandas_and_duckdb(tmp_path: Path) -> None:
    path = finished(tmp_path, MIXED).outputs.results
    frame = pd.read_parquet(path)
    good = frame[frame.kind == "good"]
    assert (good.total == good.x + good.beta).all()
    assert duckdb.sql(f"SELECT status, count(*) FROM '{path}' GROUP BY 1 ORDER BY 1").fetchall() == [
        ("failed", 4), ("succeeded", 4),
    ]  # fmt: skip


STAND_IN = """\
name: stand-in
question: Where does a metric come from?
axes:
  kind: {judge: {twice: true}, simulated: {twice: false}}
  seed: [0, 1]
stages:
  source: {stage: toy_source, config: {value: 5}}
  once: {stage: toy_double, inputs: {number: source}}
  twice: {stage: toy_double, when: $kind.twice, otherwise: once, inputs: {number: once}}
  last: {stage: toy_source, config: {value: $seed}}
results: [twice, last]
tracking: false
uses: [toy]
namespace: toy
"""


def test_an_entry_reports_the_metrics_of_what_stands_in_for_it_in_the_same_columns(tmp_path: Path) -> None:
    table = read_results(finished(tmp_path, STAND_IN).outputs.folder)
    assert reported_metrics(table) == ["total", "value"]
    rows = table.select(["kind", "seed", "total", "value"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("judge", 0, 20, 0), ("judge", 1, 20, 1), ("simulated", 0, 10, 0), ("simulated", 1, 10, 1),
    ]  # fmt: skip


def test_failed_cells_have_their_error_and_no_number(tmp_path: Path) -> None:
    rows = pq.read_table(finished(tmp_path, MIXED).outputs.results).to_pylist()
    for row in rows:
        if row["kind"] == "bad":
            assert row["total"] is None
            assert row["error_class"] == "ValueError"
            assert row["attempts"] == 1
            assert row["seconds"] >= 0
        else:
            assert row["error"] is None


def test_errors_are_grouped_with_a_count_and_an_example(tmp_path: Path) -> None:
    columns = ["status", "error_class", "error", "log"]
    table = pq.read_table(finished(tmp_path, MIXED).outputs.results, columns=columns)
    ((status, kind, count, message, log),) = error_groups(tuple(row.values()) for row in table.to_pylist())
    assert (status, kind, count, message) == ("failed", "ValueError", 4, "the toy was told to raise")
    assert Path(log or "").exists()


def test_a_table_of_another_schema_version_is_refused_with_the_remedy(tmp_path: Path) -> None:
    session = finished(tmp_path, MIXED)
    table = pq.read_table(session.outputs.results)
    pq.write_table(table.replace_schema_metadata({b"schema_version": b"0"}), session.outputs.results)
    with pytest.raises(ValueError, match="schema version 0"):
        read_results(session.outputs.results)
    with pytest.raises(FileNotFoundError, match="sweep run"):
        read_results(tmp_path / "nowhere")


SEEDS = """\
name: seeds
question: What is the spread?
axes:
  x: [1, 5, 2]
  y: [10, 20]
  seed: [0, 3, 4]
stages:
  source: {stage: toy_source, config: {value: $x}}
  double: {stage: toy_double, inputs: {number: source}, config: {add: $y}}
  total: {stage: toy_total, inputs: {numbers: double}, config: {add: $seed}}
tracking: false
uses: [toy]
namespace: toy
"""


def test_a_summary_is_the_mean_over_seeds_of_the_means_within_and_its_sample_sd(tmp_path: Path) -> None:
    session = finished(tmp_path, SEEDS)
    table = read_results(session.outputs.results)
    found = summarise(table, session.spec, ("x",)).to_pandas().set_index("x")
    frame = table.to_pandas()
    by_seed = frame.groupby(["x", "seed"]).total.mean().groupby("x")
    assert list(found.index) == [1, 5, 2]
    for x in (1, 5, 2):
        assert found.total_mean[x] == pytest.approx(by_seed.mean()[x])
        assert found.total_sd[x] == pytest.approx(by_seed.std()[x])
        assert found.cells[x] == 6
    with pytest.raises(SweepError, match="did you mean 'total'"):
        summarise(table, session.spec, (), ("totl",))


def test_an_axis_may_be_called_like_a_mean_or_a_standard_deviation(tmp_path: Path) -> None:
    session = finished(
        tmp_path,
        SEEDS.replace("  x:", "  x_sd:").replace("$x", "$x_sd").replace("  y:", "  y_mean:").replace("$y", "$y_mean"),
    )
    summary = summarise(read_results(session.outputs.results), session.spec, ("x_sd", "y_mean"))
    shown = format_summary(summary)
    assert shown.column_names == ["x_sd", "y_mean", "cells", "seeds", "total"]
    assert shown.to_pylist()[0] == {"x_sd": 1, "y_mean": 10, "cells": 3, "seeds": 3, "total": "14.333 ± 2.082"}


def test_errors_are_grouped_by_what_they_have_in_common() -> None:
    rows = [
        ("failed", "ValueError", "row 3 of /data/a.npy is not finite", "log a"),
        ("failed", "ValueError", "row 17 of /data/b.npy is not finite", "log b"),
        ("failed", "ValueError", "no space", "log c"),
        ("blocked", "ValueError", "row 3 of /data/a.npy is not finite", "log a"),
        ("pending", None, None, None),
        ("succeeded", None, None, None),
    ]
    groups = error_groups(rows)
    assert groups[0] == ("failed", "ValueError", 2, "row 3 of /data/a.npy is not finite", "log a")
    assert sorted((status, count) for status, _, count, *_ in groups[1:]) == [
        ("blocked", 1),
        ("failed", 1),
        ("pending", 1),
    ]


SHARDED = """\
name: sharded
question: Whose numbers are these?
axes:
  x: [1, 2]
stages:
  source: {stage: toy_source, shards: 3, config: {value: $x}}
tracking: false
uses: [toy]
namespace: toy
"""


def test_a_metric_of_a_sharded_entry_is_over_all_of_its_shards_not_that_of_the_last(tmp_path: Path) -> None:
    table = read_results(finished(tmp_path, SHARDED).outputs.folder)
    # A shard's value is x plus its number.
    assert table["value"].to_pylist() == [1 + 2 + 3, 2 + 3 + 4]


def test_as_long_as_a_shard_is_missing_a_cell_has_no_number_of_them(tmp_path: Path) -> None:
    session = open_session(toy_sweep.write_sweep(tmp_path, SHARDED), outputs=str(tmp_path / "out"))
    drive(session, None, True, None)
    lost = session.plan.cell(0).steps["source"][1]
    session.store.remove([lost])
    again = open_session(session.file, outputs=str(tmp_path / "out"))
    table = again.results().table()
    assert table["status"].to_pylist() == ["pending", "succeeded"]
    assert table["value"].to_pylist() == [None, 9]


def test_a_sharded_entry_is_not_reported_if_nobody_declares_what_its_metrics_are_over_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy.TotalConfig, "metrics", lambda config: ("total",))
    text = SHARDED.replace(
        "tracking: false", "  double: {stage: toy_double, inputs: {number: source}}\ntracking: false"
    )
    with pytest.raises(SweepError, match=r"double.*cut into 3 shards.*toy_double.*does not declare.*total.*results"):
        open_session(toy_sweep.write_sweep(tmp_path, text), outputs=str(tmp_path / "out"))
    allowed = text.replace("tracking: false", "results: [source]\ntracking: false")
    assert open_session(toy_sweep.write_sweep(tmp_path, allowed), outputs=str(tmp_path / "out"))


UNDEFINED = MIXED.replace("bad: {behaviour: raise}", "flat: {behaviour: undefined}")


def test_a_cell_with_an_undefined_metric_succeeds_and_its_null_has_a_reason(tmp_path: Path) -> None:
    session = finished(tmp_path, UNDEFINED)
    table = read_results(session.outputs.folder)
    rows = table.select(["kind", "status", "total", "undefined"]).to_pylist()
    assert {row["status"] for row in rows} == {"succeeded"}
    for row in rows:
        if row["kind"] == "flat":
            assert row["total"] is None
            assert row["undefined"] == "total: the toy was told not to know"
        else:
            assert row["total"] is not None
            assert row["undefined"] is None
    # Rebuilt from the manifests alone, the table says the same.
    again = open_session(session.file, outputs=str(tmp_path / "out"))
    assert again.results().table().equals(table)

"""Results in the hands of other programs: of any size, by SQL, and as CSV, Parquet, Markdown and LaTeX."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import toy_sweep
from typer.testing import CliRunner

import orchestrator
from orchestrator.cli.app import app
from orchestrator.drive import drive
from orchestrator.results import parquet
from orchestrator.results.format import (
    Format,
    export,
    format_interval,
    format_mean_sd,
    format_percent,
    format_short,
    format_signed,
)
from orchestrator.results.parquet import read_results, write_results
from orchestrator.results.sql import query
from orchestrator.session import open_session
from orchestrator.sweep.problems import SweepError

AWKWARD = pa.table(
    {"name": ["50% of a_b", "x & {y} | *z*", "<b>\n~^\\"], "n": [1, 20, None], "share": [0.125, 1234.5678, 2.0]}
)


def table_of(rows: int) -> pa.Table:
    axes = {"x": list(range(rows))}
    columns = {"x": pa.array(axes["x"], pa.int64()), "gain": pa.array([0.5 * x for x in axes["x"]])}
    metadata = {"schema_version": str(parquet.SCHEMA_VERSION), "axes": json.dumps(axes), "metrics": '["gain"]'}
    return pa.table(columns).replace_schema_metadata(metadata)


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_reading_results_starts_no_thread_that_could_abort_a_process_that_ends_at_once(tmp_path: Path) -> None:
    write_results(table_of(2000), tmp_path / "results.parquet")
    script = (
        "import os, sys; from orchestrator.results.parquet import read_results; import pyarrow.parquet\n"
        "count = lambda: len(os.listdir('/proc/self/task'))\n"
        "before = count(); read_results(sys.argv[1]); print(count() - before)"
    )
    told = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert told.stdout == "0\n"


def test_a_large_table_is_a_folder_of_parts_that_all_read_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "PART_ROWS", 4)
    table, path = table_of(10), tmp_path / "results.parquet"
    write_results(table, path)
    assert sorted(part.name for part in path.iterdir()) == [f"part-0000{number}.parquet" for number in range(3)]
    assert read_results(path).equals(table, check_metadata=True)
    assert read_results(tmp_path).equals(table)
    assert pq.read_table(path).equals(table)
    assert pyarrow.dataset.dataset(path).to_table(filter=pa.compute.field("x") == 9)["gain"].to_pylist() == [4.5]
    assert pd.read_parquet(path).gain.tolist() == table["gain"].to_pylist()
    assert duckdb.sql(f"SELECT count(*), max(x) FROM '{path}/*.parquet'").fetchall() == [(10, 9)]


def test_a_table_grows_into_parts_loses_some_and_shrinks_into_a_file_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "PART_ROWS", 4)
    path = tmp_path / "results.parquet"
    for rows in (4, 10, 5, 3, 0):
        write_results(table_of(rows), path)
        assert read_results(tmp_path).equals(table_of(rows))
        assert path.is_dir() == (rows > 4)
        assert [each.name for each in tmp_path.iterdir()] == ["results.parquet"]


def test_a_large_table_lies_in_a_bucket_just_so(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from upath import UPath

    monkeypatch.setattr(parquet, "PART_ROWS", 4)
    for rows in (10, 5, 3, 9):
        write_results(table_of(rows), UPath(f"{s3}/results.parquet", use_listings_cache=False))
        assert read_results(s3).equals(table_of(rows))


def test_the_package_itself_reads_results_and_costs_nothing_to_import(tmp_path: Path) -> None:
    write_results(table_of(3), tmp_path / "results.parquet")
    assert orchestrator.read_results(tmp_path).equals(table_of(3))
    light = "import sys, orchestrator; assert not {'pyarrow', 'numpy', 'yaml', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", light], check=True)


def test_csv_and_parquet_keep_every_digit(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(export(AWKWARD, Format.CSV))
    (tmp_path / "t.parquet").write_bytes(export(AWKWARD, Format.PARQUET))
    options = pyarrow.csv.ParseOptions(newlines_in_values=True)
    assert pyarrow.csv.read_csv(tmp_path / "t.csv", parse_options=options).equals(AWKWARD)
    assert pq.read_table(tmp_path / "t.parquet").equals(AWKWARD)


def test_markdown_and_latex_escape_what_would_be_markup() -> None:
    assert export(AWKWARD, Format.MD).decode().splitlines() == [
        "| name | n | share |",
        "| --- | ---: | ---: |",
        "| 50% of a\\_b | 1 | 0.125 |",
        "| x &amp; {y} \\| \\*z\\* | 20 | 1235 |",
        "| &lt;b&gt; ~^\\\\ |  | 2 |",
    ]
    lines = export(AWKWARD, Format.LATEX).decode().splitlines()
    assert lines[:3] == [r"\begin{tabular}{lSS}", r"\toprule", r"name & {n} & {share} \\"]
    assert lines[4] == r"50\% of a\_b & 1 & 0.125 \\"
    assert lines[5] == r"x \& \{y\} | *z* & 20 & 1235 \\"
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    tested = {"claim": ["a", "b"], "mean ± sd": ["0.9 ± 0.1", ""], "p": ["<0.0001", "0.0125"], "ends": ["0 … 1", "2"]}
    lines = export(pa.table(tested), Format.LATEX).decode().splitlines()
    # siunitx reads numbers with their uncertainty; what is none stands in braces.
    assert lines[0] == r"\begin{tabular}{lSSl}"
    assert lines[2] == r"claim & {mean $\pm$ sd} & {p} & ends \\"
    assert lines[4:6] == [r"a & 0.9 \pm 0.1 & {\textless{}0.0001} & 0 \ldots{} 1 \\", r"b &  & 0.0125 & 2 \\"]


def test_sql_asks_the_table_and_mistakes_are_told() -> None:
    assert query(table_of(4), "SELECT sum(gain) AS s FROM results").to_pylist() == [{"s": 3.0}]
    with pytest.raises(SweepError, match=r'--sql: .*"gian" not found'):
        query(table_of(4), "SELECT gian FROM results")
    with pytest.raises(SweepError, match="asks for no rows"):
        query(table_of(4), "")
    with pytest.raises(SweepError, match="--sql: Conversion Error"):
        query(table_of(4), "SELECT CAST(gain || 'x' AS INTEGER) FROM results")


def test_sql_neither_reads_nor_writes_a_file_nor_unlocks_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text("word\nsecret\n")
    for sql in (
        "SELECT * FROM 'mine.csv'", "SELECT * FROM read_csv('mine.csv')", "SELECT * FROM read_text('mine.csv')",
        "SELECT * FROM glob('*')", "COPY results TO 'theirs.csv'", "ATTACH 'theirs.db'", "EXPORT DATABASE 'theirs'",
        "INSTALL httpfs", "LOAD httpfs",
    ):  # fmt: skip
        with pytest.raises(SweepError, match="reads the table `results` and nothing else: --output FILE writes"):
            query(table_of(4), sql)
    for sql in ("SET enable_external_access = true", "SET lock_configuration = false", "PRAGMA profiling_output = 'p'"):
        with pytest.raises(SweepError, match="configuration has been locked"):
            query(table_of(4), sql)
    # Not what this program calls its tables either.
    with pytest.raises(SweepError, match="Table with name table does not exist"):
        query(table_of(4), 'SELECT * FROM "table"')
    assert [each.name for each in tmp_path.iterdir()] == ["mine.csv"]


@pytest.mark.parametrize(
    ("sql", "count"),
    [
        ("select 1; select 2", 2),
        ("select x from results;; select y from results -- the last\n;\nselect 3;", 3),
        ("CREATE TABLE t AS SELECT 1; COPY t TO 'theirs.csv'", 2),
        ("SET enable_external_access = true; SELECT * FROM 'mine.csv'", 2),
    ],
)
def test_of_several_statements_none_is_dropped(sql: str, count: int) -> None:
    with pytest.raises(SweepError, match=rf"--sql: these are {count} statements, .* one by one, or as one, WITH name"):
        query(table_of(4), sql)


def test_a_semicolon_that_ends_a_statement_or_is_part_of_a_text_makes_no_second_one() -> None:
    for sql in ("select 'a;b' as t", " select 'a;b' as t ; ;", "select 'a;b' as t; -- ; that was all"):
        assert query(table_of(4), sql).to_pylist() == [{"t": "a;b"}]
    assert query(table_of(4), "PIVOT (SELECT 1 AS n, 'a' AS k) ON k USING sum(n)").num_rows == 1


SWEEP = """\
name: seeds
question: What is the spread?
axes:
  x: [1, 5]
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


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of a finished sweep, the arguments that name it."""
    folder = tmp_path_factory.mktemp("export")
    file, outputs = str(toy_sweep.write_sweep(folder, SWEEP)), str(folder / "out")
    assert drive(open_session(Path(file), outputs=outputs), None, True, None) == 0
    return [file, "--outputs", outputs]


def sweep(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_results_are_exported_as_the_file_name_says(ran: list[str], tmp_path: Path) -> None:
    for name in ("means.csv", "means.md", "means.tex", "means.parquet", "means.txt"):
        sweep("results", *ran, "--by", "x", "--output", str(tmp_path / name))
    means = pq.read_table(tmp_path / "means.parquet")
    assert means.to_pylist()[0] == {"x": 1, "cells": 6, "seeds": 3, "total_mean": means["total_mean"][0].as_py(),
                                    "total_sd": pytest.approx(2.0817, abs=1e-4)}  # fmt: skip
    assert pd.read_csv(tmp_path / "means.csv").total_mean.tolist() == means["total_mean"].to_pylist()
    assert (tmp_path / "means.md").read_text().splitlines()[2] == "| 1 | 6 | 3 | 19.333 ± 2.082 |"
    assert r"5 & 6 & 3 & 27.333 \pm 2.082 \\" in (tmp_path / "means.tex").read_text()
    assert "19.333 ± 2.082" in (tmp_path / "means.txt").read_text()
    sweep("results", *ran, "--cells", "--output", str(tmp_path / "cells.csv"))
    assert len(pd.read_csv(tmp_path / "cells.csv")) == 12


def test_results_answer_sql_and_only_narrows_what_is_shown(ran: list[str], tmp_path: Path) -> None:
    question = "SELECT x, count(*) AS n FROM results GROUP BY x ORDER BY x"
    assert json.loads(sweep("results", *ran, "--sql", question, "--json")) == [{"x": 1, "n": 6}, {"x": 5, "n": 6}]
    assert sweep("results", *ran, "--sql", question, "--only", "y=20").splitlines() == ["x  n", "1  3", "5  3"]
    assert json.loads(sweep("results", *ran, "--by", "x", "--only", "y=20", "--json"))[0]["cells"] == 3
    assert read_results(Path(ran[2]) / "sweeps" / "seeds").num_rows == 12


def strictly(text: str) -> object:
    """What text says as JSON, which has no NaN and no Infinity."""

    def refuse(name: str) -> object:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_has_null_for_what_is_no_finite_number(ran: list[str]) -> None:
    odd = "select 'nan'::float as a, '-inf'::double as b, [1.5, 'nan'::double] as c, {'d': 'inf'::float} as e, 2.5 as f"
    (row,) = strictly(sweep("results", *ran, "--sql", odd, "--json"))  # type: ignore[misc]
    assert row == {"a": None, "b": None, "c": [1.5, None], "e": {"d": None}, "f": "2.5"}
    for command in ("results", "compare"):
        strictly(sweep(command, *ran, "--json"))


def test_axes_and_metrics_that_are_named_twice_count_once(ran: list[str]) -> None:
    once = sweep("results", *ran, "--by", "x", "--metrics", "total", "--json")
    assert sweep("results", *ran, "--by", "x,x", "--metrics", "total,total", "--json") == once
    compared = sweep("compare", *ran, "x=5,1", "--within", "y", "--metrics", "total", "--json")
    again = sweep("compare", *ran, "x=5,1,5", "--within", "y,y", "--metrics", "total,total", "--json")
    assert again == compared
    assert len(json.loads(compared)["lines"]) == 2
    effects = sweep("compare", *ran, "--metrics", "total", "--json")
    assert sweep("compare", *ran, "--metrics", "total,total", "--json") == effects


def test_what_cannot_be_exported_is_refused(ran: list[str], tmp_path: Path) -> None:
    for options, message in {
        ("--output", str(tmp_path / "means.doc")): "ends with none of",
        ("--format", "parquet"): "is not text; name a file",
        ("--json", "--format", "csv"): "goes to the terminal",
        ("--sql", "selec 1"): "syntax error",
    }.items():
        with pytest.raises(SweepError, match=message):
            sweep("results", *ran, *options)


def test_every_option_of_results_and_compare_is_honoured_or_refused(ran: list[str], tmp_path: Path) -> None:
    rows = json.loads(sweep("results", *ran, "--cells", "--metrics", "total", "--json"))
    assert rows[0]["total"] == 12
    shown = sweep("results", *ran, "--cells", "--metrics", "total").splitlines()
    assert shown[0].split() == ["cell_id", "x", "y", "seed", "status", "total", "seconds"]
    assert shown[1].split()[1:6] == ["1", "10", "0", "succeeded", "12"]
    places = [*ran, "-s", "results=[source, total]"]
    file = tmp_path / "cells.csv"
    sweep("results", *places, "--cells", "--metrics", "value", "--output", str(file))
    assert {"value", "status", "x"} < set(pd.read_csv(file).columns)
    assert "total" not in pd.read_csv(file).columns
    for command, options, message in (
        ("results", ["--cells", "--metrics", "totl"], "--metrics: there is no metric 'totl'; did you mean 'total'"),
        ("results", ["--cells", "--by", "x"], "--by: has no effect beside --cells"),
        ("results", ["--sql", "select 1", "--by", "x"], "--by: has no effect beside --sql"),
        ("results", ["--sql", "select 1", "--metrics", "total"], "--metrics: has no effect beside --sql"),
        ("results", ["--sql", "select 1", "--cells"], "--cells: has no effect beside --sql"),
        ("compare", ["--within", "y"], "--within: is for comparisons"),
        ("compare", ["--confidence", "0.9"], "--confidence: is for comparisons"),
        ("report", ["--tracking-uri", "sqlite:///x.db"], "--tracking-uri: has no effect without --mlflow"),
    ):
        with pytest.raises(SweepError, match=message):
            sweep(command, *ran, *options)


def test_numbers_are_not_rounded_into_what_they_are_not() -> None:
    assert [format_percent(share) for share in (0, 0.0004, 0.25, 0.99996, 1, None)] == [
        "0 %", "<0.1 %", "25.0 %", ">99.9 %", "100 %", "",
    ]  # fmt: skip
    assert [format_signed(value) for value in (0.05, -0.0000123, 0.0, None)] == ["+0.0500", "-1.23e-05", "+0.0000", ""]
    assert format_interval(-0.00002, 1.5) == "-2e-05 … +1.5000"
    assert [format_mean_sd(19.3333, 2.0817), format_mean_sd(0.0004, 0.00012)] == ["19.333 ± 2.082", "0.0004 ± 0.00012"]
    pairs = [(0.5, 0.0), (0.5, None), (None, None)]
    assert [format_mean_sd(*pair) for pair in pairs] == ["0.500 ± 0.000", "0.500", ""]
    numbers = (0.5, 1234.6, 0.00012, float("nan"), None)
    assert [format_short(number) for number in numbers] == ["0.500", "1,235", "0.000120", "–", "–"]


def test_compare_tells_differences_and_effects_for_people_and_machines(ran: list[str]) -> None:
    found = json.loads(sweep("compare", *ran, "x=5,1", "--within", "y", "--json"))
    assert [(each["a"], each["b"], each["at"], each["difference"]) for each in found["lines"]] == [
        (5, 1, {"y": 10}, 8.0), (5, 1, {"y": 20}, 8.0),
    ]  # fmt: skip
    assert found["warnings"] == []
    told = sweep("compare", *ran, "x=5,1")
    assert "5 - 1" in told
    assert "+8.0000" in told
    # Toys have no luck: their differences are the same in every seed, which is no evidence of certainty.
    assert "the same for every seed: there is no interval and no p value" in told
    effects = {each["axis"]: each for each in json.loads(sweep("compare", *ran, "--json"))["lines"]}
    assert effects["y"]["spread"] == 10
    assert effects["y"]["p"] is None
    assert set(effects) == {"x", "y", "seed"}
    partly = json.loads(sweep("compare", *ran, "x", "--only", "seed=0", "--json"))
    # The sweep has more; the selection has not.
    assert "these cells are of one seed only" in partly["warnings"][0]
    with pytest.raises(SweepError, match="'7' is no value of 'x'"):
        sweep("compare", *ran, "x=5,7")

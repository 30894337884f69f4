"""Tables on a narrow terminal: folded or turned, and nothing in them is ever cut."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pyarrow as pa
import pytest
from gain_tables import table_of
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.axis_effects import AxisEffect
from orchestrator.analysis.comparisons import Comparison
from orchestrator.analysis.effect import Effect, Sample
from orchestrator.cli import console
from orchestrator.cli.console import table
from orchestrator.cli.show_plan import show_plan
from orchestrator.cli.show_results import show_cells, show_comparisons, show_effects, show_summary
from orchestrator.explain.preview import preview
from orchestrator.results.format import format_percent
from orchestrator.results.metrics import averaged_metrics
from orchestrator.session import Session, open_session
from orchestrator.statistics.crossed import Interval
from orchestrator.sweep.analysis import Analysis

SWEEPS = Path(__file__).parents[2] / "sweeps"

word = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz_"), min_size=1, max_size=18)
number = st.floats(-1e6, 1e6).map(lambda value: f"{value:.4g}")
cell = st.one_of(word, number, st.just(""), st.tuples(number, number).map(" ± ".join))


def drawn(rows: list[list[str]], columns: list[str], width: int, keys: int) -> str:
    made = console.Console(width=width, soft_wrap=True, highlight=False)
    with made.capture() as captured, pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "console", made)
        made.print(table(columns, rows, keys))
    return captured.get()


@given(st.data(), st.integers(60, 120), st.integers(1, 12), st.integers(0, 5), st.integers(1, 3))
def test_every_heading_and_value_appears_whole_and_no_line_is_wider_than_the_terminal(
    data: st.DataObject, width: int, wide: int, long: int, keys: int
) -> None:
    columns = data.draw(st.lists(word, min_size=wide, max_size=wide))
    rows = data.draw(st.lists(st.lists(cell, min_size=wide, max_size=wide), min_size=long, max_size=long))
    text = drawn(rows, columns, width, keys)
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    words = [line.split() for line in text.splitlines()]
    for values in (row for row in [columns, *rows] if rows):
        for index, value in enumerate(values):
            if any(row[index] for row in rows):
                parts = value.split()
                assert any(line[i : i + len(parts)] == parts for line in words for i in range(len(line) + 1)), value


def test_a_column_without_values_is_left_out() -> None:
    assert drawn([["a", "", "1"], ["b", "", "2"]], ["stage", "failed", "steps"], 80, 1).split() == [
        "stage", "steps", "a", "1", "b", "2",
    ]  # fmt: skip
    assert drawn([], ["stage", "steps"], 80, 1) == ""


def test_a_wide_table_is_folded_first_at_its_headings_then_into_several_that_repeat_what_tells_rows_apart() -> None:
    rows = [["fit", "12", "3.5 s"], ["evaluate", "7", "0.1 s"]]
    columns = ["stage", "per minute", "seconds of each"]
    assert drawn(rows, columns, 80, 1).splitlines()[0].split() == " ".join(columns).split()
    folded = [line.split() for line in drawn(rows, columns, 27, 1).splitlines()]
    assert folded[-2:] == [["fit", "12", "3.5", "s"], ["evaluate", "7", "0.1", "s"]]
    several = drawn(rows, columns, 20, 1).splitlines()
    assert [line.split()[0] for line in several if line.startswith(("fit", "evaluate"))] == ["fit", "evaluate"] * 2


def test_a_row_that_fits_in_no_table_becomes_a_block_with_a_line_per_value() -> None:
    text = drawn([["a" * 30, "b" * 28, "1"], ["c", "d", ""]], ["stage", "where", "steps"], 50, 1)
    assert [line.split() for line in text.splitlines()] == [
        ["stage", "a" * 30], ["where", "b" * 28], ["steps", "1"], [], ["stage", "c"], ["where", "d"],
    ]  # fmt: skip


def test_rows_of_nothing_but_what_tells_them_apart_are_blocks_where_they_do_not_fit() -> None:
    text = drawn([["x", "1.001e+04 ± -1.001e+04", "0.007812 ± -3.825e-264"]], ["a" * 14, "b", "c"], 50, 3)
    assert [line.split() for line in text.splitlines()] == [
        ["a" * 14, "x"], ["b", "1.001e+04", "±", "-1.001e+04"], ["c", "0.007812", "±", "-3.825e-264"],
    ]  # fmt: skip


@pytest.fixture(params=[80, 60])
def show(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Show:
    """Calls a function, and gives what it printed on a terminal of a width; no line of a table is wider."""

    def show(function: Callable[..., None], *arguments: object) -> list[list[str]]:
        monkeypatch.setattr(console.console, "width", request.param)
        function(*arguments)
        lines = capsys.readouterr().out.splitlines()
        assert "…" not in "".join(line for line in lines if len(line) <= request.param).replace(" … ", "")
        return [line.split() for line in lines if len(line) <= request.param]

    return show


Show = Callable[..., list[list[str]]]


def sweep(name: str, tmp_path: Path) -> Session:
    return open_session(SWEEPS / f"{name}.yaml", outputs=str(tmp_path))


def whole(lines: list[list[str]], *texts: str) -> None:
    """Every text is somewhere, its words one after the other."""
    for text in texts:
        parts = text.split()
        assert any(line[i : i + len(parts)] == parts for line in lines for i in range(len(line))), text


def test_a_plan_shows_every_entry_of_the_paper_s_sweep_with_all_numbers(show: Show, tmp_path: Path) -> None:
    session = sweep("full", tmp_path)
    report = preview(session)
    for number, each in enumerate(report["steps"].values()):
        each["expected"] = {"seconds": 123.4 * number, "cpu_hours": 1234.5 * number, "gpu_hours": 33.2 * number}
        each["expected"] |= {"bytes": 1.25e10 * number, "unknown": number % 3}
        each |= {"failed": 100 * number, "blocked": 1000 * number}
    lines = show(show_plan, session, report)
    whole(lines, *session.plan.entries, "CPU-hours", "GPU-hours", "committed", "blocked")
    for number, (name, each) in enumerate(report["steps"].items()):
        found = [word for line in lines if line[:1] == [name] for word in line]
        numbers = [each["total"], each["to_run"], each["failed"] or "", each["blocked"] or ""]
        numbers += [f"{123.4 * number:.3g}", f"{1234.5 * number:.3g}", f"{33.2 * number:.3g}" if number else ""]
        assert {f"{value:,}" if isinstance(value, int) else value for value in numbers} - {""} <= set(found), name


def test_means_of_all_metrics_of_a_shipped_sweep_stand_beside_the_values_that_they_belong_to(
    show: Show, tmp_path: Path
) -> None:
    session = sweep("quickstart", tmp_path)
    metrics = averaged_metrics(session.results().table())
    assert len(metrics) >= 16
    by = session.spec.summary.by
    rows = list(product(*map(session.spec.labels, by)))
    columns: dict[str, list[object]] = {axis: [row[i] for row in rows] for i, axis in enumerate(by)}
    columns |= {"cells": [12] * len(rows), "seeds": [2] * len(rows)}
    for number, name in enumerate(metrics):
        columns[f"{name}_mean"] = [number + row / 100 for row in range(len(rows))]
        columns[f"{name}_sd"] = [0.0123] * len(rows)
    lines = show(show_summary, session, pa.table(columns))
    whole(lines, *by, *metrics, "cells", "seeds")
    for position, labels in enumerate(rows):
        mine = [line for line in lines if line[: len(by)] == [str(label) for label in labels]]
        whole(mine, *(f"{number + position / 100:.3f} ± 0.012" for number in range(len(metrics))))


def test_comparisons_and_effects_show_every_column_and_number(show: Show) -> None:
    fixed = Interval(-0.1234, 0.05, 4, -0.2345, -0.0123, 0.1234, 0.9, 0.0617)
    new = Interval(-0.1234, 0.06, 7.5, -0.3456, 0.0987, 0.2345, 0.9, 0.1)
    effect = Effect(-0.1234, fixed, new, (-0.3, 0.09), 5, 200, 48, 480, 3, 0.5, {("seed",): 0.06}, ("3 are missing",))
    found = [
        Comparison(
            metric, "reward_model", "clf_mlp", other, {"beta": beta}, effect, mean_a=0.1, mean_b=0.2234, holm_p=0.9876,
            effect_size=-1.25,
        )
        for metric, other, beta in product(("pairwise_accuracy_cross", "improvement"), ("bt_mlp", "clf_lgb"), (0.5, 10))
    ]  # fmt: skip
    random = {"seed": "seed", "prompt": "evaluate/prompts.parquet"}
    analysis = Analysis.model_validate({"primary": {"metric": "gain"}, "random": random})
    sample = Sample(table_of(lambda cell: 1.0), analysis, confidence=0.9)
    lines = show(show_comparisons, found, sample, ["1 of 9 cells have no result (1 failed)"])
    headings = ("metric", "difference", "at", "mean", "effect", "Holm", "power", "seeds", "for")
    numbers = ("-0.1234", "-0.3456 … +0.0987", "-0.2345 … -0.0123", "-1.25", "0.2345", "0.9876")
    # A difference of half a standard deviation takes some fifty seeds.
    power, seeds = format_percent(found[0].power), str(found[0].seeds_needed)
    assert len(power) > 3
    assert int(seeds) > 20
    whole(lines, *headings, *numbers, power, seeds, "pairwise_accuracy_cross", "clf_mlp - bt_mlp", "beta=0.5")
    said = " ".join(word for line in lines for word in line)
    for text in ("new seeds", "new prompts", "these prompts"):
        assert all(word in said for word in text.split()), text
    assert "intervals of 90 %, not adjusted; Holm over the 8 lines with a p" in said
    assert said.endswith("1 of 9 cells have no result (1 failed) 3 are missing")
    effects = [
        AxisEffect(
            "pairwise_accuracy_cross", "reward_model", {"dataset": "helpful"}, "bt_mlp", "clf_lgb", 0.123, 0.045, 0.5,
            0.0625, 12.3, 0.01,
        )
    ]  # fmt: skip
    lines = show(show_effects, effects, [])
    headings = ("metric", "axis", "spread", "share", "F", "p", "noise")
    whole(lines, *headings, "pairwise_accuracy_cross", "reward_model", "clf_lgb", "dataset=helpful")
    whole(lines, "0.123", "0.045", "50.0 %", "6.2 %", "12.3")


def test_where_no_axis_has_results_there_is_no_empty_table_and_no_word_on_its_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lacking = "there are no results for bt, clf"
    show_effects([AxisEffect("gain", "model", notes=(lacking,))], ["6 of 6 cells have no result (6 pending)"])
    assert capsys.readouterr().out.splitlines() == [
        "no axis has results at two of its values; `sweep run` runs what is missing",
        "6 of 6 cells have no result (6 pending)",
    ]


def test_cells_show_their_id_all_coordinates_and_metrics(show: Show, tmp_path: Path) -> None:
    session = sweep("full", tmp_path)
    metrics = ("pairwise_accuracy", "improvement")
    numbers = {"seconds": 1234.5, "pairwise_accuracy": 0.7125, "improvement": -0.0123}
    some = [session.plan.cell(number) for number in range(0, 12_960, 160)]
    cells = [{"cell_id": cell.id, **cell.coords, "status": "succeeded", **numbers} for cell in some]
    lines = show(show_cells, session, cells, metrics)
    whole(lines, *session.spec.axes, *metrics)
    for cell in some:
        found = {word for line in lines if line[:1] == [cell.id] for word in line}
        assert {str(label) for label in cell.coords.values()} | {"succeeded", "1234.5", "0.7125", "-0.0123"} <= found


@pytest.mark.parametrize("width", [80, 60])
def test_on_a_narrow_terminal_a_command_wraps_no_line_of_its_table(width: int, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    command = [sys.executable, "-m", "orchestrator", "plan", "sweeps/full.yaml", "--outputs", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment |= {"TERM": "xterm", "NO_COLOR": "1"}
    done = subprocess.Popen(command, cwd=SWEEPS.parent, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            said += os.read(ours, 65536)
        except OSError:
            # The other end is closed.
            break
    os.close(ours)
    assert done.wait() == 0, said
    rows = [line for line in said.decode().splitlines() if "12,960 " in line and "cells" not in line]
    assert [[word for word in row.split() if word.isalpha()] for row in rows] == [["fit"], ["evaluate"]]
    assert all(len(row) <= width for row in rows)

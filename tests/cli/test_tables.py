"""Tables on a narrow terminal: folded or turned, and nothing in them is ever cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli import console
from orchestrator.cli.console import table

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

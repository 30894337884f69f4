"""What names the rows of a table of single prompts, and what of it are numbers."""

from __future__ import annotations

import datetime
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.analysis.prompt_table import PromptTable, PromptTableReader

SCORES = [0.25, None, 0.5]


def read(table: pa.Table | dict[str, Any], *columns: str, reader: PromptTableReader | None = None) -> PromptTable:
    sink = io.BytesIO()
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), sink, row_group_size=2)
    return (reader or PromptTableReader(columns or ("score",))).read(sink.getvalue())


def rows(names: dict[str, Any], **numbers: Any) -> str:
    return read({**names, "score": SCORES, **numbers}).rows


def test_rows_are_named_by_all_columns_but_floats_truth_values_and_those_that_are_measured() -> None:
    names = {"prompt": [4, 5, 6], "text": ["a", None, "\U0001f600<b>"]}
    known = rows(names)
    assert rows(dict(reversed(names.items()))) == known
    assert rows(names, other=[1.5, 2.5, 3.5], single=np.zeros(3, np.float32)) == known
    assert rows({**names, "prompt": pa.array([4, 5, 6], pa.int16())}) == known
    assert rows({**names, "text": pa.array(names["text"]).dictionary_encode()}) == known
    for other in ({"prompt": [4, 6, 5]}, {"prompt": [4, 5, None]}, {"text": ["a", "", "\U0001f600<b>"]}):
        assert rows(names | other) != known
    assert rows({**names, "more": [1, 1, 0]}) != known
    # Whether an answer was right is measured, whatever else it may be called.
    assert rows({**names, "more": [True, True, False]}) == known
    assert rows({}) != rows({"prompt": [0, 1, 2]})


def test_a_reader_that_saw_many_tables_names_rows_as_one_that_saw_none() -> None:
    reader = PromptTableReader(["score"])
    tables = [{"prompt": [first, first + 1, 9], "score": SCORES} for first in range(20)]
    found = [read(table, reader=reader).rows for table in [*tables, *tables]]
    assert found == [read(table).rows for table in tables] * 2
    assert len(set(found)) == 20


def test_texts_name_rows_and_numbers_and_dates_do_not() -> None:
    assert read({"text": ["a", "b", "c"], "score": SCORES}).texts
    assert read({"text": pa.array(["a", "b", "a"]).dictionary_encode(), "score": SCORES}).texts
    assert not read({"prompt": [1, 2, 3], "day": [datetime.date(2026, 1, 1)] * 3, "score": SCORES}).texts
    assert not read({"score": SCORES}).texts


def test_numbers_are_float64_with_nan_for_null_and_other_columns_are_left_out() -> None:
    table = {"score": SCORES, "hit": [True, None, False], "count": [1, 2, 2**62], "half": np.zeros(3, np.float16)}
    found = read({**table, "text": ["1", "2", "3"]}, *table, "text", "missing").columns
    assert set(found) == set(table)
    assert all(each.dtype == np.float64 and each.shape == (3,) for each in found.values())
    assert np.array_equal(found["score"], [0.25, np.nan, 0.5], equal_nan=True)
    assert np.array_equal(found["hit"], [1, np.nan, 0], equal_nan=True)
    assert found["count"].tolist() == [1, 2, 2**62]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "smaller than|0 bytes"),
        (b"PAR1" + b"\0" * 40 + b"PAR1", "thrift|TProtocol|footer"),
        (b"\x1b[31mtext" * 20, "magic bytes"),
    ],
)
def test_what_is_no_table_is_an_error_of_one_line(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        PromptTableReader(["score"]).read(content)
    assert "\n" not in str(raised.value)
    assert "\x1b" not in str(raised.value)


def test_odd_tables_are_read_or_refused_but_break_nothing() -> None:
    twice = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["score", "score"])
    with pytest.raises(ValueError, match="score"):
        read(twice)
    with pytest.raises(ValueError, match="it has no rows"):
        read({"score": pa.array([], pa.float64())})
    invalid = pa.Array.from_buffers(pa.string(), 1, [None, *pa.array([b"\xff\xfe"]).buffers()[1:]])
    with pytest.raises(ValueError, match="utf-8"):
        read({"text": invalid, "score": [1.0]})
    nested = {"a.b": [1, 2, 3], "list": [[1], [], None], "struct": [{"x": 1.5}] * 3, "raw": [b"\0", b"", None]}
    assert read({**nested, "score": SCORES, "a": [{"b": 1}] * 3}).columns.keys() == {"score"}

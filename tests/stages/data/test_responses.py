"""Responses: what is read again, of one shard or several, whole or cut, all at once or in windows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from workers import tables
from workers.data.responses import read_responses, write_responses

Write = Callable[[list[list[str]]], Path]


def test_what_is_written_is_read_again_in_flat_order(tmp_path: Path) -> None:
    write_responses([3, 5], ["p", "q"], ["a", "b", "c", "d"], tmp_path)
    rows = read_responses([tmp_path])
    assert (rows.prompts, rows.responses, rows.cut_at) == (2, 2, None)
    assert list(zip(rows.prompt, rows.response, strict=True)) == [("p", "a"), ("p", "b"), ("q", "c"), ("q", "d")]
    assert [rows.name(row) for row in (1, 2)] == ["prompt 3, response 1", "prompt 5, response 0"]


def test_prompts_are_counted_over_all_shards(tiny_write_responses: Write) -> None:
    shards = [tiny_write_responses([[" a", " b"]]), tiny_write_responses([[" c", " d"], [" e", " f"]])]
    rows = read_responses(shards)
    assert (rows.prompts, rows.responses) == (3, 2)
    assert rows.response == [" a", " b", " c", " d", " e", " f"]


def test_shards_of_different_shapes_or_none_at_all_are_refused(tiny_write_responses: Write) -> None:
    shards = [tiny_write_responses([[" a", " b"]]), tiny_write_responses([[" c"]])]
    with pytest.raises(ValueError, match=r"1 responses per prompt, but .* has 2"):
        read_responses(shards)
    with pytest.raises(ValueError, match="no shards"):
        read_responses([])


def test_responses_are_cut_where_a_text_begins(tiny_write_responses: Write) -> None:
    folder = tiny_write_responses([[" a\n\nHuman: b", "\n\nHuman"]])
    cut = read_responses([folder], "\n\nHuman")
    assert cut.response == [" a", ""]
    assert [responses for _, _, responses in cut.windows(1)] == [[" a"], [""]]
    assert read_responses([folder], "").response == [" a\n\nHuman: b", "\n\nHuman"]


@pytest.mark.parametrize(
    ("prompt_ids", "response_ids", "message"),
    [
        ([], [], "no responses"),
        ([0, 0, 1], [0, 1, 0], "same number of responses"),
        ([0, 0, 0, 1], [0, 1, 2, 0], "same number of responses"),
        ([1, 1, 0, 0], [0, 1, 0, 1], "sorted by prompt_id"),
        ([0, 0, 1, 1], [1, 0, 0, 1], "sorted by response_id"),
    ],
)
def test_ragged_or_unsorted_responses_are_refused(
    prompt_ids: list[int], response_ids: list[int], message: str, tmp_path: Path
) -> None:
    text = ["x"] * len(prompt_ids)
    columns = {"prompt_id": prompt_ids, "response_id": response_ids, "prompt": text, "response": text}
    tables.RESPONSES.write(columns, tmp_path)
    with pytest.raises(ValueError, match=message):
        read_responses([tmp_path])


def test_windows_cover_all_rows_in_order(tiny_write_responses: Write) -> None:
    rows = read_responses([tiny_write_responses([[f" {p}{r}" for r in range(3)] for p in range(3)])])
    found = [
        (start + i, prompt + response)
        for start, prompts, responses in rows.windows(4)
        for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
    ]
    assert [row for row, _ in found] == list(range(9))
    assert [text[-2:] for _, text in found] == [f"{p}{r}" for p in range(3) for r in range(3)]
    assert (rows.prompts, rows.responses, rows.name(4)) == (3, 3, "prompt 11, response 1")
    assert np.all([text.startswith("\n\nHuman: ") for _, text in found])

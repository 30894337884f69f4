"""Responses of policies: the one reader and writer of `responses` artifacts.

Their flat order (prompt * responses + response, prompts counted over all shards) is that of scores, embeddings and
annotations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from workers.tables import RESPONSES


@dataclass(frozen=True)
class Responses:
    """Responses of one shard or several, by flat row: as many for every prompt."""

    table: pa.Table
    """Rows of `tables.RESPONSES`, responses whole."""
    prompts: int
    """Number of prompts."""
    responses: int
    """Responses per prompt."""
    cut_at: str | None = None
    """Text where a response is cut, "" or None for nowhere."""

    @cached_property
    def prompt(self) -> list[str]:
        """The prompt of each row."""
        return _texts(self.table, "prompt")

    @cached_property
    def response(self) -> list[str]:
        """The response of each row, cut."""
        return self._cut(_texts(self.table, "response"))

    def windows(self, rows: int, first: int = 0) -> Iterator[tuple[int, list[str], list[str]]]:
        """Yield `rows` rows at a time, from `first` on: the number of the first one, their prompts, their responses
        (cut).
        """
        for start in range(first, self.table.num_rows, rows):
            part = self.table.slice(start, rows)
            yield start, _texts(part, "prompt"), self._cut(_texts(part, "response"))

    def name(self, row: int) -> str:
        """Return the name of a row in error messages."""
        cell = self.table.slice(row, 1).to_pylist()[0]
        return f"prompt {cell['prompt_id']}, response {cell['response_id']}"

    def _cut(self, texts: list[str]) -> list[str]:
        return [text.partition(self.cut_at)[0] for text in texts] if self.cut_at else texts


def read_responses(folders: Sequence[Path], cut_at: str | None = None) -> Responses:
    """Read `responses` artifacts, one per shard, in order.

    Args:
        folders: the artifacts.
        cut_at: cut each response where this text begins.

    Raises:
        ValueError: there is no shard; a shard has no rows, rows out of order, or not the same number of responses for
            every prompt; or shards have different numbers of responses.
    """
    if not folders:
        raise ValueError("no shards of responses given")
    shards = [_read_shard(folder) for folder in folders]
    responses = shards[0][2]
    for folder, (_, _, found) in zip(folders, shards, strict=True):
        if found != responses:
            raise ValueError(f"{folder}: {found} responses per prompt, but {folders[0]} has {responses}")
    table = pa.concat_tables([shard for shard, _, _ in shards])
    return Responses(table, sum(prompts for _, prompts, _ in shards), responses, cut_at)


def write_responses(prompt_ids: Sequence[int], prompts: Sequence[str], answers: Sequence[str], out: Path) -> None:
    """Write a `responses` artifact.

    Args:
        prompt_ids: ascending.
        prompts: text of each.
        answers: by flat row, as many for every prompt.
        out: folder of the artifact.
    """
    each = len(answers) // len(prompts)
    columns = {
        "prompt_id": np.repeat(prompt_ids, each),
        "response_id": np.tile(np.arange(each), len(prompts)),
        "prompt": [prompt for prompt in prompts for _ in range(each)],
        "response": answers,
    }
    RESPONSES.write(columns, out)


def _read_shard(folder: Path) -> tuple[pa.Table, int, int]:
    """Read the table of a shard; return it, its number of prompts, and of responses per prompt."""
    path = RESPONSES.path(folder)
    table = RESPONSES.read(folder)
    if table.num_rows == 0:
        raise ValueError(f"{path}: no responses")
    prompt_ids = table.column("prompt_id").to_numpy()
    response_ids = table.column("response_id").to_numpy()
    prompts = len(np.unique(prompt_ids))
    responses, rest = divmod(table.num_rows, prompts)
    if rest or (np.diff(prompt_ids) < 0).any() or (prompt_ids[::responses].repeat(responses) != prompt_ids).any():
        raise ValueError(f"{path}: not the same number of responses for every prompt, sorted by prompt_id")
    if (np.diff(response_ids.reshape(prompts, responses)) <= 0).any():
        raise ValueError(f"{path}: responses of a prompt are not sorted by response_id")
    return table, prompts, responses


def _texts(table: pa.Table, column: str) -> list[str]:
    texts: list[str] = table.column(column).to_pylist()
    return texts

"""Responses of all shards as texts, in the flat order in which scores, embeddings and annotations count them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from workers.tables import RESPONSES, read_table


@dataclass(frozen=True)
class Texts:
    """Prompts and responses by flat row (prompt * responses + response), prompts counted over all shards."""

    prompt: list[str]
    response: list[str]
    prompts: int
    responses: int


def read_texts(folders: Sequence[Path], cut_at: str | None) -> Texts:
    """Read `responses` artifacts, each response cut where `cut_at` begins.

    Raises:
        ValueError: no shard, one that `read_rectangle` refuses, or shards with different numbers of responses.
    """
    if not folders:
        raise ValueError("no shards of responses given")
    shards = [read_rectangle(folder) for folder in folders]
    responses = shards[0][2]
    for folder, (_, _, found) in zip(folders, shards, strict=True):
        if found != responses:
            raise ValueError(f"{folder}: {found} responses per prompt, but {folders[0]} has {responses}")
    table = pa.concat_tables([shard for shard, _, _ in shards])
    texts = table["response"].to_pylist()
    if cut_at:
        texts = [text.partition(cut_at)[0] for text in texts]
    return Texts(table["prompt"].to_pylist(), texts, sum(prompts for _, prompts, _ in shards), responses)


def read_rectangle(folder: Path) -> tuple[pa.Table, int, int]:
    """The table of a `responses` artifact, its number of prompts, and of responses per prompt.

    Raises:
        ValueError: no rows, not the same number of responses for every prompt, or rows out of order.
    """
    path = folder / "responses.parquet"
    table = read_table(path, RESPONSES)
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

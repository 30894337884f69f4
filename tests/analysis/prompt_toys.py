"""Stages that write numbers of single prompts, as they should and as they should not, and a sweep of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workers import config as configs
from workers.metric import Metric, Undefined
from workers.stage import ANY_KIND, Input, Stage

#: Two data sets of five and seven prompts, measured by two arms at three seeds.
SWEEP = """\
name: prompts
question: Which arm is better on which prompt?
axes: {arm: [1, 2], corpus: {a: {rows: 5}, b: {rows: 7}}, seed: [0, 1, 2]}
stages:
  evaluate: {stage: prompt_table, config: {arm: $arm, rows: $corpus.rows, seed: $seed}}
results: [evaluate]
tracking: false
uses: [prompt_toys]
namespace: toy
"""


class TableConfig(configs.Config):
    """Numbers of so many prompts, drawn by arm and seed."""

    arm: float = 0
    rows: int = 5
    seed: int = 0
    names: str = "numbers"
    """"numbers", "texts" or "none": what names the rows."""
    first: int = 0
    """The number of the first row."""
    odd: str = ""
    """What is wrong with the table."""
    prefix: str = ""
    shard: int = 0
    shards: int = 1

    def metrics(self) -> tuple[str | Metric, ...]:
        return (
            Metric(f"{self.prefix}score", better="higher", column="score", shards="mean", weight=f"{self.prefix}rows"),
            Metric(f"{self.prefix}rank", nullable=True, column="rank", shards="mean", weight=f"{self.prefix}rows"),
            Metric(f"{self.prefix}hit", column="hit", shards="mean", weight=f"{self.prefix}rows"),
            Metric(f"{self.prefix}rows", shards="sum"),
        )


def scores_of(config: TableConfig) -> np.ndarray:
    random = np.random.default_rng([int(config.arm), config.rows, config.seed, config.shard])
    return random.normal(size=config.rows)


def columns_of(config: TableConfig) -> dict[str, Any]:
    scores = scores_of(config)
    number = [config.first + config.shard * config.rows + row for row in range(config.rows)]
    names = {
        "numbers": {"prompt": number},
        "texts": {"text": [f"{each} <b>\x1b[31m été \U0001f600" for each in number]},
        "none": {},
    }[config.names]
    rank = [None if row == config.seed or config.odd == "undefined" else each for row, each in enumerate(scores)]
    return {**names, "score": scores, "rank": pa.array(rank, pa.float64()), "hit": scores > 0, "unnamed": scores * 2}


def write(config: TableConfig, out: Path, **inputs: Path) -> dict[str, float | Undefined]:
    columns = columns_of(config)
    there = [each for each in columns["rank"].to_pylist() if each is not None]
    metrics: dict[str, float | Undefined] = {
        "score": float(columns["score"].mean()),
        "rank": sum(there) / len(there) if there else Undefined("no rank"),
        "hit": float(columns["hit"].mean()),
        "rows": float(config.rows),
    }
    file = out / "prompts.parquet"
    if config.odd == "raise":
        raise ValueError("on request")
    if config.odd == "no column":
        del columns["score"]
    if config.odd == "texts":
        columns["score"] = [str(each) for each in columns["score"]]
    if config.odd == "another mean":
        columns["score"] = columns["score"] + 1
    if config.odd == "empty":
        columns = {name: each[:0] for name, each in columns.items()}
    if config.odd == "no table":
        file.write_bytes(b"PAR1 of nothing\x1b[31m")
    elif config.odd != "no file":
        pq.write_table(pa.table(columns), file)
    return {f"{config.prefix}{name}": value for name, value in metrics.items()}


class PlainConfig(configs.Config):
    """A step with a number of its own."""

    value: int = 0


def nothing(config: PlainConfig, out: Path, **inputs: Path) -> dict[str, float]:
    (out / "number.txt").write_text(str(config.value))
    return {}


STAGES = {
    "prompt_table": Stage("prompt_toys:write", 1, TableConfig, "evaluation"),
    "prompt_measured": Stage(
        "prompt_toys:write", 1, TableConfig, "evaluation", {"model": Input("model"), "answers": Input(ANY_KIND)}
    ),
    "prompt_source": Stage("prompt_toys:nothing", 1, PlainConfig, "prompts"),
    "prompt_model": Stage("prompt_toys:nothing", 1, PlainConfig, "model", {"prompts": Input("prompts")}),
    "prompt_answers": Stage("prompt_toys:nothing", 1, PlainConfig, "answers", {"prompts": Input("prompts")}),
}

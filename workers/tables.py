"""The tables that stages pass to each other: one Parquet file, of the same columns, per kind of artifact.

A stage reads with `PREFERENCES.read(folder)` and writes with `PREFERENCES.write(columns, folder)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Table:
    """A kind of table: the name of its file in the folder of an artifact, and its columns, none of which has nulls."""

    file: str
    schema: pa.Schema

    def path(self, folder: Path) -> Path:
        """Return the path of the table in the folder of an artifact."""
        return folder / self.file

    def read(self, folder: Path) -> pa.Table:
        """Read the table from the folder of an artifact.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a Parquet file, or has another schema, or holds a null or text that is not
                UTF-8; names the file.
        """
        path = self.path(folder)
        try:
            # pq.read_table would import pyarrow.dataset: 0.23 s and 33 MB of every process of a sweep.
            with pq.ParquetFile(path) as file:
                table = file.read(use_threads=False)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path}: not a readable Parquet file ({error})") from error
        if table.schema.remove_metadata() != self.schema:
            expected = f"{self.schema.names} with types {self.schema.types}"
            raise ValueError(f"{path}: schema {table.schema.names}, expected {expected}")
        _require_no_nulls(table, path)
        try:
            table.validate(full=True)
        except pa.ArrowInvalid as error:  # most readers would pass on what is no text
            raise ValueError(f"{path}: {error}: write texts as UTF-8") from error
        return table

    def write(self, columns: Mapping[str, object], folder: Path) -> None:
        """Write `columns` (name -> sequence) into the folder of an artifact, compressed by zstd.

        Raises:
            ValueError: a column is missing, unknown, of another type, or holds a null or a text with half a surrogate
                pair; names the file.
        """
        path = self.path(folder)
        if set(columns) != set(self.schema.names):
            raise ValueError(f"{path}: columns {sorted(columns)}, expected {sorted(self.schema.names)}")
        try:
            table = pa.Table.from_pydict({name: columns[name] for name in self.schema.names}, schema=self.schema)
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{path}: {error.object[error.start : error.end]!r} in {error.object[:40]!r} is half a surrogate pair, "
                "which is no text: leave it out, or replace it"
            ) from error
        _require_no_nulls(table, path)
        pq.write_table(table, path, compression="zstd")


def _require_no_nulls(table: pa.Table, path: Path) -> None:
    for name in table.column_names:
        if table.column(name).null_count:
            raise ValueError(f"{path}: column {name!r} has {table.column(name).null_count} empty values")


def _schema(**types: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


#: Train prompts first. `prompt` ends with "\n\nAssistant:".
PROMPTS = Table("prompts.parquet", _schema(prompt_id=pa.int64(), split=pa.string(), prompt=pa.string()))
#: Prompts and answers for supervised fine-tuning.
DEMONSTRATIONS = Table("demonstrations.parquet", _schema(prompt=pa.string(), response=pa.string()))
#: Pairs of answers. `subset` names the source of a row: the subset of a test set, as "rewardbench/llmbar-natural", the
#: type of a contrastive pair, or "".
PREFERENCES = Table(
    "preferences.parquet",
    _schema(prompt=pa.string(), chosen=pa.string(), rejected=pa.string(), subset=pa.string()),
)
#: The texts of a judge about two answers, shown in this order. A judgment belongs to a preference through the texts
#: `prompt`, `first` and `second`, so that label noise upstream changes nothing here. `drawn` marks the order that was
#: drawn for the pair; the other one is there only where both were requested. `hint` is the answer (1 or 2) that the
#: judge was given as the better one, or 0. `request` is the dialogue that requests a judgment, without any hint, ending
#: with "\n\nAssistant:". `text` begins with a space. `unread` is "" where the judge wrote the text; otherwise there is
#: no text, and it holds the reason: "too long: …", "refused: …", "filtered: …" (the content) or "garbled: …" (the
#: reply).
JUDGMENTS = Table(
    "judgments.parquet",
    _schema(
        prompt=pa.string(),
        first=pa.string(),
        second=pa.string(),
        drawn=pa.bool_(),
        hint=pa.int8(),
        sample=pa.int32(),
        request=pa.string(),
        text=pa.string(),
        unread=pa.string(),
    ),
)
#: Judgments with the answer that they prefer: 1, 2, or 0 where the text is missing or names neither.
VERDICTS = Table("verdicts.parquet", JUDGMENTS.schema.append(pa.field("verdict", pa.int8(), nullable=False)))
#: The rows of the test sets of a `judge_evaluation`, in their order. `credit` is 1 for the right answer, 0 for the
#: wrong one, 0.5 where a judge could not decide.
JUDGED_ROWS = Table(
    "rows.parquet",
    _schema(subset=pa.string(), prompt=pa.string(), chosen=pa.string(), rejected=pa.string(), credit=pa.float64()),
)
#: The prompts of a `policy_comparison`: means over the responses to a prompt, named as the metrics that are their mean.
COMPARED_PROMPTS = Table(
    "prompts.parquet",
    _schema(
        prompt=pa.string(),
        golden_reward=pa.float64(),
        start_golden_reward=pa.float64(),
        win_rate=pa.float64(),
        mean_length=pa.float64(),
        start_mean_length=pa.float64(),
    ),
)
#: Sorted by prompt_id then response_id, the same number of responses for every prompt.
RESPONSES = Table(
    "responses.parquet",
    _schema(prompt_id=pa.int64(), response_id=pa.int64(), prompt=pa.string(), response=pa.string()),
)
#: One annotation a row. `winner` and `loser` are flat rows (prompt * responses + response) of the scores and
#: embeddings, prompts counted over all shards; `reward_gap` is the golden reward of the winner minus that of the loser,
#: negative where the annotator was wrong.
ANNOTATIONS = Table("annotations.parquet", _schema(winner=pa.int64(), loser=pa.int64(), reward_gap=pa.float64()))
#: The training curve beside the result of a training step: a metric a row, in the order of training.
HISTORY = Table("history.parquet", _schema(step=pa.int64(), metric=pa.string(), value=pa.float64()))

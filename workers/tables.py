"""Arrow schemas of the tables that stages pass to each other, one per kind of artifact.

A stage writes with `write_table(columns, SCHEMA, path)` and reads with `read_table(path, SCHEMA)`; both refuse a table
of another shape, naming the file and the column.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

#: prompts/prompts.parquet, train prompts first. `prompt` ends with "\n\nAssistant:".
PROMPTS = pa.schema(
    [
        pa.field("prompt_id", pa.int64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
    ]
)
#: demonstrations/demonstrations.parquet
DEMONSTRATIONS = pa.schema(
    [pa.field("prompt", pa.string(), nullable=False), pa.field("response", pa.string(), nullable=False)]
)
#: preferences/preferences.parquet. `subset` says where a row comes from: the subset of a test set, as
#: "rewardbench/llmbar-natural", the type of a contrastive pair, or "".
PREFERENCES = pa.schema(
    [
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("chosen", pa.string(), nullable=False),
        pa.field("rejected", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
    ]
)
#: judgments/judgments.parquet: what a judge wrote about two answers, shown in this order. A judgment belongs to a
#: preference through the texts `prompt`, `first` and `second`, so that label noise upstream changes nothing here.
#: `drawn` marks the order that was drawn for the pair; the other one is there only where both were asked for. `hint` is
#: 0, or the answer (1 or 2) of which the judge was told that it is the better one. `request` is the dialogue that asks
#: for a judgment, without any hint, ending with "\n\nAssistant:". `text` begins with a space. `unread` is "" where the
#: judge wrote the text. Else there is none, and it says why: "too long: …", "refused: …", "filtered: …" (the content)
#: or "garbled: …" (the reply).
JUDGMENTS = pa.schema(
    [
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("first", pa.string(), nullable=False),
        pa.field("second", pa.string(), nullable=False),
        pa.field("drawn", pa.bool_(), nullable=False),
        pa.field("hint", pa.int8(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("request", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("unread", pa.string(), nullable=False),
    ]
)
#: verdicts/verdicts.parquet: judgments with the answer that they prefer: 1, 2, or 0 where the text does not say or is
#: missing.
VERDICTS = JUDGMENTS.append(pa.field("verdict", pa.int8(), nullable=False))
#: judge_evaluation/rows.parquet: one row of a test set each, in its order. `credit` is 1 for the right answer, 0 for
#: the wrong one, 0.5 where a judge could not decide.
JUDGED_ROWS = pa.schema(
    [
        pa.field("subset", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("chosen", pa.string(), nullable=False),
        pa.field("rejected", pa.string(), nullable=False),
        pa.field("credit", pa.float64(), nullable=False),
    ]
)
#: responses/responses.parquet, sorted by prompt_id then response_id, the same number of responses for every prompt.
RESPONSES = pa.schema(
    [
        pa.field("prompt_id", pa.int64(), nullable=False),
        pa.field("response_id", pa.int64(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("response", pa.string(), nullable=False),
    ]
)
#: annotations/annotations.parquet: one annotation a row. `winner` and `loser` are flat rows (prompt * responses +
#: response) of the scores and embeddings, prompts counted over all shards; `reward_gap` is the golden reward of the
#: winner minus that of the loser, negative where the annotator was wrong.
ANNOTATIONS = pa.schema(
    [
        pa.field("winner", pa.int64(), nullable=False),
        pa.field("loser", pa.int64(), nullable=False),
        pa.field("reward_gap", pa.float64(), nullable=False),
    ]
)
#: history.parquet beside whatever a training step writes: its curve, a metric a row, in the order of training.
HISTORY = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)


def write_table(columns: dict[str, object], schema: pa.Schema, path: Path) -> None:
    """Write `columns` (name -> sequence) as Parquet (zstd).

    Raises:
        ValueError: a column is missing, unknown, of another type, or holds a null.
    """
    if set(columns) != set(schema.names):
        raise ValueError(f"{path}: columns {sorted(columns)}, expected {sorted(schema.names)}")
    table = pa.Table.from_pydict({name: columns[name] for name in schema.names}, schema=schema)
    _no_nulls(table, path)
    pq.write_table(table, path, compression="zstd")


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a Parquet table written by `write_table` with the same schema.

    Raises:
        ValueError: the file is not a Parquet file, or has another schema, or holds a null.
    """
    try:
        # pq.read_table would import pyarrow.dataset: 0.23 s and 33 MB of every process of a sweep.
        with pq.ParquetFile(path) as file:
            table = file.read(use_threads=False)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a readable Parquet file ({error})") from error
    if table.schema.remove_metadata() != schema:
        raise ValueError(f"{path}: schema {table.schema.names}, expected {schema.names} with types {schema.types}")
    _no_nulls(table, path)
    return table


def _no_nulls(table: pa.Table, path: Path) -> None:
    for name in table.column_names:
        if table.column(name).null_count:
            raise ValueError(f"{path}: column {name!r} has {table.column(name).null_count} empty values")

"""The results table as Parquet: its schema, and how it is written and read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from upath import UPath

from orchestrator.regular_file import open_file
from orchestrator.results.metrics import declared_metrics, unaveraged_metrics
from orchestrator.store.atomic import explained, replace_file
from orchestrator.types import Scalar

if TYPE_CHECKING:
    from orchestrator.plan.columns import Plan
    from orchestrator.sweep.search import SpaceField
    from orchestrator.sweep.spec import SweepSpec

#: Raised when a column changes its name, type or meaning.
SCHEMA_VERSION = 1
#: A larger table is cut into files of so many rows.
PART_ROWS = 100_000


# --- schema


def results_schema(plan: Plan, found: Iterable[str] = ()) -> pa.Schema:
    """Make the schema of the results table of a sweep, with what readers need to know of the sweep as metadata.

    Args:
        plan: the sweep.
        found: metrics that were returned without being declared.
    """
    declared = (name for metrics in declared_metrics(plan).values() for name in metrics)
    metrics = list(dict.fromkeys([*declared, *found]))
    return pa.schema(
        [
            pa.field("cell_id", pa.string(), nullable=False),
            *(pa.field(axis, column_type(plan.spec, axis), nullable=False) for axis in plan.spec.axes),
            *_trial_fields(plan.spec),
            pa.field("status", pa.string(), nullable=False),
            pa.field("error_class", pa.string()),
            pa.field("error", pa.string()),
            pa.field("attempts", pa.int64(), nullable=False),
            pa.field("seconds", pa.float64()),
            *(pa.field(name, pa.float64()) for name in metrics),
            pa.field("key", pa.string(), nullable=False),
            pa.field("code_commit", pa.string()),
            pa.field("log", pa.string()),
            pa.field("undefined", pa.string()),
        ],
        metadata={
            "schema_version": str(SCHEMA_VERSION),
            "sweep": plan.spec.name,
            "question": plan.spec.question,
            "axes": json.dumps({axis: list(plan.spec.labels(axis)) for axis in plan.spec.axes}),
            "metrics": json.dumps(metrics),
            "unaveraged": json.dumps(unaveraged_metrics(plan)),
        }
        | ({"space": json.dumps(list(plan.spec.searched.fields))} if plan.spec.searched else {}),
    )


def _trial_fields(spec: SweepSpec) -> Iterator[pa.Field]:
    """Make the columns that only the table of a search has: the study, what became of the trial, its values."""
    if spec.searched is None:
        return
    yield pa.field("study", pa.string(), nullable=False)
    yield pa.field("trial_state", pa.string(), nullable=False)
    for name, field in spec.searched.fields.items():
        yield pa.field(name, value_type(field))


def value_type(field: SpaceField) -> pa.DataType:
    """Return the type of the column of a field that is searched."""
    return pa.float64() if field.float_ else pa.int64() if field.int_ else type_of(field.labels)


def as_column(field: SpaceField, label: Scalar) -> Scalar:
    """Return how the column of a searched field has a value: as text where its choices are of several types."""
    return str(label) if field.choice is not None and pa.types.is_string(type_of(field.labels)) else label


def column_type(spec: SweepSpec, axis: str) -> pa.DataType:
    """Return the type of the column of an axis; whole numbers beside others are floats, so that 10 is shown as 10.0."""
    return type_of(spec.labels(axis))


def type_of(labels: Iterable[Scalar]) -> pa.DataType:
    """Return the type of a column of some values."""
    kinds: Mapping[type, pa.DataType] = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    found = {type(label) for label in labels}
    if found == {int, float}:
        return pa.float64()
    return kinds.get(found.pop(), pa.string()) if len(found) == 1 else pa.string()


# --- files


def write_results(table: pa.Table, path: Path | UPath) -> None:
    """Replace the results table, so that a reader in mid-run sees the old one or the new one.

    Up to `PART_ROWS` rows it is one Parquet file. Above, `path` is a folder of such files, each of so many rows in the
    order of the plan, so that a part holds few values of the leading axes; each is replaced at once, hence a reader may
    see older and newer rows side by side, but every cell once. pyarrow and pandas read both alike, DuckDB the folder as
    `path/*.parquet`.

    Raises:
        StoreError: the place cannot be written.
    """
    with explained(path):
        old = _parts(path)
        if table.num_rows <= PART_ROWS:
            _remove(old, path)
        elif path.is_file():
            path.unlink()
    if table.num_rows <= PART_ROWS:
        replace_file(path, to_parquet(table))
        return
    starts = range(0, table.num_rows, PART_ROWS)
    parts = [path / f"part-{number:05}.parquet" for number in range(len(starts))]
    for start, part in zip(starts, parts, strict=True):
        replace_file(part, to_parquet(table.slice(start, PART_ROWS)))
    with explained(path):
        _remove([part for part in old if part.name not in {each.name for each in parts}])


def to_parquet(table: pa.Table) -> bytes:
    """Encode a table as one Parquet file; the same table gives the same bytes."""
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    content: bytes = buffer.getvalue().to_pybytes()
    return content


def read_results(path: str | Path | UPath) -> pa.Table:
    """Read the results table of a sweep: `results.parquet`, or the sweep's output folder, also in a bucket.

    Raises:
        FileNotFoundError: the sweep has not been run there.
        ValueError: the table was written with another schema version, or is none of ours, or damaged.
        OSError: it cannot be read.
    """
    place = UPath(path, use_listings_cache=False) if "://" in str(path) else UPath(path)
    if place.suffix != ".parquet":
        place = place / "results.parquet"
    if not place.exists():
        raise FileNotFoundError(f"{place} does not exist; `sweep run` or `sweep results` writes it")
    files = _parts(place) or [place]
    contents = [_content(file) for file in files]
    try:
        table = _decode(contents)
        metadata = {name.decode(): text.decode() for name, text in (table.schema.metadata or {}).items()}
    # Arrow has an exception of its own for some kinds of damage only.
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise ValueError(f"{path} is no table, or damaged ({reason}); run `sweep results`") from error
    found = metadata.get("schema_version", "none")
    if found != str(SCHEMA_VERSION):
        raise ValueError(f"{path} has schema version {found}, this code reads {SCHEMA_VERSION}; run `sweep results`")
    return table


def _content(file: Path | UPath) -> bytes:
    with open_file(file) if isinstance(file, Path) else file.open("rb") as stream:
        content: bytes = stream.read()
    return content


def _decode(contents: Iterable[bytes]) -> pa.Table:
    import pyarrow.parquet as pq

    # Arrow's threads, at work for the first time, abort a process that ends within some milliseconds (exit code 134).
    files = (pq.ParquetFile(pa.BufferReader(content)) for content in contents)
    return pa.concat_tables([file.read(use_threads=False) for file in files])


def _parts(path: Path | UPath) -> list[Path | UPath]:
    """The parts of a table of many rows, in order; none where it is one file, or not there."""
    return sorted(path.glob("part-*.parquet"), key=lambda part: part.name) if path.is_dir() else []


def _remove(parts: list[Path | UPath], folder: Path | UPath | None = None) -> None:
    for part in parts:
        part.unlink()
    if folder is not None and parts and isinstance(folder, Path):
        # An object store has no empty folders.
        folder.rmdir()

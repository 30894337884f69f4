"""What a file holds, by its name and its schema alone: also the files of stages that nobody here knows."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.analysis import prompt_table
from orchestrator.explain.artifact_files import SMALL, ArtifactFiles
from orchestrator.explain.views import (
    TEXT,
    ArrayView,
    Curve,
    CurveView,
    TableView,
    TextView,
    Unshown,
    View,
    plain_value,
    shortened,
)
from workers.tables import HISTORY

#: Rows and columns of a table that are shown.
_ROWS, _COLUMNS = 5, 30
#: Files of an artifact that are shown.
_FILES = 4
#: Points of a curve that are kept.
_POINTS = 200
#: Values of an array whose range is taken: 32 MiB as float64.
_VALUES = 2**22
#: Bytes of a text that are read to show its beginning; a file of no more that is text is shown whatever its name.
_BEGINNING = 2**16
_KNOWN = (
    ".parquet", ".npy", ".csv", ".tsv", ".jsonl", ".txt", ".md", ".json", ".yaml", ".yml", ".toml", ".log", ".html",
    ".xml",
)  # fmt: skip
#: What reading a file may raise that is not what its name says.
UNREADABLE = (*prompt_table.UNREADABLE, csv.Error)


def file_views(files: ArtifactFiles, leave_out: Iterable[str] = ()) -> list[View]:
    """Look at some files of an artifact: those at its top if one of them can be shown, else those in its folders.

    Args:
        files: of the artifact.
        leave_out: files that are shown otherwise.

    Raises:
        DamagedArtifactError: a file is missing or altered.
        StoreError: the store cannot be read.
    """
    names = sorted(set(files.sizes) - set(leave_out), key=lambda name: (name.count("/"), name))
    views: list[View] = []
    for _, group in itertools.groupby(names, key=lambda name: name.count("/")):
        found = (view for name in group if (view := file_view(files, name)))
        views += itertools.islice(found, _FILES - len(views))
        if views:
            break
    return views


def file_view(files: ArtifactFiles, name: str) -> View | None:
    """Look at one file; None if there is nothing in it for people.

    Raises:
        DamagedArtifactError: the file is missing or altered.
        StoreError: the store cannot be read.
    """
    size = files.sizes[name]
    if size > _BEGINNING and _suffix(name) not in _KNOWN:
        return None
    source = files.open(name)
    if source is None:
        reason = f"has {size:,} bytes; more than {SMALL:,} are not fetched from an object store to look at them"
        return Unshown(name, reason)
    return content_view(name, source, size)


def content_view(name: str, source: bytes | Path, size: int) -> View | None:
    """Look at the content of a file of so many bytes; None if there is nothing in it for people."""
    suffix = _suffix(name)
    try:
        if suffix == ".parquet":
            return parquet_view(name, source)
        if suffix == ".npy":
            return _array(name, source)
        if suffix in (".csv", ".tsv", ".jsonl"):
            return _lines(name, suffix, _beginning(source), size)
        return _text(name, _beginning(source), size, suffix in _KNOWN)
    except UNREADABLE as error:
        return Unshown(name, f"cannot be read as {suffix.removeprefix('.') or 'text'}: {shortened(str(error), 300)}")


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


# --- Parquet


def parquet_view(name: str, source: bytes | Path) -> TableView | CurveView:
    """Look at a Parquet file: curves if it has the columns of a training's history, else rows.

    Raises:
        OSError, ValueError or another of UNREADABLE: it is no such file.
    """
    with open_parquet(source) as file:
        schema = file.schema_arrow.remove_metadata()
        if schema == HISTORY.schema:
            return CurveView(name, _curves(file.read(use_threads=False)))
        start, columns = _first_test(file), schema.names[:_COLUMNS]
        rows = tuple(tuple(map(plain_value, row)) for row in read_rows(file, start, _ROWS, columns))
        which = "of split test" if start else "first"
        return TableView(name, tuple(columns), rows, file.metadata.num_rows, len(schema.names), which)


def open_parquet(source: bytes | Path) -> pq.ParquetFile:
    """Open a Parquet file, of which nothing but its schema is read."""
    return pq.ParquetFile(pa.BufferReader(source) if isinstance(source, bytes) else source, memory_map=True)


def read_rows(file: pq.ParquetFile, start: int, count: int, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Read some columns of so many rows from one on, and no other group of rows than those that they are in."""
    rows: list[tuple[Any, ...]] = []
    first = 0
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        if start + len(rows) < first + size:
            at = first
            for batch in file.iter_batches(1024, row_groups=[group], columns=columns, use_threads=False):
                part = batch.slice(min(max(start + len(rows) - at, 0), batch.num_rows), count - len(rows))
                rows += zip(*(column.to_pylist() for column in part.columns), strict=True)
                at += batch.num_rows
                if len(rows) >= count:
                    return rows
        first += size
    return rows


def read_records(file: pq.ParquetFile, start: int, count: int) -> list[dict[str, Any]]:
    """Read so many rows from one on as column -> value, of a table whose columns have different names."""
    names = file.schema_arrow.names
    return [dict(zip(names, row, strict=True)) for row in read_rows(file, start, count, names)]


def _first_test(file: pq.ParquetFile) -> int:
    """Find the first row of the test split, 0 where the table has none; train comes before test (`tables.PROMPTS`)."""
    schema = file.schema_arrow
    if "split" not in schema.names or not pa.types.is_string(schema.field("split").type):
        return 0
    found: int = file.read(["split"], use_threads=False).column("split").index("test").as_py()
    return max(found, 0)


def _curves(table: pa.Table) -> tuple[Curve, ...]:
    points: dict[str, list[tuple[int, float]]] = {}
    for step, metric, value in zip(*(table.column(each).to_pylist() for each in HISTORY.schema.names), strict=True):
        if np.isfinite(value):
            points.setdefault(metric, []).append((step, value))
    curves = []
    for metric in sorted(points, key=lambda each: ("loss" not in each, "/" in each)):
        every = points[metric]
        chosen = np.unique(np.linspace(0, len(every) - 1, min(len(every), _POINTS)).round().astype(int)).tolist()
        steps, values = zip(*(every[each] for each in chosen), strict=True)
        curves.append(Curve(metric, steps, values, len(every)))
    return tuple(curves)


# --- arrays


def _array(name: str, source: bytes | Path) -> ArrayView:
    if isinstance(source, bytes):
        array = np.load(io.BytesIO(source), allow_pickle=False)
    else:
        array = np.load(source, mmap_mode="r", allow_pickle=False)
    low = mean = high = None
    seen = bad = 0
    if array.dtype.kind in "biuf" and array.size:
        # In the order of the file, so that nothing is copied.
        some = array.reshape(-1, order="A")[:_VALUES].astype(np.float64)
        finite = some[np.isfinite(some)]
        seen, bad = some.size, some.size - finite.size
        if finite.size:
            low, mean, high = float(finite.min()), float(finite.mean()), float(finite.max())
    return ArrayView(name, array.shape, str(array.dtype), low, mean, high, seen, array.size, bad)


# --- texts


def _beginning(source: bytes | Path) -> bytes:
    if isinstance(source, bytes):
        return source[:_BEGINNING]
    with source.open("rb") as stream:
        return stream.read(_BEGINNING)


def _text(name: str, content: bytes, size: int, known: bool) -> TextView | None:
    try:
        # The last character may be cut.
        text = content.decode(errors="replace" if known or size > len(content) else "strict")
    except UnicodeDecodeError:
        return None
    if not known and "\0" in text:
        return None
    whole = size <= len(content) and len(text) <= TEXT
    return TextView(name, shortened(text), size, whole)


def _lines(name: str, suffix: str, content: bytes, size: int) -> TableView:
    """The first rows of lines of JSON, or of values with a separator under a line of headings."""
    text = content.decode(errors="replace")
    if size > len(content):
        # The last line may be cut.
        text = text[: text.rfind("\n") + 1] or text
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in itertools.islice(filter(str.strip, text.split("\n")), _ROWS)]
        dicts = [row if isinstance(row, dict) else {"value": row} for row in rows]
        names = tuple(dict.fromkeys(column for row in dicts for column in row))
        columns = names[:_COLUMNS]
        values = tuple(tuple(plain_value(row.get(column)) for column in columns) for row in dicts)
        total = sum(bool(line.strip()) for line in text.split("\n"))
    else:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if suffix == ".tsv" else ",")
        names = tuple(next(reader, []))
        columns = names[:_COLUMNS]
        every = _filled(reader, len(columns))
        values = tuple(tuple(map(plain_value, row)) for row in itertools.islice(every, _ROWS))
        total = len(values) + sum(1 for _ in every)
    return TableView(name, columns, values, total if size <= len(content) else None, len(names))


def _filled(rows: Iterable[list[str]], width: int) -> Iterator[list[str]]:
    for row in rows:
        if row:
            yield (row + [""] * width)[:width]

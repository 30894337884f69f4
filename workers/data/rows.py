"""Rows of a source, unchanged: a local JSONL, JSON or Parquet file, or a data set of the Hugging Face Hub."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workers.config import Data, HubData, LocalPath


@dataclass(frozen=True)
class Row:
    """One row of any columns."""

    place: str
    """"line 87" or "row 87", counted from 1."""
    values: Mapping[str, Any]
    fault: str | None = None
    """Reason why it could not be parsed; None if it could."""


def read_rows(source: Data) -> list[Row]:
    """Read the rows of `source` in its order.

    A file is recognised by its content: Parquet; JSON lines; a JSON array of objects; or a JSON object whose values are
    such arrays, read one after another. JSON may be gzipped.

    Raises:
        FileNotFoundError: no such file on this machine.
        OSError: the Hub data set could not be loaded.
        ValueError: it is a folder, cannot be read, or its content changed since the sweep was planned.
    """
    return list(_hub_rows(source) if isinstance(source, HubData) else _file_rows(source))


def _file_rows(source: LocalPath) -> Iterator[Row]:
    path = Path(source.path)
    if path.is_dir():
        raise ValueError(f"{path}: a folder; name one JSONL, JSON or Parquet file in it")
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such file. It must be visible under this path on the machine that runs the step, "
            "not only where the sweep was planned."
        )
    content = path.read_bytes()
    # The digest is the file's identity in the key: an edit after planning must not be stored under the old key.
    if (found := hashlib.sha256(content).hexdigest()) != source.sha256:
        raise ValueError(
            f"{path}: sha256 {found[:12]}…, but the sweep was planned with {source.sha256[:12]}…. The file changed "
            "since, or differs between machines: submit the sweep again."
        )
    # By content, not by name: a wrong suffix is common and harmless.
    if content.startswith(b"PAR1"):
        yield from _parquet_rows(path, content)
        return
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise ValueError(f"{path}: not a whole gzip file ({error})") from error
    yield from _json_rows(path, content)


def _json_rows(path: Path, content: bytes) -> Iterator[Row]:
    try:
        whole = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
            raise ValueError(f"{path}: a JSON array that cannot be read ({error})") from error
        whole = None  # JSON lines, as a rule
    if isinstance(whole, list):
        yield from _array_rows(whole, "")
    elif isinstance(whole, dict) and whole and all(_is_array_of_rows(value) for value in whole.values()):
        for name, array in whole.items():
            yield from _array_rows(array, f" of {name!r}")
    else:
        yield from _line_rows(content)


def _is_array_of_rows(value: object) -> bool:
    """Return whether a value is an array of objects, but no dialogue: a file may be one line of lists of messages."""
    return isinstance(value, list) and all(isinstance(each, dict) and "role" not in each for each in value)


def _array_rows(array: list[Any], of: str) -> Iterator[Row]:
    for number, values in enumerate(array, start=1):
        yield _object_row(f"row {number}{of}", values)


def _line_rows(content: bytes) -> Iterator[Row]:
    for number, line in enumerate(io.BytesIO(content), start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            yield _object_row(place, json.loads(line.decode("utf-8-sig")))
        except UnicodeDecodeError as error:
            yield Row(place, {}, f"not UTF-8 ({error.reason} at byte {error.start})")
        except (ValueError, RecursionError) as error:
            yield Row(place, {}, f"not valid JSON ({error})")


def _object_row(place: str, values: object) -> Row:
    if isinstance(values, dict):
        return Row(place, values)
    return Row(place, {}, f"a JSON {type(values).__name__}, not an object with columns")


def _parquet_rows(path: Path, content: bytes) -> Iterator[Row]:
    try:
        table = pq.ParquetFile(pa.BufferReader(content)).read()
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: not a readable Parquet file ({error})") from error
    for number, values in enumerate(table.to_pylist(), start=1):
        yield Row(f"row {number}", values)


def _hub_rows(source: HubData) -> Iterator[Row]:
    import datasets

    try:
        rows = datasets.load_dataset(source.hub, data_dir=source.subset, split=source.split, revision=source.revision)
    # The Hub libraries raise from several unrelated trees (httpx, huggingface_hub, datasets, OSError) for one cause.
    except Exception as error:
        raise OSError(
            f"{source.hub} (subset {source.subset}, split {source.split}, revision {source.revision}) could not be "
            f"loaded from the Hugging Face Hub: {type(error).__name__}: {error}\n"
            "Without internet on this machine: load the data set once where there is, with HF_HOME on a disk that this "
            "machine sees, and set the same HF_HOME here; or give a downloaded file, source: {path: …}. "
            "A gated data set also needs HF_TOKEN."
        ) from error
    for number, values in enumerate(rows, start=1):
        yield Row(f"row {number}", values)

"""Numbers of single prompts that were read before, in few files: thousands of artifacts are opened once.

A number is found by the sha256 of the file that it was read from, which stands in the manifest of the artifact: an
artifact that was changed or made again is another file. The cache is local and disposable.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestrator.analysis.prompt_table import PromptTable
from orchestrator.statistics.estimates import Reals
from orchestrator.store import StoreError
from orchestrator.store.atomic import replace_file

#: Raised when files of the cache, or digests of rows, get another meaning.
_VERSION = 2
#: Smaller files (bytes) are joined with what is added next, so that there are never many.
_SMALL = 8 * 2**20
#: What a file says of each table, beside its numbers.
_ABOUT = (("file", pa.string()), ("rows", pa.string()), ("texts", pa.bool_()))
#: What reading a file raises that is torn, altered, not ours, or joined with others by another process at this moment.
_NOT_THERE = (pa.ArrowException, OSError, ValueError)


class PromptCache:
    """The tables of one place of a sweep, by the sha256 of their files."""

    def __init__(self, folder: Path, columns: Collection[str]) -> None:
        """Name the folder, which need not exist, and all columns that are kept of a table; nothing is read yet."""
        self._columns = sorted(columns)
        wanted = hashlib.sha256(repr((_VERSION, self._columns)).encode()).hexdigest()[:12]
        self._folder = folder / wanted

    def read(self, column: str, files: Collection[str]) -> dict[str, PromptTable]:
        """Return the tables of some files, as far as they are known, with one of their columns."""
        wanted, found = set(files), dict[str, PromptTable]()
        for path in self._paths():
            with contextlib.suppress(*_NOT_THERE):
                for digest, table in _read(path, [column]).items():
                    if digest in wanted:
                        found.setdefault(digest, table)
        return found

    def add(self, tables: Mapping[str, PromptTable]) -> None:
        """Keep the tables of some files; where nothing can be written nothing is kept."""
        by_length: dict[int, dict[str, PromptTable]] = {}
        for digest, table in tables.items():
            for numbers in table.columns.values():
                by_length.setdefault(len(numbers), {})[digest] = table
        for length, batch in by_length.items():
            with contextlib.suppress(StoreError, OSError):
                self._write(length, batch)

    def _write(self, length: int, batch: dict[str, PromptTable]) -> None:
        joined = []
        for path in self._paths(length):
            with contextlib.suppress(*_NOT_THERE):
                if path.stat().st_size < _SMALL:
                    batch = _read(path, self._columns) | batch
                    joined.append(path)
        name = hashlib.sha256("".join(sorted(batch)).encode()).hexdigest()[:16]
        target = self._folder / f"{length}-{name}.parquet"
        replace_file(target, _parquet(length, batch, self._columns))
        for path in joined:
            if path != target:
                path.unlink(missing_ok=True)

    def _paths(self, length: int | None = None) -> list[Path]:
        """List the files of tables of so many rows; of any number without one."""
        try:
            return sorted(self._folder.glob(f"{'*' if length is None else length}-*.parquet"))
        except OSError:
            return []


def _schema(length: int, columns: Sequence[str]) -> pa.Schema:
    # A column of a table is one value: lists of floats take several times as long to read.
    return pa.schema([*_ABOUT, *((f"column {name}", pa.binary(8 * length)) for name in columns)])


def _parquet(length: int, tables: Mapping[str, PromptTable], columns: Sequence[str]) -> bytes:
    found = tables.values()
    numbers = ([table.columns.get(name) for table in found] for name in columns)
    values = [
        [*tables],
        [table.rows for table in found],
        [table.texts for table in found],
        *([None if each is None else each.astype("<f8").tobytes() for each in column] for column in numbers),
    ]
    schema = _schema(length, columns)
    arrays = [pa.array(column, kind) for column, kind in zip(values, schema.types, strict=True)]
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=schema),
        sink,
        compression="zstd",
        use_dictionary=["rows"],
        write_statistics=False,
        write_page_checksum=True,
    )
    return bytes(sink.getvalue())


def _read(path: Path, columns: Sequence[str]) -> dict[str, PromptTable]:
    """Read some columns of a file of the cache: sha256 -> table.

    Raises:
        pa.ArrowException, OSError or ValueError: it is torn, altered, gone or something else.
    """
    length = int(path.name.partition("-")[0])
    schema = _schema(length, columns)
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        table = file.read(schema.names, use_threads=False)
    if table.schema.remove_metadata() != schema:
        raise ValueError(f"{path} has other columns")
    numbers = {name: _numbers(table[f"column {name}"], length) for name in columns}
    about = (table[name].to_pylist() for name, _ in _ABOUT)
    return {
        digest: PromptTable(rows, texts, {name: each[at] for name, (each, there) in numbers.items() if there[at]})
        for at, (digest, rows, texts) in enumerate(zip(*about, strict=True))
    }


def _numbers(column: pa.ChunkedArray, length: int) -> tuple[Reals, NDArray[np.bool_]]:
    """Return the numbers (tables, rows), and which of the tables have any."""
    whole = pa.concat_arrays(column.chunks)
    numbers = np.frombuffer(whole.buffers()[1], "<f8", len(whole) * length, whole.offset * 8 * length)
    return numbers.reshape(len(whole), length), whole.is_valid().to_numpy(zero_copy_only=False)

"""Tables of single prompts, as stages write them: numbers of prompts (or rows of a test set), and what names them."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.statistics.estimates import Reals
from orchestrator.texts import plain_text

#: What reading a file may raise that is not what its name says.
UNREADABLE = (
    pa.ArrowException, OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError, OverflowError,
    RecursionError,
)  # fmt: skip
#: Tables whose names of rows are kept, to be compared with those of the next.
_KEPT = 8


@dataclass(frozen=True, slots=True)
class PromptTable:
    """What an analysis needs of a table of single prompts."""

    rows: str
    """Digest of what names the rows, in order: all columns but those that metrics name, floats and truth values."""
    texts: bool
    """Whether there are texts among the names; numbers alone may be those of any prompts."""
    columns: Mapping[str, Reals]
    """Column -> its numbers (rows,), NaN where there is none; columns that the table lacks are left out."""


class PromptTableReader:
    """Reads the tables of one place of a sweep; several threads may do so at once."""

    def __init__(self, columns: Collection[str]) -> None:
        """Take the columns of numbers that are wanted."""
        self._columns = frozenset(columns)
        self._known: deque[tuple[pa.Table, str]] = deque(maxlen=_KEPT)

    def read(self, content: bytes) -> PromptTable:
        """Read a table.

        Raises:
            ValueError: it is no Parquet file, or has no rows; the message has a reason only.
        """
        try:
            return self._read(content)
        except UNREADABLE as error:
            reason = plain_text(" ".join(str(error).split()), 200) or type(error).__name__
            raise ValueError(reason) from error

    def _read(self, content: bytes) -> PromptTable:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            unwanted = {each.name for each in file.schema_arrow if _is_measured(each.type)} - self._columns
            kept = [each.name for each in file.schema_arrow if each.name not in unwanted]
            table = file.read(kept, use_threads=False)
        if not table.num_rows:
            raise ValueError("it has no rows")
        names = table.select([name for name in table.column_names if name not in self._columns])
        columns = {}
        for name in self._columns.intersection(table.column_names):
            if _is_number(table.schema.field(name).type):
                numbers = table[name].cast(pa.float64(), safe=False).to_numpy()
                columns[name] = numbers.astype(np.float64, copy=False)
        return PromptTable(self._digest(names), any(_is_text(each.type) for each in names.schema), columns)

    def _digest(self, names: pa.Table) -> str:
        # Thousands of tables are about the same prompts, and to compare them is many times faster than to hash them.
        for known, digest in tuple(self._known):
            if known.equals(names):
                return digest
        columns = {name: names[name].to_pylist() for name in names.column_names}
        written = json.dumps([names.num_rows, columns], default=str, sort_keys=True)
        digest = hashlib.sha256(written.encode()).hexdigest()[:32]
        self._known.append((names, digest))
        return digest


def _is_measured(kind: pa.DataType) -> bool:
    """Tell whether a column is of no use as a name: rows that are told apart by it were measured, not asked for."""
    return bool(pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))

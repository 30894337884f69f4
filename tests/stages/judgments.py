"""Small artifacts of labelled pairs and verdicts for the tests of the judge stages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from workers import tables


class Row(NamedTuple):
    prompt: str
    chosen: str
    rejected: str


class Said(NamedTuple):
    """A judgment of a row: what it prefers when the answers are shown in this order."""

    prompt: str
    first: str
    second: str
    verdict: int
    text: str
    hint: int = 0
    sample: int = 0
    drawn: bool = True
    unread: str = ""

    @property
    def request(self) -> str:
        return f"\n\nHuman: {self.prompt}: {self.first} or {self.second}?\n\nAssistant:"


def write_preferences(folder: Path, rows: Iterable[Row]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(rows)
    columns: dict[str, object] = {name: [getattr(row, name) for row in rows] for name in Row._fields}
    columns["subset"] = [""] * len(rows)
    tables.PREFERENCES.write(columns, folder)
    return folder


def write_verdicts(folder: Path, said: Iterable[Said]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    said = list(said)
    columns: dict[str, object] = {name: [getattr(each, name) for each in said] for name in tables.VERDICTS.schema.names}
    tables.VERDICTS.write(columns, folder)
    return folder


def samples(row: Row, verdicts: str, *, turned: bool = False, hint: int = 0) -> list[Said]:
    """One judgment per character of `verdicts`: R right, W wrong, - unreadable; `turned` shows the rejected first."""
    first, second = (row.rejected, row.chosen) if turned else (row.chosen, row.rejected)
    right = 2 if turned else 1
    number = {"R": right, "W": 3 - right, "-": 0}
    return [
        Said(row.prompt, first, second, number[each], f"{each}{n}{'t' * turned}{hint or ''} on {row.prompt}", hint, n)
        for n, each in enumerate(verdicts)
    ]


def read_pairs(folder: Path) -> list[dict[str, str]]:
    return list(tables.PREFERENCES.read(folder).to_pylist())

"""Labelled pairs of answers joined with what a judge wrote about them.

A judgment belongs to a preference through its texts: the same prompt, and the same two answers in either order. It is
right when its verdict points to the chosen answer of *this* preference, so the judgments that were sampled once serve
every level of label noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from workers.tables import PREFERENCES, VERDICTS, read_table

#: Verdicts are read in parts, so that their texts never lie in memory twice.
_PART = 10_000


@dataclass(frozen=True)
class Judgment:
    """One judgment of a preference, seen from its label."""

    row: int
    """Row of the table of verdicts."""
    drawn: bool
    """Written about the answers in the order that was drawn for them."""
    told: bool | None
    """None without a hint; True where the hint named the chosen answer, False where it named the rejected one."""
    right: bool | None
    """Does the verdict point to the chosen answer? None where no verdict could be read."""
    unread: bool = False
    """The judge wrote nothing that could be read: the request was too long or refused."""


@dataclass(frozen=True)
class Judged:
    """Preferences and, for each of them, its judgments (none where the judge was not asked)."""

    preferences: pa.Table
    verdicts: pa.Table
    judgments: list[list[Judgment]]

    def request(self, judgment: Judgment) -> str:
        """The dialogue that asked for it, without any hint."""
        return str(self.verdicts.column("request")[judgment.row].as_py())

    def text(self, judgment: Judgment) -> str:
        """What the judge wrote."""
        return str(self.verdicts.column("text")[judgment.row].as_py())

    def sample(self, judgment: Judgment) -> int:
        """Its number among the judgments that were asked for in the same way."""
        return int(self.verdicts.column("sample")[judgment.row].as_py())


def read_judged(verdicts: Path, preferences: Path) -> Judged:
    """Join the artifacts `verdicts` and `preferences` by text.

    Judgments of other pairs are not used (the preferences may be a part of those that were judged). A preference that
    is there twice has the same judgments twice. A judgment that was written down twice (the same order, hint, sample,
    request and text) counts once.

    Raises:
        ValueError: no preference has a judgment.
    """
    labelled = read_table(preferences / "preferences.parquet", PREFERENCES)
    table = read_table(verdicts / "verdicts.parquet", VERDICTS)
    names = ("prompt", "chosen", "rejected")
    rows = list(zip(*(labelled.column(name).to_pylist() for name in names), strict=True))
    #: Rows of `table` about (prompt, first, second).
    about: dict[tuple[str, str, str], list[int]] = {}
    for prompt, chosen, rejected in rows:
        about[prompt, chosen, rejected] = []
        about[prompt, rejected, chosen] = []
    start = 0
    for part in table.select(["prompt", "first", "second"]).to_batches(max_chunksize=_PART):
        for row, key in enumerate(zip(*(column.to_pylist() for column in part.columns), strict=True), start):
            if key in about:
                about[key].append(row)
        start += part.num_rows

    drawn, hints, found, unread = (table.column(n).to_pylist() for n in ("drawn", "hint", "verdict", "unread"))
    once = {key: _once(table, numbers, hints) for key, numbers in about.items()}
    judgments = [
        [
            Judgment(
                row=number,
                drawn=drawn[number],
                told=hints[number] == label if hints[number] else None,
                right=found[number] == label if found[number] else None,
                unread=bool(unread[number]),
            )
            for label, key in ((1, (prompt, chosen, rejected)), (2, (prompt, rejected, chosen)))
            for number in once[key]
        ]
        for prompt, chosen, rejected in rows
    ]
    if not any(judgments):
        raise ValueError(
            f"{verdicts}: none of its {table.num_rows} judgments is about one of the {len(rows)} rows of {preferences}."
            " They belong together by their texts: let judge_sample judge these preferences, or those that they are"
            " a part of"
        )
    return Judged(labelled, table, judgments)


def _once(table: pa.Table, rows: list[int], hints: list[int]) -> list[int]:
    """`rows`, all about the same answers in the same order, without those that repeat an earlier one."""
    samples, requests, texts = (table.column(name) for name in ("sample", "request", "text"))
    kept: dict[tuple[int, int], list[int]] = {}
    for row in rows:
        alike = kept.setdefault((hints[row], samples[row].as_py()), [])
        if not any(texts[row].equals(texts[other]) and requests[row].equals(requests[other]) for other in alike):
            alike.append(row)
    return sorted(row for alike in kept.values() for row in alike)

"""Judgments beside the pairs of answers that they are about, with their verdicts and the labels of the pairs."""

from __future__ import annotations

import contextlib
from typing import Any

from orchestrator.explain.artifact_files import ArtifactFiles
from orchestrator.explain.cell_artifacts import CellArtifacts
from orchestrator.explain.file_views import UNREADABLE, open_parquet, read_records
from orchestrator.explain.views import Judgment, JudgmentsView, shortened
from orchestrator.store import DamagedArtifactError
from orchestrator.types import Artifact
from workers.tables import JUDGMENTS, PREFERENCES, VERDICTS

#: So many pairs are shown, with their first judgment each; they are looked for in so many rows.
_PAIRS, _ROWS = 4, 256

_Row = dict[str, Any]


def judgments_view(cell: CellArtifacts, artifact: Artifact, files: ArtifactFiles) -> JudgmentsView | None:
    """Show the first judgment of each of the first pairs, from judgments or verdicts; None if they are far away.

    Raises:
        DamagedArtifactError: the judgments are missing or altered.
        StoreError: the store cannot be read.
        OSError, ValueError or another of UNREADABLE: they are no judgments.
    """
    parsed = cell.kind(artifact) == "verdicts"
    table = VERDICTS if parsed else JUDGMENTS
    source = files.open(table.file)
    if source is None:
        return None
    with open_parquet(source) as file:
        rows, total = read_records(file, 0, _ROWS), file.metadata.num_rows
    first: dict[frozenset[str], int] = {}
    for number, row in enumerate(rows):
        first.setdefault(frozenset((row["prompt"], row["first"], row["second"])), number)
    shown = list(first.values())[:_PAIRS]
    entry, verdicts = (cell.entry(artifact), rows) if parsed else _verdicts(cell, artifact, len(rows))
    labels = _labels(cell, artifact, [rows[number] for number in shown])
    judgments = tuple(
        Judgment(
            prompt=shortened(rows[number]["prompt"]),
            first=shortened(rows[number]["first"]),
            second=shortened(rows[number]["second"]),
            hint=rows[number]["hint"],
            text=shortened(rows[number]["text"]),
            unread=shortened(rows[number]["unread"]),
            verdict=_verdict_of(rows[number], verdicts, number),
            chosen=label,
        )
        for number, label in zip(shown, labels, strict=True)
    )
    return JudgmentsView(table.file, judgments, total, entry)


def _verdicts(cell: CellArtifacts, artifact: Artifact, count: int) -> tuple[str | None, list[_Row]]:
    """Find the verdicts that were read from the first judgments of an artifact, and the entry that did so.

    They are in the order of the judgments (`judge_parse`), those of the first shard first.
    """
    for step in cell.readers(artifact, "verdicts"):
        files = cell.files(step.address)
        if isinstance(files, DamagedArtifactError) or cell.of_kind(step, "judgments")[:1] != (artifact,):
            continue
        try:
            if source := files.open(VERDICTS.file):
                with open_parquet(source) as file:
                    return step.entry, read_records(file, 0, count)
        except (DamagedArtifactError, *UNREADABLE):
            continue
    return None, []


def _verdict_of(row: _Row, verdicts: list[_Row], number: int) -> int | None:
    same = ("prompt", "first", "second", "sample", "text")
    if number >= len(verdicts) or any(row[name] != verdicts[number][name] for name in same):
        return None
    verdict: int = verdicts[number]["verdict"]
    return verdict


def _labels(cell: CellArtifacts, artifact: Artifact, rows: list[_Row]) -> list[int | None]:
    """Look up which answer the preferences that were judged prefer."""
    step = cell.step(artifact)
    judged = cell.of_kind(step, "preferences")
    if not judged and (judgments := cell.of_kind(step, "judgments")):
        judged = cell.of_kind(cell.step(judgments[0]), "preferences")
    files = cell.files(judged[0]) if judged else None
    pairs: set[tuple[str, str, str]] = set()
    if isinstance(files, ArtifactFiles):
        wanted = {row["prompt"] for row in rows}
        # Whether a label is known is a detail: judgments are shown without it, too.
        with contextlib.suppress(DamagedArtifactError, *UNREADABLE):
            source = files.open(PREFERENCES.file)
            if isinstance(source, bytes):
                with open_parquet(source) as file:
                    for batch in file.iter_batches(1024, columns=["prompt", "chosen", "rejected"], use_threads=False):
                        every = zip(*(column.to_pylist() for column in batch.columns), strict=True)
                        pairs |= {pair for pair in every if pair[0] in wanted}
    return [_label(row, pairs) for row in rows]


def _label(row: _Row, pairs: set[tuple[str, str, str]]) -> int | None:
    first = (row["prompt"], row["first"], row["second"]) in pairs
    second = (row["prompt"], row["second"], row["first"]) in pairs
    # A pair may be there in both orders, with one label each.
    return None if first == second else 1 if first else 2

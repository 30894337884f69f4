"""Stage `annotation_pairs`: the texts of annotated pairs, for a judge."""

from __future__ import annotations

from pathlib import Path

from workers import tables
from workers.judges.annotated_texts import read_annotated
from workers.judges.configs import AnnotationPairsConfig


def annotation_pairs(
    config: AnnotationPairsConfig, out: Path, *, annotations: Path, responses: list[Path]
) -> dict[str, float]:
    """Write `preferences.parquet`: winner and loser of each annotation, in their order.

    Returns:
        preferences: rows written. equal_pairs: pairs left out, as both answers are the same text.

    Raises:
        ValueError: answers to different prompts (`pairing: cross`), other responses, or no pair of different texts.
    """
    pairs = read_annotated(annotations, responses, config.cut_at)
    kept = [pair for pair in pairs if pair.winner != pair.loser]
    if not kept:
        raise ValueError(f"{annotations}: each of the {len(pairs)} annotations compares two answers of the same text")
    columns: dict[str, object] = {
        "prompt": [pair.prompt for pair in kept],
        "chosen": [pair.winner for pair in kept],
        "rejected": [pair.loser for pair in kept],
        "subset": [""] * len(kept),
    }
    tables.write_table(columns, tables.PREFERENCES, out / "preferences.parquet")
    return {"preferences": float(len(kept)), "equal_pairs": float(len(pairs) - len(kept))}

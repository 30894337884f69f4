"""Stage `hard_cases`: labelled pairs of answers that a judge fails on."""

from __future__ import annotations

from pathlib import Path

from workers.judges.configs import HardCasesConfig
from workers.judges.judged_pairs import JudgedPairs
from workers.tables import PREFERENCES


def hard_cases(config: HardCasesConfig, out: Path, *, verdicts: Path, preferences: Path) -> dict[str, float]:
    """Keep the rows in which not every judgment without a hint is right (RISE-Judge, arXiv 2502.11689).

    A judgment without a readable verdict is not right. With the same judgments, these are the rows that
    `judge_demonstrations` loses as wrong, inconsistent or unparsed.

    Args:
        config: has no fields.
        out: receives `preferences.parquet`, in the order of `preferences`.
        verdicts: artifact of judgments with their verdicts.
        preferences: artifact of labelled pairs of answers, whose labels count.

    Returns:
        `preferences`: rows written. `judged_rows`: rows with a judgment; the others are not written.

    Raises:
        ValueError: the judge is right about all of them, or no preference was judged.
    """
    table, judgments_of = JudgedPairs(verdicts, repeats="once").join(preferences)
    counted = [[each.right for each in judgments if not each.hint] for judgments in judgments_of]
    hard = [row for row, rights in enumerate(counted) if not all(rights)]
    judged = sum(map(bool, counted))
    if not hard:
        raise ValueError(f"{verdicts}: the judge is right about all of the {judged} rows: there are no hard cases")
    PREFERENCES.write(table.take(hard).to_pydict(), out)
    return {"preferences": float(len(hard)), "judged_rows": float(judged)}

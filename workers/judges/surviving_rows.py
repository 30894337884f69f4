"""Stage `surviving_rows`: labelled pairs of answers that a judge is trained on."""

from __future__ import annotations

from pathlib import Path

from workers.judges.configs import SurvivingRowsConfig
from workers.judges.judged_pairs import JudgedPairs
from workers.tables import PREFERENCES


def surviving_rows(
    config: SurvivingRowsConfig, out: Path, *, preferences: Path, verdicts: Path, pairs: Path
) -> dict[str, float]:
    """Keep the rows that at least one of `pairs` was made of, so that a scalar model learns from the same rows.

    Whether training then leaves out long ones is counted there (`long_rows`): a request holds both answers, so it is
    longer than a prompt with one of them. Compare models with `long_rows` 0 in both.

    Args:
        config: has no fields.
        out: receives `preferences.parquet`, in the order of `preferences`.
        preferences: artifact that `pairs` was made from.
        verdicts: artifact that `pairs` was made from.
        pairs: artifact of contrastive pairs; their `prompt` is the request of the judgments.

    Returns:
        `preferences`: rows written. `lost_rows`: the others.

    Raises:
        ValueError: no row survives, because `pairs` was made from other artifacts.
    """
    judged = JudgedPairs(verdicts, repeats="once")
    table, judgments_of = judged.join(preferences)
    trained = set(PREFERENCES.read(pairs).column("prompt").to_pylist())
    rows = [
        row for row, judgments in enumerate(judgments_of) if any(judged.request(each) in trained for each in judgments)
    ]
    if not rows:
        raise ValueError(f"{pairs}: no pair is about one of the {table.num_rows} rows of {preferences}")
    PREFERENCES.write(table.take(rows).to_pydict(), out)
    return {"preferences": float(len(rows)), "lost_rows": float(table.num_rows - len(rows))}

"""Stage `relabel`: preferences with the labels of a judge."""

from __future__ import annotations

from pathlib import Path

from workers.judges.configs import RelabelConfig
from workers.judges.judged_pairs import JudgedPairs, majority
from workers.tables import PREFERENCES


def relabel(config: RelabelConfig, out: Path, *, preferences: Path, verdicts: Path) -> dict[str, float]:
    """Choose in each pair the answer that the judge prefers.

    Its preference is the majority of its verdicts. Pairs without one, or with different ones in the two orders, are
    lost.

    Args:
        config: has no fields.
        out: receives `preferences.parquet`, in the order of `preferences`.
        preferences: artifact of the pairs.
        verdicts: artifact of the judge's verdicts about them.

    Returns:
        `preferences`: rows written. `turned_rate`: share of these that had the other label. `undecided_rows`: pairs
        lost.

    Raises:
        ValueError: a pair has no verdict, or none is left.
    """
    rows = PREFERENCES.read(preferences).to_pylist()
    judged = JudgedPairs(verdicts, repeats="each")
    kept: list[dict[str, str]] = []
    turned = 0
    for row in rows:
        chosen, rejected = row["chosen"], row["rejected"]
        right = majority(judged.verdicts_about(row["prompt"], chosen, rejected))
        if right:
            kept.append(row)
        elif right is False:
            kept.append(row | {"chosen": rejected, "rejected": chosen})
            turned += 1
    if not kept:
        raise ValueError(
            f"{judged.file}: the judge decided none of the {len(rows)} pairs of "
            f"{PREFERENCES.path(preferences)}: look at `unparsed_rate` of its verdicts, and whether it just prefers one"
            " of the two places"
        )
    columns = {name: [row[name] for row in kept] for name in PREFERENCES.schema.names}
    PREFERENCES.write(columns, out)
    return {
        "preferences": float(len(kept)),
        "turned_rate": turned / len(kept),
        "undecided_rows": float(len(rows) - len(kept)),
    }

"""Stage `test_sets`: preference sets to test judges and reward models on, in one table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from workers.data.configs import TestSetsConfig
from workers.data.dialogue_rows import read_dialogues
from workers.data.dialogues import Dialogue, pair_order, write_pairs


def test_sets(config: TestSetsConfig, out: Path) -> dict[str, float]:
    """Write `preferences.parquet`: the sets one after another, in the order of the config.

    Within a set rows are shuffled by its seed and their content, and the first `limit` are kept. `subset` is
    "<name>/<subset>" with the subset that the row names, or "<name>" where it names none; where the config names the
    set "<name>/<subset>", it is that name.

    Returns:
        <name>_rows: rows of each set, all its subsets together. skipped_test_rows: incomplete rows of all the sets.

    Raises:
        ValueError: a set has fewer rows than its `limit`; and what `read_dialogues(pairs=True)` raises.
    """
    rows: list[Dialogue] = []
    subsets: list[str] = []
    counts: Counter[str] = Counter()
    skipped = 0
    for name, each in config.sets.items():
        found, incomplete = read_dialogues(
            each.source, columns=each.columns, incomplete_rows=each.incomplete_rows, pairs=True
        )
        if len(found) < (each.limit or 1):
            raise ValueError(f"test set {name}: {len(found)} rows, but {each.limit} asked for: lower its `limit`")
        kept = sorted(found, key=pair_order(each.seed))[: each.limit]
        rows += kept
        subsets += [f"{name}/{row.subset}" if row.subset and "/" not in name else name for row in kept]
        counts[f"{name.partition('/')[0]}_rows"] += len(kept)
        skipped += incomplete
        print(f"test set {name}: {len(kept)} rows", flush=True)
    write_pairs(rows, subsets, out)
    return {**{name: float(count) for name, count in counts.items()}, "skipped_test_rows": float(skipped)}


# Otherwise pytest takes it for a test wherever it is imported.
test_sets.__test__ = False  # type: ignore[attr-defined]

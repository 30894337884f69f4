"""Stage `judge_compare`: two judges compared on the same rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.stats import binomtest, bootstrap  # type: ignore[import-untyped]

from workers.judges.configs import JudgeCompareConfig
from workers.seeding import generator
from workers.tables import JUDGED_ROWS

COMPARISON_FILE = "comparison.json"
#: Resamples drawn at once, to bound memory.
_BATCH = 500


def judge_compare(config: JudgeCompareConfig, out: Path, *, first: Path, second: Path) -> dict[str, float]:
    """Compare the credits of two judges row by row.

    A judge is right about a row at a credit above 0.5, wrong below. Rows that either judge leaves at 0.5 are not in
    McNemar's table, but do count in the difference.

    Args:
        config: level and resamples of the interval.
        out: receives `comparison.json`: the metrics, both accuracies, and the four cells of McNemar's table.
        first: evaluation of the judge whose accuracy is the minuend.
        second: evaluation of the other one.

    Returns:
        Each name after `prefix`. `accuracy_difference`: mean credit of the first minus that of the second.
        `difference_low` and `difference_high`: its percentile bootstrap interval (`scipy.stats.bootstrap` of the paired
        differences, rows drawn with replacement). `mcnemar_p`: exact and two-sided, whether one is right alone more
        often than the other (McNemar 1947, with binomial probabilities); 1 without rows about which just one is right.

    Raises:
        ValueError: the evaluations are not of the same rows in the same order, or of fewer than two.
    """
    files = [JUDGED_ROWS.path(folder) for folder in (first, second)]
    one, other = (JUDGED_ROWS.read(folder) for folder in (first, second))
    _require_same_rows(one, other, files)
    credits = [table["credit"].to_numpy() for table in (one, other)]
    difference = credits[0] - credits[1]
    if len(difference) < 2:
        raise ValueError(f"{files[0]}: {len(difference)} row; an interval needs two")
    interval = bootstrap(
        (difference,),
        np.mean,
        confidence_level=config.level,
        n_resamples=config.resamples,
        batch=_BATCH,
        method="percentile",
        rng=generator(config.seed, "judge_compare/bootstrap"),
    ).confidence_interval
    right = [credit > 0.5 for credit in credits]
    both = (credits[0] != 0.5) & (credits[1] != 0.5)
    first_alone = int((both & right[0] & ~right[1]).sum())
    second_alone = int((both & ~right[0] & right[1]).sum())
    discordant = first_alone + second_alone
    metrics = {
        "accuracy_difference": float(difference.mean()),
        "difference_low": float(interval.low),
        "difference_high": float(interval.high),
        "mcnemar_p": float(binomtest(first_alone, discordant).pvalue) if discordant else 1.0,
    }
    found = metrics | {
        "rows": len(difference),
        "first_accuracy": float(credits[0].mean()),
        "second_accuracy": float(credits[1].mean()),
        "level": config.level,
        "both_right": int((both & right[0] & right[1]).sum()),
        "first_right_alone": first_alone,
        "second_right_alone": second_alone,
        "both_wrong": int((both & ~right[0] & ~right[1]).sum()),
        "undecided": int((~both).sum()),
    }
    (out / COMPARISON_FILE).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return {f"{config.prefix}{name}": value for name, value in metrics.items()}


def _require_same_rows(one: pa.Table, other: pa.Table, files: list[Path]) -> None:
    names = ["subset", "prompt", "chosen", "rejected"]
    if one.select(names).equals(other.select(names)):
        return
    where = f"{files[0]} ({one.num_rows} rows) and {files[1]} ({other.num_rows} rows)"
    pairs = zip(one.select(names).to_pylist(), other.select(names).to_pylist(), strict=False)
    row = next((number for number, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))
    raise ValueError(f"{where} differ from row {row} on: judges are compared on the same test sets, in the same order")

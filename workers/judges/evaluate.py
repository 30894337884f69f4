"""Stage `judge_evaluate`: the accuracy of a judge or of a scalar reward model, and its biases.

The protocol of a row is RewardBench v1's for generative judges (arXiv 2403.13787; `scripts/run_generative.py`): the
answers in one random order, 1 for the right one, 0.5 for a tie or a text that cannot be read. Of several judgments the
mean counts. A scalar model wins only by the strictly greater reward; `scalar_verdicts` writes a tie as a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workers.judges import rewardbench
from workers.judges.configs import JudgeEvaluateConfig, RewardBench
from workers.judges.judged_pairs import JudgedPairs, Judgment
from workers.tables import JUDGED_ROWS, PREFERENCES


@dataclass(frozen=True)
class _Row:
    """A row of a test set with its judgments, none of which had a hint."""

    subset: str
    prompt: str
    chosen: str
    rejected: str
    judgments: list[Judgment]

    def credit(self) -> float:
        """Return the mean credit of the judgments in the drawn order."""
        rights = [each.right for each in self.judgments if each.drawn]
        return sum(0.5 if right is None else float(right) for right in rights) / len(rights)

    def shown(self, *, chosen_first: bool) -> list[Judgment]:
        """Return the judgments in one order of the answers, sample by sample."""
        found = (each for each in self.judgments if each.chosen_first == chosen_first)
        return sorted(found, key=lambda each: each.sample)


def judge_evaluate(config: JudgeEvaluateConfig, out: Path, *, verdicts: Path, test_sets: Path) -> dict[str, float]:
    """Give credit to the judge for each row of the test sets, and summarise.

    Verdicts are found by text, whatever the labels were when they were requested.

    Args:
        config: the test sets and their scoring.
        out: receives `rows.parquet` (`tables.JUDGED_ROWS`) in the order of the test sets.
        verdicts: artifact of verdicts about these pairs, or more.
        test_sets: artifact of preferences. Where it names no subsets, all rows belong to the only set of `sets`.

    Returns:
        All in [0, 1], each name after `prefix`:

        - `accuracy`: mean credit over all rows, in the order that was drawn. `<set>_accuracy`: over the rows of a set.
          `<set>_<section>` and `<set>_overall`: see `rewardbench`.
        - `parse_failure_rate`: share of the verdicts, of either order, that could not be read.
        - `first_position_share`: share of the read ones that point to the answer shown first.
        - `length_agreement`: share of the read ones that point to the answer with more characters, pairs of equal
          length left out. Where no verdict is left to count, these two are 0.5: nothing read, no preference shown.
        - `both_order_accuracy`: share of the judgments that are right in both orders; `consistency`: that prefer the
          same answer in both. Sample k of one order goes with sample k of the other, and one that could not be read is
          neither right nor consistent.

    Raises:
        ValueError: no rows, a row without verdict in the drawn order, or in the other one for `both_orders`, a set of
            `sets` without rows, rows of another set, or what `rewardbench.section_scores` raises.
    """
    rows = _rows(JudgedPairs(verdicts, repeats="each"), test_sets, config)
    credit = np.array([row.credit() for row in rows])
    JUDGED_ROWS.write(
        {
            **{name: [getattr(row, name) for row in rows] for name in ("subset", "prompt", "chosen", "rejected")},
            "credit": credit,
        },
        out,
    )
    metrics = {"accuracy": float(credit.mean())} | _of_sets(config, [row.subset for row in rows], credit)
    metrics |= _biases(rows) | (_both_orders(rows) if config.both_orders else {})
    return {f"{config.prefix}{name}": value for name, value in metrics.items()}


def _rows(judged: JudgedPairs, test_sets: Path, config: JudgeEvaluateConfig) -> list[_Row]:
    file = PREFERENCES.path(test_sets)
    columns = PREFERENCES.read(test_sets).to_pydict()
    if not columns["prompt"]:
        raise ValueError(f"{file}: no rows to test on")
    rows = []
    names = ("subset", "prompt", "chosen", "rejected")
    for number, (subset, prompt, chosen, rejected) in enumerate(zip(*(columns[name] for name in names), strict=True)):
        try:
            row = _Row(subset, prompt, chosen, rejected, judged.verdicts_about(prompt, chosen, rejected))
        except ValueError as error:
            raise ValueError(f"{file}, row {number}: {error}") from error
        if not any(each.drawn for each in row.judgments):
            raise ValueError(f"{judged.file}: no verdict of the drawn order about row {number} of {file}")
        if config.both_orders and len(row.shown(chosen_first=True)) != len(row.shown(chosen_first=False)):
            raise ValueError(
                f"{judged.file}: not as many verdicts of one order as of the other about row {number} of {file}: set"
                " `orders: both` where the judge is asked, or leave out `both_orders`"
            )
        rows.append(row)
    return rows


def _of_sets(config: JudgeEvaluateConfig, subsets: Sequence[str], credit: np.ndarray) -> dict[str, float]:
    """Compute the metrics of each test set."""
    if not any(subsets) and len(config.sets) == 1:
        subsets = [next(iter(config.sets))] * len(subsets)
    split = [subset.partition("/") for subset in subsets]
    of_row = np.array([name for name, _, _ in split])
    if unnamed := sorted(set(of_row.tolist()) - set(config.sets)):
        raise ValueError(
            f"the test sets have rows of {', '.join(map(repr, unnamed))}, but `sets` names {', '.join(config.sets)}:"
            " name all of them (rows without a subset are a set only if `sets` names just one)"
        )
    metrics: dict[str, float] = {}
    for name, how in config.sets.items():
        mine = of_row == name
        if not mine.any():
            raise ValueError(f"`sets` names {name!r}, but no row of the test sets has a subset {name!r} or '{name}/…'")
        if isinstance(how, RewardBench):
            inner = np.array([rest for _, _, rest in split])
            accuracy = {each: float(credit[mine & (inner == each)].mean()) for each in np.unique(inner[mine]).tolist()}
            try:
                scores = rewardbench.section_scores(accuracy, how.rewardbench, how.missing_subsets)
            except ValueError as error:
                raise ValueError(f"test set {name!r}: {error}") from error
            metrics |= {f"{name}_{section}": score for section, score in scores.items()}
            metrics[f"{name}_overall"] = rewardbench.overall(scores)
        else:
            metrics[f"{name}_accuracy"] = float(credit[mine].mean())
    return metrics


def _biases(rows: Sequence[_Row]) -> dict[str, float]:
    """Measure how far place and length decide, over all verdicts."""
    verdicts = [each.verdict for row in rows for each in row.judgments]
    read = [verdict for verdict in verdicts if verdict]
    longer = [
        each.right == (len(row.chosen) > len(row.rejected))
        for row in rows
        for each in row.judgments
        if each.verdict and len(row.chosen) != len(row.rejected)
    ]
    return {
        "first_position_share": read.count(1) / len(read) if read else 0.5,
        "parse_failure_rate": verdicts.count(0) / len(verdicts),
        "length_agreement": longer.count(True) / len(longer) if longer else 0.5,
    }


def _both_orders(rows: Sequence[_Row]) -> dict[str, float]:
    """Measure how often a judgment stays right, and the same, when the answers change places."""
    pairs = [
        (one.right, other.right)
        for row in rows
        for one, other in zip(row.shown(chosen_first=True), row.shown(chosen_first=False), strict=True)
    ]
    return {
        "both_order_accuracy": pairs.count((True, True)) / len(pairs),
        "consistency": sum(one is not None and one == other for one, other in pairs) / len(pairs),
    }

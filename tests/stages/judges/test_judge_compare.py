"""Two judges on the same rows: the difference, its interval, McNemar's exact test."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from workers import tables
from workers.judges.compare import judge_compare
from workers.judges.configs import JudgeCompareConfig

Run = Callable[..., tuple[dict[str, float], dict[str, Any]]]


def write_rows(folder: Path, credit: Sequence[float], prompt: str = "p") -> Path:
    folder.mkdir(exist_ok=True)
    columns = {
        "subset": ["s"] * len(credit),
        "prompt": [f"{prompt}{number}" for number in range(len(credit))],
        "chosen": [" x"] * len(credit),
        "rejected": [" y"] * len(credit),
        "credit": credit,
    }
    tables.JUDGED_ROWS.write(columns, folder)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def compare(
        first: Sequence[float], second: Sequence[float], **fields: Any
    ) -> tuple[dict[str, float], dict[str, Any]]:
        config = JudgeCompareConfig(**({"resamples": 2000} | fields))
        folders = {"first": write_rows(tmp_path / "a", first), "second": write_rows(tmp_path / "b", second)}
        metrics = judge_compare(config, tmp_path, **folders)
        assert set(metrics) == set(config.declared())
        assert all(math.isfinite(value) for value in metrics.values())
        return metrics, json.loads((tmp_path / "comparison.json").read_text())

    return compare


def test_mcnemar_counts_the_rows_on_which_just_one_judge_is_right(run: Run) -> None:
    # 12 both right, 9 the first alone, 2 the second alone, 5 both wrong.
    first = [1.0] * 12 + [1.0] * 9 + [0.0] * 2 + [0.0] * 5
    second = [1.0] * 12 + [0.0] * 9 + [1.0] * 2 + [0.0] * 5
    metrics, found = run(first, second)
    assert [found[name] for name in ("both_right", "first_right_alone", "second_right_alone", "both_wrong")] == [
        12, 9, 2, 5,
    ]  # fmt: skip
    # Exact binomial: 2 * P(at most 2 of 11 heads).
    assert metrics["mcnemar_p"] == pytest.approx(2 * (1 + 11 + 55) / 2**11)
    assert metrics["mcnemar_p"] == pytest.approx(mcnemar([[12, 9], [2, 5]], exact=True).pvalue)
    assert metrics["accuracy_difference"] == pytest.approx(7 / 28)
    assert (found["first_accuracy"], found["second_accuracy"]) == (21 / 28, 14 / 28)


def test_undecided_rows_count_in_the_difference_but_not_for_mcnemar(run: Run) -> None:
    metrics, found = run([1, 0.5, 0.75, 0.25], [0.5, 0.5, 0, 0.5])
    assert metrics["accuracy_difference"] == pytest.approx((2.5 - 1.5) / 4)
    assert (found["undecided"], found["first_right_alone"], found["second_right_alone"]) == (3, 1, 0)
    # One discordant row proves nothing.
    assert metrics["mcnemar_p"] == 1


def test_the_same_judge_twice_differs_by_nothing_with_p_one(run: Run) -> None:
    metrics, _ = run([1, 0, 0.5, 1], [1, 0, 0.5, 1])
    assert metrics == {"accuracy_difference": 0, "difference_low": 0, "difference_high": 0, "mcnemar_p": 1}
    assert run([1, 0], [1, 0], prefix="reversed_")[0]["reversed_mcnemar_p"] == 1


def test_the_interval_is_that_of_the_normal_approximation_for_many_rows(run: Run) -> None:
    random = np.random.default_rng(3)
    first = (random.random(1500) < 0.8).astype(float)
    second = np.where(random.random(1500) < 0.7, first, (random.random(1500) < 0.5).astype(float))
    metrics, _ = run(first, second, level=0.9)
    difference = first - second
    half = 1.645 * difference.std() / math.sqrt(1500)
    assert metrics["difference_low"] == pytest.approx(difference.mean() - half, abs=0.1 * half)
    assert metrics["difference_high"] == pytest.approx(difference.mean() + half, abs=0.1 * half)


def test_the_interval_depends_on_the_seed_alone_and_turns_with_the_order_of_the_judges(run: Run) -> None:
    random = np.random.default_rng(5)
    first, second = random.integers(2, size=(2, 60)).astype(float)
    one, again, other = (run(first, second, seed=seed)[0] for seed in (1, 1, 2))
    assert one == again != other
    turned, _ = run(second, first, seed=1)
    assert turned["difference_low"] == pytest.approx(-one["difference_high"], abs=0.02)
    assert turned["mcnemar_p"] == pytest.approx(one["mcnemar_p"])


def test_other_rows_are_refused_with_the_first_that_differs(tmp_path: Path) -> None:
    config = JudgeCompareConfig(resamples=10)
    three = write_rows(tmp_path / "three", [1, 1, 0])
    with pytest.raises(ValueError, match="differ from row 0 on: judges are compared on the same test sets"):
        judge_compare(config, tmp_path, first=three, second=write_rows(tmp_path / "q", [1, 1, 0], prompt="q"))
    with pytest.raises(
        ValueError, match=r"three/rows.parquet \(3 rows\).*two/rows.parquet \(2 rows\) differ from row 2"
    ):
        judge_compare(config, tmp_path, first=three, second=write_rows(tmp_path / "two", [1, 1]))
    one = write_rows(tmp_path / "one", [1])
    with pytest.raises(ValueError, match="1 row; an interval needs two"):
        judge_compare(config, tmp_path, first=one, second=one)

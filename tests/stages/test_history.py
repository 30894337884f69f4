"""The training curve beside the result of a long step."""

from __future__ import annotations

from pathlib import Path

from workers.history import write_history
from workers.tables import HISTORY

#: As transformers' trainers keep it: one mapping per logged step, and one of totals at the end.
LOG = [
    {"loss": 2.5, "grad_norm": float("inf"), "learning_rate": 1e-3, "epoch": 0.5, "step": 10},
    {"loss": 2.0, "grad_norm": 0.25, "learning_rate": 0, "epoch": 1.0, "step": 20},
    {
        "train_runtime": 12.3,
        "train_samples_per_second": 4.5,
        "train_loss": 2.25,
        "total_flos": 1e9,
        "epoch": 1.0,
        "step": 20,
    },
]


def test_a_curve_has_each_point_that_was_logged_on_the_way_once_and_nothing_of_the_clock(tmp_path: Path) -> None:
    write_history(LOG, tmp_path)
    rows = HISTORY.read(tmp_path).to_pylist()
    assert [(row["step"], row["metric"], row["value"]) for row in rows] == [
        (10, "loss", 2.5),
        (10, "learning_rate", 0.001),
        (10, "epoch", 0.5),
        (20, "loss", 2.0),
        (20, "grad_norm", 0.25),
        (20, "learning_rate", 0.0),
        (20, "epoch", 1.0),
    ]


def test_the_same_log_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seconds in (("a", 12.3), ("b", 99.9)):
        (tmp_path / name).mkdir()
        write_history([*LOG[:2], LOG[2] | {"train_runtime": seconds}], tmp_path / name)
    assert (tmp_path / "a" / "history.parquet").read_bytes() == (tmp_path / "b" / "history.parquet").read_bytes()


def test_a_training_that_logged_nothing_has_an_empty_curve(tmp_path: Path) -> None:
    write_history([{name: value for name, value in LOG[2].items() if name != "epoch"}], tmp_path)
    assert HISTORY.read(tmp_path).num_rows == 0

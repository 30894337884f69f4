"""`sweeps/embeddings.yaml` on files of both published layouts, from files to the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestrator.drive import drive
from orchestrator.session import open_session
from orchestrator.sweep.problems import SweepError

SWEEP = Path(__file__).parents[2] / "sweeps" / "embeddings.yaml"
FEW = ["sampling=random", "beta=10", "annotations=60", "seed=0"]
NAME = "gemma-2b_gemma-2b_harmless"


def publish(folder: Path, responses_first: bool) -> None:
    """Embeddings whose first number decides the reward."""
    random = np.random.default_rng(0)
    for split, prompts, responses in (("train", 80, 10), ("test", 4, 500)):
        vectors = random.normal(size=(prompts, responses, 6)).astype(np.float32)
        rewards = 2 * vectors[..., 0]
        files = (vectors, rewards[..., None])
        if responses_first:
            files = (vectors.transpose(1, 0, 2).copy(), rewards.T.copy())
        for kind, array in zip(("embd", "reward"), files, strict=True):
            np.save(folder / f"{kind}_{NAME}_{split}.npy", array)


def test_published_files_of_either_layout_become_the_same_reward_models_and_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = []
    for layout in ("prompts_first", "responses_first"):
        folder = tmp_path / layout
        folder.mkdir()
        publish(folder, layout == "responses_first")
        monkeypatch.setenv("EMBEDDINGS", str(folder))
        overrides = ["axes.annotations=[60]", f"data.layout={layout}", "tracking=false"]
        session = open_session(SWEEP, overrides, only=FEW, outputs=str(folder / "out"))
        assert drive(session, None, True, None) == 0
        tables.append(
            [row for row in pq.read_table(session.outputs.results).to_pylist() if row["status"] == "succeeded"]
        )
    finished = {row["reward_model"]: row for row in tables[0]}
    assert set(finished) == {"bt_mlp", "clf_mlp", "clf_lgb"}
    # Golden rewards have a standard deviation of 2; the best of 500 lies three of them above the mean.
    assert all(finished[name]["improvement"] > 4 for name in ("bt_mlp", "clf_mlp"))
    assert all(row["pairwise_accuracy"] > 0.7 and row["flip_rate"] < 0.1 for row in finished.values())
    metrics = ("flip_rate", "improvement", "pairwise_accuracy", "spearman", "best_of_500")
    for first, second in zip(*tables, strict=True):
        assert [first[name] for name in metrics] == pytest.approx([second[name] for name in metrics], rel=1e-5)


def test_without_the_files_the_message_says_which_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBEDDINGS", raising=False)
    with pytest.raises(SweepError, match="environment variable EMBEDDINGS is not set; export EMBEDDINGS=FILE"):
        open_session(SWEEP)

"""The user's own command, for real: a sweep file submitted to a Ray head, every stage of the study, no fakes."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

REPOSITORY = Path(__file__).parents[2]
#: One cell per reward model: all stages, shards, LoRA-free SFT, a golden model trained in the sweep.
SMALL = [
    each
    for coordinate in ("policy=tiny-sft", "dataset=helpful", "sampling=random", "beta=1", "seed=0")
    for each in ("--only", coordinate)
]


def submit(head: str, environment: dict[str, str], outputs: Path | None, *options: str) -> tuple[int, str]:
    variables = {"SWEEP_OUTPUTS": str(outputs)} if outputs else {}
    done = subprocess.run(
        [
            "ray", "job", "submit", "--address", head, "--working-dir", ".",
            "--runtime-env-json", json.dumps({"env_vars": variables}), "--", "sweeps/quickstart.yaml", *options,
        ],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_submitted_sweep_runs_every_stage_and_submitted_again_has_nothing_to_do(
    head: str, head_environment: dict[str, str], tmp_path: Path
) -> None:
    code, output = submit(head, head_environment, tmp_path, *SMALL)
    assert code == 0, output
    assert f"outputs: {tmp_path} (from SWEEP_OUTPUTS)" in output
    table = pq.read_table(tmp_path / "sweeps" / "quickstart" / "results.parquet").to_pylist()
    finished = [row for row in table if row["status"] == "succeeded"]
    assert {row["reward_model"] for row in finished} == {"bt_mlp", "clf_mlp", "clf_lgb"}
    assert len(finished) == 3
    for row in finished:
        assert 0.1 < row["flip_rate"] < 0.4
        assert row["golden_accuracy"] > 0.6
        assert row["best_of_2"] < row["best_of_50"]
        assert 0.5 < row["pairwise_accuracy"] <= 1
        assert row["improvement"] > 0
    # The cells, and the curves of SFT and of the golden model.
    assert "MLflow: 5 runs written, 0 replaced" in output
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        status = "SELECT status, count(*) FROM runs WHERE lifecycle_stage = 'active' GROUP BY status"
        # Below the sweep: one group of cells, and one of curves for each of the two.
        assert database.execute(status).fetchall() == [("FINISHED", 5 + 4)]
    code, output = submit(head, head_environment, tmp_path, *SMALL)
    assert code == 0, output
    assert "nothing to do: all 3 chosen cells are finished" in output


@pytest.mark.ray
def test_a_sweep_starts_a_ray_of_its_own_whose_workers_run_a_copy_of_this_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "orchestrator", "run", "sweeps/quickstart.yaml", "--stage", "prompts"]
    done = subprocess.run(
        [*command, "--outputs", str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "prompts is done for all 144 cells" in done.stdout


@pytest.mark.long
def test_in_a_job_a_relative_output_root_is_refused_with_the_remedy(
    head: str, head_environment: dict[str, str]
) -> None:
    code, output = submit(head, head_environment, None, "--outputs", "here")
    assert code != 0
    assert "'here' is relative, and a Ray job runs in a copy of the working directory that is thrown away" in output
    assert "SWEEP_OUTPUTS" in output

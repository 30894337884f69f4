"""The user's own command, for real: a sweep file submitted to a Ray head, every stage of the study, no fakes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

REPOSITORY = Path(__file__).parents[1]
#: One cell per reward model: all stages, shards, LoRA-free SFT, a golden model trained in the sweep.
SMALL = [
    each
    for coordinate in ("policy=tiny-sft", "dataset=helpful", "sampling=random", "beta=1", "seed=0")
    for each in ("--only", coordinate)
]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    # The interpreter line finds python on the PATH of the process that started the head.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "RAY_AUTH_MODE": "disabled"}


@pytest.fixture(scope="module")
def head(environment: dict[str, str]) -> Iterator[str]:
    """Address of the job server of a real Ray head."""
    # Not pytest's folder: the path of a Unix socket may have at most 107 characters.
    folder = tempfile.mkdtemp(prefix="ray-")
    dashboard = free_port()
    command = ["ray", "start", "--head", "--block", "--num-cpus", "2", "--disable-usage-stats", "--temp-dir", folder]
    ports = [
        "--port",
        str(free_port()),
        "--dashboard-port",
        str(dashboard),
        "--ray-client-server-port",
        str(free_port()),
    ]
    process = subprocess.Popen(
        [*command, *ports],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{dashboard}"
    for _ in range(240):
        try:
            with urllib.request.urlopen(f"{address}/api/version", timeout=1):
                break
        except OSError:
            time.sleep(0.5)
    yield address
    # Ray's processes are in one group; a head that blocks takes longer than its patience to stop by itself.
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def submit(head: str, environment: dict[str, str], outputs: Path | None, *options: str) -> tuple[int, str]:
    variables = {"SWEEP_OUTPUTS": str(outputs)} if outputs else {}
    done = subprocess.run(
        [
            "ray", "job", "submit", "--address", head, "--working-dir", ".",
            "--runtime-env-json", json.dumps({"env_vars": variables}), "--", "sweeps/quickstart.yaml", *options,
        ],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.ray
def test_a_submitted_sweep_runs_every_stage_and_submitted_again_has_nothing_to_do(
    head: str, environment: dict[str, str], tmp_path: Path
) -> None:
    code, output = submit(head, environment, tmp_path, *SMALL)
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
    code, output = submit(head, environment, tmp_path, *SMALL)
    assert code == 0, output
    assert "nothing to do: all 3 cells are finished" in output


@pytest.mark.ray
def test_in_a_job_a_relative_output_root_is_refused_with_the_remedy(head: str, environment: dict[str, str]) -> None:
    code, output = submit(head, environment, None, "--outputs", "here")
    assert code != 0
    assert "'here' is relative, and a Ray job runs in a copy of the working directory that is thrown away" in output
    assert "SWEEP_OUTPUTS" in output

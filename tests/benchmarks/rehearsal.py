"""A bad night, rehearsed: the real grid with stages that do nothing, 1 % random failures, a broken stage, three kills.

`python tests/benchmarks/rehearsal.py FOLDER` ends with a line per check; it fails if a cell is missing, there twice, or
not the same in MLflow.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

HERE = Path(__file__).parent
SWEEP = HERE.parents[1] / "sweeps" / "full.yaml"
OPTIONS = ["-s", "runtime={default: {cpus: 1}}"]


def start(folder: Path, command: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
    log = (folder / "rehearsal.log").open("ab")
    return subprocess.Popen(
        [sys.executable, str(HERE / "noop.py"), command, str(SWEEP), "--outputs", str(folder), *OPTIONS, *options],
        env={**os.environ, "RAY_AUTH_TOKEN": "0" * 64, **environment},
        stdout=log,
        stderr=log,
    )


def main(folder: Path) -> None:
    """Run the night and check the morning."""
    folder.mkdir(parents=True)
    clock = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - clock:6.0f} s  {text}", flush=True)

    def killed(seconds: float, **environment: str) -> None:
        driver = start(folder, "run", "-s", "tracking=false", NOOP_FAIL="0.01", **environment)
        time.sleep(seconds)
        assert driver.poll() is None, "the driver ended before it could be killed"
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        say(f"driver killed after {seconds} s")

    killed(9, NOOP_BREAK="EvaluateConfig")
    code = start(folder, "run", "-s", "tracking=false", NOOP_FAIL="0.01", NOOP_BREAK="EvaluateConfig").wait()
    told = (folder / "rehearsal.log").read_text()
    assert code == 1, code
    assert "steps of 'evaluate' all ended with RuntimeError: broken on purpose" in told
    say("a run with a broken stage: exit 1, the breaker spoke")
    killed(8)
    killed(9)
    runs = 0
    code = 1
    while code == 1:
        code = start(folder, "run", "-s", "tracking=false", NOOP_FAIL="0.01").wait()
        runs += 1
        say(f"the same command: exit {code}")
    assert code == 0, code
    table = pq.read_table(folder / "sweeps" / "full" / "results.parquet")
    assert table.num_rows == 12_960
    assert len(set(table["cell_id"].to_pylist())) == 12_960
    assert Counter(table["status"].to_pylist()) == {"succeeded": 12_960}
    say(f"12,960 rows, one per cell, all succeeded (attempts: {dict(Counter(table['attempts'].to_pylist()))})")
    assert start(folder, "sync").wait() == 0
    say("synchronised with MLflow")
    assert start(folder, "sync").wait() == 0
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("full")
    assert experiment is not None
    cells: list[str] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment.experiment_id], "tags.`sweep.kind` = 'cell'", max_results=5000, page_token=token
        )
        cells += [run.data.tags["sweep.cell_id"] for run in page]
        assert all(run.info.status == "FINISHED" for run in page)
        token = page.token
        if not token:
            break
    assert sorted(cells) == sorted(table["cell_id"].to_pylist())
    say(f"MLflow: {len(cells)} cell runs, the same cells, each once")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())

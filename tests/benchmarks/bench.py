"""`make bench`: what the orchestrator costs, beside what others cost in the same run, on an otherwise idle machine.

Prints a table and writes the same as JSON (`outputs/bench.json`, or the file named as argument). Every figure is of one
run on one machine; what travels is the ratios.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
FULL = str(REPOSITORY / "sweeps" / "full.yaml")
CELLS = 12_960
#: One core per step, no GPUs, no MLflow: this measures the scheduler.
OPTIONS = ["-s", "tracking=false", "-s", "runtime={default: {cpus: 1}}"]
#: A million cells: 386 seeds instead of 5.
MILLION = ["-s", f"axes.seed={list(range(386))}"]

RAW_TASKS = """
import time, ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
@ray.remote(max_retries=0)
def noop(): return None
ray.get([noop.remote() for _ in range(100)])
start = time.perf_counter()
ray.get([noop.remote() for _ in range(12960)])
print((time.perf_counter() - start) / 12960)
"""

TUNE = """
import os, sys, tempfile, time, logging
os.environ.update(RAY_AIR_NEW_OUTPUT="0", TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1")
import ray
from ray import tune
count, reuse = int(sys.argv[1]), sys.argv[2] == "reuse"
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
class Noop(tune.Trainable):
    def step(self): return {"value": 0.5, "done": True}
    def reset_config(self, config): return True
    def save_checkpoint(self, folder): return None
    def load_checkpoint(self, state): pass
start = time.perf_counter()
tune.Tuner(Noop, param_space={"cell": tune.grid_search(list(range(count)))},
    tune_config=tune.TuneConfig(reuse_actors=reuse),
    run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0, stop={"training_iteration": 1}),
).fit()
print((time.perf_counter() - start) / count)
"""


def measured(command: list[str], **environment: str) -> tuple[float, str]:
    """Seconds from start to exit, and what the process printed."""
    before = time.perf_counter()
    done = subprocess.run(
        command,
        env={**os.environ, "RAY_AUTH_TOKEN": "0" * 64, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    seconds = time.perf_counter() - before
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return seconds, done.stdout


def timed(command: list[str], **environment: str) -> tuple[float, float]:
    """Seconds from start to exit and peak resident MB, as the kernel counted it."""
    wrapper = (
        "import resource, subprocess, sys\n"
        "code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024); sys.exit(code)"
    )
    seconds, output = measured([sys.executable, "-c", wrapper, *command], **environment)
    return seconds, float(output.splitlines()[-1])


def sweep(command: str, folder: Path, *options: str) -> list[str]:
    return [sys.executable, str(HERE / "noop.py"), command, FULL, "--outputs", str(folder), *OPTIONS, *options]


def busy_share(folder: Path) -> float:
    """Share of two cores that 40 one-second steps keep busy, from the first that starts to the last that ends."""
    one = ["--only", "policy=gemma-2b", "--only", "dataset=harmless", "--only", "sampling=random", "--only", "beta=1"]
    few = ["--only", "annotations=5000,10000", "--only", "reward_model=bt_mlp,clf_mlp"]
    for stage in ("annotate", "embed_train", "embed_test", "score_test"):
        measured(sweep("run", folder, *one, *few, "--stage", stage))
    before = set((folder / "store" / "artifacts").rglob("manifest.json"))
    measured(sweep("run", folder, *one, *few), NOOP_SECOND="1")
    made = set((folder / "store" / "artifacts").rglob("manifest.json")) - before
    spans = []
    for path in made:
        manifest = json.loads(path.read_text())["manifest"]
        spans.append((manifest["finished"] - manifest["seconds"], manifest["finished"]))
    wall = max(end for _, end in spans) - min(start for start, _ in spans)
    return len(spans) * 1.0 / (2 * wall)


def main(target: Path) -> None:
    """Measure, print, write."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    rows: list[dict[str, Any]] = []

    def note(what: str, value: float, unit: str, goal: str, met: bool | None = None) -> None:
        rows.append({"what": what, "value": round(value, 4), "unit": unit, "goal": goal, "met": met})
        print(f"{what}: {value:.4g} {unit} ({goal})", flush=True)

    try:
        seconds, megabytes = timed(sweep("plan", folder))
        note("plan 12,960 cells, process start to answer", seconds, "s", "≤2", seconds <= 2)
        seconds, megabytes = timed(sweep("plan", folder, *MILLION))
        note("plan 1,000,512 cells, process start to answer", seconds, "s", "≤15", seconds <= 15)
        note("… peak memory", megabytes, "MB", "≤1500", megabytes <= 1500)
        whole, megabytes = timed(sweep("run", folder))
        note("whole no-op grid, 31,983 steps, committed, table", whole, "s", "≤30", whole <= 30)
        note("… per step", whole / 31_983 * 1000, "ms", "≤1", whole / 31_983 <= 0.001)
        note("… peak memory of the largest process", megabytes, "MB", "≤500", megabytes <= 500)
        seconds, _ = timed(sweep("run", folder, "--inline"))
        note("the same command on the finished sweep", seconds, "s", "≤3", seconds <= 3)
        seconds, _ = timed(sweep("status", folder))
        note("sweep status of the finished sweep", seconds, "s", "≤1 (while running)", seconds <= 1)
        raw = float(measured([sys.executable, "-c", RAW_TASKS])[1].splitlines()[-1])
        note("raw Ray tasks, per cell", raw * 1000, "ms", "")
        ratio = whole / CELLS / raw
        note("our cell (2.5 steps) / raw Ray task", ratio, "×", "≤5", ratio <= 5)
        for mode, count, goal in (("fresh", 20, 50), ("reuse", 200, 5)):
            per = float(measured([sys.executable, "-c", TUNE, str(count), mode])[1].splitlines()[-1])
            ratio = per / (whole / CELLS)
            note(f"Ray Tune, {mode} actors, per trial (sample of {count})", per * 1000, "ms", "")
            note(f"Ray Tune ({mode}) / our cell", ratio, "×", f"≥{goal}", ratio >= goal)
        share = busy_share(folder / "seconds")
        note("one-second cells: cores busy", 100 * share, "%", "≥95", share >= 0.95)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "rows": rows,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    table = Table("what", "measured", "", "to reach", "", box=None)
    for row in rows:
        met = {True: "yes", False: "NO", None: ""}[row["met"]]
        table.add_row(row["what"], f"{row['value']:.4g}", row["unit"], row["goal"], met)
    Console().print(table)
    print(f"written to {target}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/bench.json"))

"""A long step of somebody's own goes on where it was when its process, or the driver, was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from command_server import sweep

from orchestrator import read_results
from orchestrator.session import open_session

SWEEP = """\
name: long
question: Is nothing done twice?
axes: {size: [8]}
stages:
  count: {stage: "counting:count", config: {size: $size, marker: MARKER, kill_at: KILL_AT, pause: PAUSE}}
runtime: {count: {checkpoint_every: 1}}
tracking: false
"""
COUNTING = """\
import os, signal, time
from pathlib import Path
import numpy as np
from workers.checkpoints import Checkpoints, keep_rows, restore_rows

def count(size: int, marker: str, kill_at: int, pause: float, out: Path, checkpoints: Checkpoints) -> dict:
    rows = np.zeros((size, 1))
    done = restore_rows(checkpoints, lambda _: rows)
    for number in range(done, size):
        with Path(marker, "trace").open("a") as trace:
            trace.write(f"{number}\\n")
        if number == kill_at and not Path(marker, "killed").exists():
            Path(marker, "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01 + pause)
        rows[number] = number
        keep_rows(checkpoints, rows, number, number + 1)
    return {"total": float(rows.sum())}
"""


def study(folder: Path, kill_at: int, pause: float = 0.0) -> Path:
    text = SWEEP.replace("MARKER", str(folder)).replace("KILL_AT", str(kill_at)).replace("PAUSE", str(pause))
    (folder / "counting.py").write_text(COUNTING)
    (folder / "long.yaml").write_text(text)
    return folder / "long.yaml"


def trace(folder: Path) -> list[int]:
    path = folder / "trace"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def check(folder: Path) -> None:
    assert read_results(folder / "out" / "sweeps" / "long")["total"].to_pylist() == [28.0]
    store = open_session(folder / "long.yaml", outputs=str(folder / "out")).store
    assert store.committed(["checkpoints"]) == set()


@pytest.mark.parametrize("inline", [True, pytest.param(False, marks=pytest.mark.ray)], ids=["inline", "ray"])
def test_a_step_whose_process_was_killed_goes_on_from_its_last_checkpoint(tmp_path: Path, inline: bool) -> None:
    path = study(tmp_path, kill_at=5)
    options = ["--inline"] if inline else []
    done = sweep(tmp_path, "run", str(path), "--outputs", str(tmp_path / "out"), *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert trace(tmp_path) == [0, 1, 2, 3, 4, 5, 5, 6, 7]
    check(tmp_path)


@pytest.mark.faults
def test_a_step_whose_driver_was_killed_goes_on_when_the_same_command_is_given_again(tmp_path: Path) -> None:
    path = study(tmp_path, kill_at=-1, pause=0.3)
    line = [sys.executable, "-m", "orchestrator", "run", str(path), "--outputs", str(tmp_path / "out"), "--inline"]
    driver = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while len(trace(tmp_path)) < 4:
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.01)
    children = psutil.Process(driver.pid).children(recursive=True)
    for process in (driver.pid, *(child.pid for child in children)):
        os.kill(process, signal.SIGKILL)
    driver.wait()
    before = trace(tmp_path)
    again = subprocess.run(line, capture_output=True, text=True, timeout=400)
    assert again.returncode == 0, again.stdout + again.stderr
    # What was in flight is begun again, and nothing before it.
    assert trace(tmp_path)[len(before) :] == list(range(trace(tmp_path)[len(before)], 8))
    assert trace(tmp_path)[len(before)] in (before[-1], before[-1] + 1)
    check(tmp_path)

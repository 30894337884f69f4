"""`kill -9` of the drivers of a search: no trial is lost, none is made twice, and nothing else is suggested."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from search_toy import SWEEP, calls, write_bowls

pytestmark = pytest.mark.faults

SLOWER = {"BOWL_SECONDS": "0.05"}


def _start(folder: Path, path: Path) -> subprocess.Popen[bytes]:
    code = "from orchestrator.cli import main; main()"
    environment = {**os.environ, **SLOWER, "BOWL_TRACE": str(path.parent / "trace")}
    line = [sys.executable, "-c", code, "run", str(path), "--inline", "--outputs", str(folder)]
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _finish(driver: subprocess.Popen[bytes]) -> None:
    printed, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, printed.decode()


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in (folder / "store/studies").glob("*/*.json"):
        if path.stem.isdigit():
            record = json.loads(path.read_text())
            del record["made"]
            found[f"{path.parent.name}/{path.stem}"] = record
    return found


def _until(driver: subprocess.Popen[bytes], folder: Path, trials: int) -> None:
    """Wait until so many trials are suggested, then for an instant."""
    while driver.poll() is None and len(list((folder / "store/studies").glob("*/[0-9]*.json"))) < trials:
        time.sleep(0.005)
    time.sleep(random.Random(trials).uniform(0, 0.1))


def test_a_search_that_is_killed_twice_is_the_search_that_nobody_disturbed(tmp_path: Path) -> None:
    for name in ("calm", "killed"):
        (tmp_path / name).mkdir()
    calm = write_bowls(tmp_path / "calm")
    _finish(_start(tmp_path / "calm/out", calm))
    path = write_bowls(tmp_path / "killed")
    for trials in (3, 8):
        driver = _start(tmp_path / "killed/out", path)
        _until(driver, tmp_path / "killed/out", trials)
        assert driver.poll() is None
        driver.kill()
        driver.communicate()
    _finish(_start(tmp_path / "killed/out", path))
    assert len(_records(tmp_path / "killed/out")) == 12
    assert _records(tmp_path / "killed/out") == _records(tmp_path / "calm/out")
    # 2 × (6 × 3 + 2) calls, and at most one more for each kill.
    assert len(calls(tmp_path / "calm")) == 40
    assert 40 <= len(calls(tmp_path / "killed")) <= 42
    assert set(calls(tmp_path / "killed")) == set(calls(tmp_path / "calm"))


def test_two_drivers_share_a_study_and_either_may_be_killed(tmp_path: Path) -> None:
    text = SWEEP.replace("concurrency: 1", "concurrency: 4").replace("trials: 6", "trials: 12")
    path = write_bowls(tmp_path, text)
    drivers = [_start(tmp_path / "out", path) for _ in range(2)]
    _until(drivers[0], tmp_path / "out", 10)
    drivers[1].kill()
    drivers[1].communicate()
    drivers[1] = _start(tmp_path / "out", path)
    for driver in drivers:
        _finish(driver)
    records = _records(tmp_path / "out")
    assert len(records) == 24
    for study in {name.split("/")[0] for name in records}:
        mine = {int(name.split("/")[1]): record for name, record in records.items() if name.startswith(study)}
        assert sorted(mine) == list(range(12))
        told = [each["number"] for record in mine.values() for each in record["told"]]
        assert len(told) == len(set(told))
        # A trial is told only to those after it.
        assert all(each["number"] < number for number, record in mine.items() for each in record["told"])
    # 2 × (12 × 3 + 2) calls, and one more for the kill.
    assert 76 <= len(calls(tmp_path)) <= 77

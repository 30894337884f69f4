"""`kill -9` of the driver at any instant costs at most the steps in flight."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pytest
import toy_sweep
from long_sweep import LONG, check_nothing_is_lost_or_twice, with_ray
from toy_runs import command, environment

pytestmark = pytest.mark.faults


@pytest.mark.long
def test_fifty_kills_at_random_instants_lose_nothing(tmp_path: Path, calm: pa.Table) -> None:
    path = toy_sweep.write_sweep(tmp_path, LONG)
    chance = random.Random(0)
    for _ in range(50):
        driver = subprocess.Popen(command(tmp_path, path, "--inline"), env=environment(), stdout=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.1, 0.9))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    done = subprocess.run(command(tmp_path, path, "--inline"), env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    check_nothing_is_lost_or_twice(tmp_path, calm)
    calls = len((tmp_path / "toy-trace").read_text().splitlines())
    # A step may be in flight at each kill, no more.
    assert 600 <= calls <= 600 + 50


@pytest.mark.ray
@pytest.mark.long
def test_kills_of_a_driver_with_a_ray_of_its_own_lose_nothing(tmp_path: Path, calm: pa.Table) -> None:
    path = toy_sweep.write_sweep(tmp_path, LONG)
    chance = random.Random(1)
    for _ in range(3):
        driver = subprocess.Popen(with_ray(command(tmp_path, path)), env=environment(), stdout=subprocess.DEVNULL)
        time.sleep(chance.uniform(4.0, 8.0))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    done = subprocess.run(
        with_ray(command(tmp_path, path)), env=environment(), capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    check_nothing_is_lost_or_twice(tmp_path, calm)

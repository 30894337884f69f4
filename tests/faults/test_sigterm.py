"""SIGTERM at any instant costs at most the step in flight."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pyarrow as pa
import pytest
import toy_sweep
from drivers import calls, check, finish, start, wait_for
from long_sweep import LONG, with_ray
from toy_runs import command

pytestmark = pytest.mark.faults


@pytest.mark.long
def test_sigterm_at_random_instants_costs_at_most_the_step_in_flight(tmp_path: Path, calm: pa.Table) -> None:
    path = toy_sweep.write_sweep(tmp_path, LONG)
    chance = random.Random(0)
    drained = 0
    for turn in range(20):
        before = calls(tmp_path)
        driver = start(command(tmp_path, path, "--inline"))
        if turn % 2:
            # At any instant, its start included: before it listens, the signal's own effect is the same to a shell.
            time.sleep(chance.uniform(0.1, 1.0))
            expected = (143, -signal.SIGTERM)
        else:
            # While steps are computed and committed.
            wait_for(lambda before=before: calls(tmp_path) > before, driver)  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 0.15))
            expected = (143,)
        driver.send_signal(signal.SIGTERM)
        printed, _ = driver.communicate(timeout=400)
        assert driver.returncode in expected, printed
        assert "Traceback" not in printed
        if driver.returncode == 143:
            assert "the same command goes on" in printed
            drained += 1
    assert drained >= 10
    assert calls(tmp_path) < 600
    finish(tmp_path)
    check(tmp_path, calm)
    assert 600 <= calls(tmp_path) <= 600 + drained


@pytest.mark.ray
@pytest.mark.long
def test_sigterm_of_a_driver_with_a_ray_of_its_own_lets_running_steps_commit(
    tmp_path: Path, calm: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toy_sweep.write_sweep(tmp_path, LONG)
    # The grace time that a job has by itself is a second, which a bundle may need on a busy machine.
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "60")
    driver = start(with_ray(command(tmp_path, path)))
    wait_for(lambda: calls(tmp_path), driver)
    time.sleep(random.Random(1).uniform(0.0, 0.3))
    driver.send_signal(signal.SIGTERM)
    printed, _ = driver.communicate(timeout=400)
    assert driver.returncode == 143, printed
    assert "the same command goes on" in printed
    assert 0 < calls(tmp_path) < 600
    finish(tmp_path)
    check(tmp_path, calm)
    # Steps of twenty milliseconds end within the grace time: none is computed again.
    assert calls(tmp_path) == 600


@pytest.mark.ray
def test_a_job_that_is_stopped_says_at_once_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray gives it three seconds by itself, so that what is printed at the end may never be."""
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "600")
    path = toy_sweep.write_sweep(tmp_path, toy_sweep.SWEEP.replace("behaviour: work", "behaviour: hang"))
    driver = start(with_ray(command(tmp_path, path)))
    wait_for(lambda: "hang" in (tmp_path / "toy-trace").read_text() if calls(tmp_path) else False, driver)
    driver.send_signal(signal.SIGTERM)
    assert driver.stdout
    said = ""
    while "the same command goes on: " not in said:
        line = driver.stdout.readline()
        assert line, said
        said += line
    assert driver.poll() is None, "steps hang, and it waits for them"
    driver.kill()
    driver.communicate()

"""Of two drivers of one sweep either may be killed, and the other finishes everything."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pyarrow as pa
import pytest
import toy_sweep
from drivers import calls, check, finish, start, wait_for
from long_sweep import LONG
from toy_runs import command

pytestmark = pytest.mark.faults


@pytest.mark.long
def test_of_two_drivers_one_is_killed_again_and_again_and_the_other_finishes_everything(
    tmp_path: Path, calm: pa.Table
) -> None:
    path = toy_sweep.write_sweep(tmp_path, LONG)
    chance = random.Random(5)
    line = command(tmp_path, path, "--inline")
    survivor = start(line)
    kills = 0
    while survivor.poll() is None and kills < 6:
        before = calls(tmp_path)
        victim = start(line)
        wait_for(lambda before=before: calls(tmp_path) > before + 5, survivor)  # type: ignore[misc]
        time.sleep(chance.uniform(0.4, 1.2))
        kills += victim.poll() is None
        victim.kill()
        victim.communicate()
    printed, _ = survivor.communicate(timeout=400)
    assert survivor.returncode == 0, printed
    assert kills >= 3
    assert 600 <= calls(tmp_path) <= 600 + kills
    # What the last victim held on a step that it had published is swept by the next command.
    assert "nothing to do" in finish(tmp_path)
    check(tmp_path, calm)


@pytest.mark.long
def test_of_two_drivers_either_may_be_killed_and_the_other_goes_on(tmp_path: Path, calm: pa.Table) -> None:
    path = toy_sweep.write_sweep(tmp_path, LONG)
    chance = random.Random(6)
    line = command(tmp_path, path, "--inline")
    drivers = [start(line), start(line)]
    wait_for(lambda: calls(tmp_path) > 60, drivers[0])
    time.sleep(chance.uniform(0.0, 0.5))
    victim = drivers.pop(chance.randrange(2))
    assert victim.poll() is None
    victim.kill()
    victim.communicate()
    assert calls(tmp_path) < 600
    printed, _ = drivers[0].communicate(timeout=400)
    assert drivers[0].returncode == 0, printed
    assert 600 <= calls(tmp_path) <= 601
    assert "nothing to do" in finish(tmp_path)
    check(tmp_path, calm)

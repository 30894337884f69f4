"""Wrong clocks and late writers: no step is computed twice, and what was published first stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
import toy_sweep
from drivers import calls, check, start, wait_for
from long_sweep import calm_table
from toy_runs import command, environment
from toy_sweep import SLOW

from orchestrator.cli.show_run import run_and_show
from orchestrator.session import open_session
from orchestrator.types import Artifact, Manifest

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def calm_slow(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    return calm_table(tmp_path_factory.mktemp("calm") / "slow", SLOW)


SITE = """\
import os, time
_time, _time_ns, _shift = time.time, time.time_ns, int(os.environ.get("CLOCK_SHIFT", "0"))
time.time = lambda: _time() + _shift
time.time_ns = lambda: _time_ns() + _shift * 10**9
"""
HOURS = 3600


def shifted(folder: Path, hours: int) -> dict[str, str]:
    """The environment of a process whose clock is wrong."""
    site = folder / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(SITE)
    python_path = os.pathsep.join([str(site), environment()["PYTHONPATH"]])
    return {"PYTHONPATH": python_path, "CLOCK_SHIFT": str(hours * HOURS)}


def test_two_drivers_whose_clocks_are_six_hours_apart_share_the_work_and_compute_no_step_twice(
    tmp_path: Path, calm_slow: pa.Table
) -> None:
    path = toy_sweep.write_sweep(tmp_path, SLOW)
    drivers = [start(command(tmp_path, path, "--inline"), **shifted(tmp_path, hours)) for hours in (-3, 3)]
    printed = [driver.communicate(timeout=400)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], printed
    assert calls(tmp_path) == 18
    session = check(tmp_path, calm_slow)
    found = session.store.manifests([session.plan.address(number) for number in range(len(session.plan))])
    finished = [each.finished - time.time() for each in found.values() if isinstance(each, Manifest)]
    # Both did some of it, by their own clocks.
    assert min(finished) < -2 * HOURS
    assert max(finished) > 2 * HOURS


@pytest.mark.parametrize(
    "hours", [pytest.param(-3, id="slow_clock"), pytest.param(3, id="fast_clock", marks=pytest.mark.long)]
)
def test_a_stopped_writer_whose_step_was_taken_over_wakes_up_late_and_changes_nothing(
    tmp_path: Path, calm_slow: pa.Table, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    path = toy_sweep.write_sweep(tmp_path, SLOW)
    late = start(command(tmp_path, path, "--inline"), **shifted(tmp_path, hours))
    sleepers: list[psutil.Process] = []
    try:
        # It sleeps inside a step: its claim is held, nothing is published.
        wait_for(lambda: "slow" in (tmp_path / "toy-trace").read_text() if calls(tmp_path) else False, late)
        assert late.poll() is None
        # The process of its steps first.
        sleepers += [*psutil.Process(late.pid).children(), psutil.Process(late.pid)]
        for each in sleepers:
            each.suspend()
        stopped = calls(tmp_path)
        (held,) = (tmp_path / "out" / "store" / "claims").glob("*/*/*")
        taken = Artifact(held.parents[1].name, held.parent.name)
        monkeypatch.setattr("orchestrator.run.loop.TERM", 1.0)
        monkeypatch.setattr("orchestrator.run.retry._POLL_CLAIMED", 0.2)
        session = open_session(path, outputs=str(tmp_path / "out"))
        assert run_and_show(session, None, True, None) == 0
        # All but what the other had finished, and the step that it holds.
        assert calls(tmp_path) == 18 + 1
        assert stopped < 18
        folder = Path(session.outputs.store) / "artifacts" / taken.stage / taken.key
        published = {each.name: each.read_bytes() for each in folder.iterdir()}
    finally:
        for each in sleepers:
            each.resume()
    printed, _ = late.communicate(timeout=400)
    assert late.returncode == 0, printed
    # What was published first stays, to the byte.
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == published
    assert calls(tmp_path) == 18 + 1
    # The late one wrote the table last; it must tell what the store has, not what was dropped.
    check(tmp_path, calm_slow)

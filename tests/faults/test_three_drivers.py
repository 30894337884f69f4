"""Three drivers of one sweep at once, one is killed and one stopped for long: all is done, and MLflow has it once."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from drivers import calls, start, wait_for
from servers import HEAD_PORT, put_mlflow_database
from toy_runs import command
from tracked_toy import check_mlflow, opened

from orchestrator.store.lease import parse_claim

pytestmark = pytest.mark.faults

XS = 20
OVERRIDES = (f"axes.x={list(range(XS))}", "axes.kind={plain: {behaviour: nap}}")
#: Two sources and two doubles of each x, and two totals.
STEPS = 6 * XS

#: So that a driver that stands still is found out in seconds. A step takes 20 ms.
IMPATIENT = "from orchestrator.run import loop, retry; loop.TERM = 6.0; retry._POLL_CLAIMED = 0.2"


def check_done_once(folder: Path, uri: str, extra: int) -> None:
    """The table and MLflow are those of a calm run; no step was done twice but so many of the disturbed drivers."""
    session = opened(folder, *OVERRIDES)
    assert session.schedule.done
    rows = pq.read_table(session.outputs.results).to_pylist()
    assert [(row["x"], row["y"], row["total"]) for row in rows] == [
        (x, y, 4.0 * x + 2 + y) for x in range(XS) for y in (10, 20)
    ]
    store = Path(session.outputs.store)
    assert len(list((store / "artifacts").glob("*/*"))) == STEPS
    assert not list((store / "claims").rglob("*/*"))
    assert STEPS <= calls(folder) <= STEPS + extra
    check_mlflow(folder, uri, *OVERRIDES)


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def stop(pid: int, folder: Path, holding: bool) -> list[psutil.Process]:
    """Stop a driver and its processes, if need be at a moment when it holds a step."""
    while True:
        stopped = family(pid)
        for each in stopped:
            each.suspend()
        holders: set[int] = set()
        # The third driver is at work, and may remove a folder that is being looked at.
        with contextlib.suppress(FileNotFoundError):
            claims = (parse_claim(each.name) for each in (folder / "out" / "store" / "claims").glob("*/*/*"))
            holders.update(claim.process.pid for claim in claims if claim)
        if not holding or holders & {each.pid for each in stopped}:
            return stopped
        for each in stopped:
            each.resume()
        time.sleep(0.01)


@pytest.mark.long
@pytest.mark.mlflow
@pytest.mark.parametrize("where", ["inline", pytest.param("ray", marks=pytest.mark.ray)])
def test_of_three_drivers_one_is_killed_and_one_stopped_and_each_step_is_done_once(
    tmp_path: Path, request: pytest.FixtureRequest, where: str
) -> None:
    options = ["--inline"]
    if where == "ray":
        request.getfixturevalue("head")
        trace = Path(request.getfixturevalue("head_environment")["TOY_TRACE"])
        trace.unlink(missing_ok=True)
        trace.symlink_to(tmp_path / "toy-trace")
        options = ["--address", f"127.0.0.1:{HEAD_PORT}"]
    uri = put_mlflow_database(tmp_path / "out" / "mlflow.db")
    path = opened(tmp_path, *OVERRIDES).file
    (tmp_path / "sitecustomize.py").write_text(IMPATIENT)
    line = command(tmp_path, path, *options, *(word for each in OVERRIDES for word in ("-s", each)))
    variables = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])]),
        "RAY_AUTH_MODE": "disabled",
    }
    victim, sleeper, third = (start(line, tmp_path, **variables) for _ in range(3))
    try:
        wait_for(lambda: calls(tmp_path) > STEPS // 6, third)
        victim.kill()
        victim.communicate()
        wait_for(lambda: calls(tmp_path) > STEPS // 3, third)
        stopped = stop(sleeper.pid, tmp_path, holding=where == "inline")
        if where == "ray":
            # Ray keeps the cores for it that its tasks had.
            time.sleep(8)
        else:
            # The third one does not wait for it for ever, and makes the step again.
            printed, _ = third.communicate(timeout=400)
            assert third.returncode == 0, printed
        assert sleeper.poll() is None
        for each in stopped:
            each.resume()
        for driver in (third, sleeper):
            printed = driver.communicate(timeout=400)[0] if driver.poll() is None else ""
            assert driver.wait() == 0, printed
    finally:
        for driver in (victim, sleeper, third):
            if driver.poll() is None:
                for each in family(driver.pid):
                    each.kill()
    check_done_once(tmp_path, uri, extra=2)
    printed, _ = start(line, tmp_path, **variables).communicate(timeout=400)
    assert "nothing to do" in printed
    check_done_once(tmp_path, uri, extra=2)

"""Two drivers do not compute a step twice, and a dead one holds nobody up."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import toy_sweep
from holders import hold
from toy_runs import command, environment
from toy_sweep import SLOW

from orchestrator.drive import drive
from orchestrator.session import Session, open_session
from orchestrator.types import Artifact

pytestmark = pytest.mark.faults


def calls(folder: Path) -> int:
    return len((folder / "toy-trace").read_text().splitlines())


def totals(session: Session) -> list[float]:
    return pq.read_table(session.outputs.results)["total"].to_pylist()  # type: ignore[no-any-return]


def test_two_drivers_on_one_sweep_share_the_work_and_compute_no_step_twice(tmp_path: Path) -> None:
    path = toy_sweep.write_sweep(tmp_path, SLOW)
    drivers = [
        subprocess.Popen(command(tmp_path, path, "--inline"), env=environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [driver.communicate()[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], outputs
    assert calls(tmp_path) == 18
    session = open_session(path, outputs=str(tmp_path / "out"))
    assert session.schedule.done
    assert totals(session) == [4 * x + 2 + y for x in (1, 2, 3) for y in (10, 20)]
    assert not list((Path(session.outputs.store) / "claims").glob("*/*"))


def test_two_sweeps_that_share_steps_compute_them_once(tmp_path: Path) -> None:
    one = toy_sweep.write_sweep(
        tmp_path, SLOW.replace("[10, 20]", "[10]").replace("name: toy", "name: one"), "one.yaml"
    )
    other = toy_sweep.write_sweep(
        tmp_path, SLOW.replace("[10, 20]", "[20]").replace("name: toy", "name: other"), "other.yaml"
    )
    drivers = [
        subprocess.Popen(command(tmp_path, path, "--inline"), env=environment(), stdout=subprocess.DEVNULL)
        for path in (one, other)
    ]
    assert [driver.wait() for driver in drivers] == [0, 0]
    assert calls(tmp_path) == 18


def test_a_driver_that_shows_no_life_is_replaced_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.run.loop.TERM", 1.0)
    monkeypatch.setattr("orchestrator.run.retry._POLL_CLAIMED", 0.2)
    session = open_session(toy_sweep.write_sweep(tmp_path), outputs=str(tmp_path / "out"))
    session.store.prepare()
    hold(session.store, session.plan.address(0), space="another")
    before = time.monotonic()
    assert drive(session, None, True, None) == 0
    assert time.monotonic() - before > 1.0
    assert totals(session) == [4 * x + 2 + y for x in (1, 2, 3) for y in (10, 20)]


def test_the_claim_of_a_killed_driver_holds_up_nobody_on_its_host(tmp_path: Path) -> None:
    path = toy_sweep.write_sweep(
        tmp_path, toy_sweep.SWEEP.replace("config: {value: $x}", "config: {value: $x, behaviour: hang}")
    )
    driver = subprocess.Popen(command(tmp_path, path, "--inline"), env=environment(), stdout=subprocess.DEVNULL)
    claims = tmp_path / "out" / "store" / "claims"
    while not list(claims.glob("*/*/*")):
        assert driver.poll() is None
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    (left,) = claims.glob("*/*/*")
    session = open_session(path, ["stages.source.config.behaviour=work"], outputs=str(tmp_path / "out"))
    store, address = session.store, Artifact("toy_source", left.parent.name)
    # The process of the step dies with its driver, and a moment later.
    while not store.claims()[address].process.gone():
        time.sleep(0.05)
    with store.lease(address, "next"):
        assert not left.exists()

"""Two drivers do not compute a step twice, and a dead one holds nobody up."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import toy_sweep
from toy_runs import command, environment
from toy_sweep import SLOW

from orchestrator.drive import drive
from orchestrator.session import Session, open_session
from orchestrator.store import claims, process
from orchestrator.store.claims import ClaimedError, Holder, claimed, parse_holder
from orchestrator.store.posix import PosixStore
from orchestrator.store.process import UNKNOWN, Process, this_process
from orchestrator.types import Artifact

ADDRESS = Artifact("toy_source", "0" * 32)


@pytest.fixture
def store(tmp_path: Path) -> PosixStore:
    store = PosixStore(tmp_path / "store")
    store.prepare()
    return store


def holder(driver: str = "other", **other: object) -> Holder:
    """A claim of this very process, or of one that differs from it in something."""
    return Holder(driver, "a-host", replace(this_process(), **other))  # type: ignore[arg-type]


def test_a_claim_lasts_as_long_as_the_work(store: PosixStore) -> None:
    with claimed(store, ADDRESS, "mine", None):
        held = parse_holder(store.claim(ADDRESS, "x") or "")
        assert held
        assert (held.driver, held.process.pid) == ("mine", os.getpid())
    assert store.claim(ADDRESS, "x") is None


def test_a_claim_is_given_back_by_work_that_fails(store: PosixStore) -> None:
    with pytest.raises(ValueError, match="work"), claimed(store, ADDRESS, "mine", None):
        raise ValueError("work")
    assert store.claim(ADDRESS, "x") is None


class _InterruptedStore(PosixStore):
    """Ctrl-C in the moment after a claim."""

    def claim(self, address: Artifact, holder: str) -> str | None:
        super().claim(address, holder)
        raise KeyboardInterrupt


def test_a_claim_is_given_back_by_who_is_interrupted_while_claiming(store: PosixStore) -> None:
    with pytest.raises(KeyboardInterrupt):
        claimed(_InterruptedStore(store.root), ADDRESS, "mine", None).__enter__()
    assert store.claim(ADDRESS, "x") is None


def test_a_living_holder_keeps_others_out_and_is_named(store: PosixStore) -> None:
    store.claim(ADDRESS, holder().to_text())
    with pytest.raises(ClaimedError, match=f"process {os.getpid()} on") as caught, claimed(store, ADDRESS, "me", None):
        pass
    assert caught.value.holder == holder().to_text()
    # It is still theirs.
    assert store.claim(ADDRESS, "x") == holder().to_text()


def test_claims_of_our_own_driver_of_dead_processes_and_stale_ones_are_taken_over(store: PosixStore) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    reused = holder(started=1)
    far = holder(space="far-away")
    for held, stale in ((holder("me"), None), (holder(pid=dead.pid), None), (reused, None), (far, far.to_text())):
        store.renew(ADDRESS, held.to_text())
        with claimed(store, ADDRESS, "me", stale):
            pass
    # A claim that was renewed since it was seen is no longer the stale one.
    store.renew(ADDRESS, replace(far, renewals=2).to_text())
    with pytest.raises(ClaimedError), claimed(store, ADDRESS, "me", far.to_text()):
        pass


def test_a_process_that_cannot_be_looked_up_from_here_is_never_taken_for_dead(
    store: PosixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    assert Process(this_process().space, dead.pid, 1).gone()
    # Of another container of one host name, or of a platform that does not tell.
    for space in ("another", UNKNOWN):
        store.renew(ADDRESS, holder(space=space, pid=dead.pid).to_text())
        with pytest.raises(ClaimedError), claimed(store, ADDRESS, "me", None):
            pass
    # No clock of the machine counts; and somebody else's process is none that is gone.
    assert not this_process().gone()
    assert not Process(this_process().space, 1, process._started(1) or 0).gone()
    monkeypatch.setattr(process, "this_process", lambda: Process(UNKNOWN, os.getpid(), 0))
    assert not Process(UNKNOWN, dead.pid, 0).gone()


def test_a_claim_that_was_taken_over_is_left_to_its_new_holder(store: PosixStore) -> None:
    with claimed(store, ADDRESS, "mine", None):
        store.renew(ADDRESS, holder().to_text())
    assert store.claims() == {ADDRESS: holder().to_text()}


def test_a_claim_is_given_back_whenever_it_was_renewed_last(store: PosixStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims.heartbeat, "seconds", 0.01)
    monkeypatch.setattr(claims.heartbeat, "_thread", None)
    for _ in range(20):
        with claimed(store, ADDRESS, "mine", None):
            time.sleep(0.02)
        assert store.claims() == {}


def test_claims_are_renewed_each_while_its_work_lasts(store: PosixStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims.heartbeat, "seconds", 0.05)
    monkeypatch.setattr(claims.heartbeat, "_thread", None)
    other = Artifact(ADDRESS.stage, "1" * 32)

    def wait_for_renewals(address: Artifact, count: int) -> None:
        until = time.monotonic() + 400
        while time.monotonic() < until:
            held = parse_holder(store.claim(address, "x") or "")
            assert held
            if held.renewals >= count:
                return
            time.sleep(0.01)
        raise AssertionError("the claim is not renewed")

    with claimed(store, other, "me", None):
        with claimed(store, ADDRESS, "me", None):
            wait_for_renewals(ADDRESS, 2)
            wait_for_renewals(other, 2)
        assert ADDRESS not in store.claims()
        wait_for_renewals(other, 5)
    assert not store.claims()


def calls(folder: Path) -> int:
    return len((folder / "toy-trace").read_text().splitlines())


def totals(session: Session) -> list[float]:
    return pq.read_table(session.outputs.results)["total"].to_pylist()  # type: ignore[no-any-return]


@pytest.mark.faults
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
    assert not list((Path(session.outputs.store) / "claims").rglob("*/*"))


@pytest.mark.faults
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


@pytest.mark.faults
def test_a_driver_that_shows_no_life_is_replaced_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.run.loop.PATIENCE", 1.0)
    monkeypatch.setattr("orchestrator.run.retry._POLL_CLAIMED", 0.2)
    session = open_session(toy_sweep.write_sweep(tmp_path), outputs=str(tmp_path / "out"))
    session.store.prepare()
    session.store.claim(session.plan.address(0), holder(space="a-node-that-is-gone").to_text())
    before = time.monotonic()
    assert drive(session, None, True, None) == 0
    assert time.monotonic() - before > 1.0
    assert totals(session) == [4 * x + 2 + y for x in (1, 2, 3) for y in (10, 20)]


@pytest.mark.faults
def test_the_claim_of_a_killed_driver_holds_up_nobody_on_its_host(tmp_path: Path) -> None:
    path = toy_sweep.write_sweep(
        tmp_path, toy_sweep.SWEEP.replace("config: {value: $x}", "config: {value: $x, behaviour: hang}")
    )
    driver = subprocess.Popen(command(tmp_path, path, "--inline"), env=environment(), stdout=subprocess.DEVNULL)
    claims = tmp_path / "out" / "store" / "claims"
    while not list(claims.rglob("*/*")):
        assert driver.poll() is None
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    (left,) = claims.rglob("*/*")
    session = open_session(path, ["stages.source.config.behaviour=work"], outputs=str(tmp_path / "out"))
    store, address = session.store, Artifact("toy_source", left.name)
    found = parse_holder(store.claim(address, "x") or "")
    assert found
    # The process of the step dies with its driver, and a moment later.
    while not found.gone():
        time.sleep(0.05)
    with claimed(store, address, "next", None):
        pass

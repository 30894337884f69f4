"""Whatever drivers do, in whatever order their changes reach the store, the invariants of leases hold.

The first tests look for a history that breaks an invariant; the others put faults into the protocol, and expect that
such a history is found.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from lease_objects import MemoryMedium, ObjectWorld, ServedWorld
from lease_world import Driver, PosixWorld, World
from store_samples import ADDRESS

from orchestrator.store import lease as lease_module
from orchestrator.store import object_lease, posix_lease
from orchestrator.store.lease import BEAT, Claim, Claims
from orchestrator.store.object_lease import ObjectClaims, ObjectLease, claim_path
from orchestrator.store.posix_lease import PosixClaims, PosixLease
from orchestrator.store.process import Process
from orchestrator.store.records import manifest_to_json
from orchestrator.types import Artifact, Manifest

DRIVERS = 3
WHICH = st.integers(0, DRIVERS - 1)


class Machine(RuleBasedStateMachine):
    """Histories of three drivers."""

    world_class: type[World]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=os.environ.get("LEASES_IN")))
        self.world = self.world_class(self.folder, DRIVERS)
        world = self.world
        self.patches = [
            mock.patch.object(Process, "gone", lambda process: world.gone(process)),
            mock.patch.object(posix_lease, "held_here", world.held_here),
            mock.patch.object(object_lease, "held_here", world.held_here),
            mock.patch.object(lease_module, "this_process", world.this_process),
            mock.patch.object(lease_module.heartbeat, "start"),
        ]
        for patch in self.patches:
            patch.start()

    def driver(self, number: int) -> Driver:
        return self.world.drivers[number]

    def start(self, number: int, action: Callable[[Driver], None]) -> None:
        self.world.start(self.driver(number), action)

    @rule(number=WHICH)
    def claims(self, number: int) -> None:
        self.start(number, lambda driver: driver.take(stale=False))

    @rule(number=WHICH)
    def takes_over_what_it_saw(self, number: int) -> None:
        self.start(number, lambda driver: driver.take(stale=True))

    @rule(number=WHICH)
    def looks(self, number: int) -> None:
        self.start(number, Driver.look)

    @rule(number=WHICH, revive=st.booleans())
    def writes(self, number: int, revive: bool) -> None:
        self.start(number, lambda driver: driver.write(revive))

    @rule(number=WHICH)
    def commits(self, number: int) -> None:
        self.start(number, Driver.commit)

    @rule(number=WHICH)
    def renews(self, number: int) -> None:
        self.start(number, Driver.renew)

    @rule(number=WHICH)
    def releases(self, number: int) -> None:
        self.start(number, Driver.give_up)

    @rule(number=WHICH)
    def sweeps(self, number: int) -> None:
        self.start(number, Driver.sweep)

    @rule(number=WHICH, changes=st.integers(1, 6))
    def goes_on(self, number: int, changes: int) -> None:
        for _ in range(changes):
            self.world.go_on(self.driver(number))

    def do(self, number: int, *actions: Callable[[Driver], None]) -> None:
        """Have a driver finish what it does, and then something else."""
        for action in actions:
            self.world.finish(self.driver(number))
            self.start(number, action)

    # What seldom comes about by chance.

    @rule(number=WHICH)
    def claims_and_writes(self, number: int) -> None:
        self.do(number, lambda driver: driver.take(stale=False), lambda driver: driver.write(False))

    @rule(number=WHICH)
    def looks_and_takes_over(self, number: int) -> None:
        self.do(number, Driver.look, lambda driver: driver.take(stale=True))

    @rule(one=WHICH, other=WHICH, changes=st.integers(0, 12))
    def two_take_over_at_once(self, one: int, other: int, changes: int) -> None:
        self.looks_and_takes_over(one)
        self.goes_on(one, changes)
        self.looks_and_takes_over(other)
        self.world.finish(self.driver(other))
        self.world.finish(self.driver(one))

    @rule(number=WHICH, changes=st.integers(0, 12))
    def falls_asleep_while_it_commits(self, number: int, changes: int) -> None:
        self.claims_and_writes(number)
        self.do(number, Driver.commit)
        self.goes_on(number, changes)

    @rule(number=WHICH, changes=st.integers(0, 12))
    def is_cut_off_while_it_commits(self, number: int, changes: int) -> None:
        self.falls_asleep_while_it_commits(number, changes)
        self.driver(number).cut_off = True
        self.do(number, Driver.give_up)

    @rule(number=WHICH)
    def comes_back_and_commits(self, number: int) -> None:
        self.do(number, lambda driver: driver.write(True), Driver.commit)

    @rule(number=WHICH)
    def loses_an_answer(self, number: int) -> None:
        self.driver(number).lost_answer = True

    @rule()
    def the_artifact_is_found_damaged(self) -> None:
        self.world.discard()

    @rule(number=WHICH)
    def is_cut_off_for_a_moment(self, number: int) -> None:
        self.driver(number).cut_off = True

    @rule(number=WHICH)
    def crashes(self, number: int) -> None:
        self.world.crash(self.driver(number))

    @rule(beats=st.integers(1, 12))
    def time_passes(self, beats: int) -> None:
        self.world.time += beats * BEAT

    @rule(seconds=st.sampled_from([-3600.0, 3600.0]))
    def the_clock_steps(self, seconds: float) -> None:
        self.world.wall += seconds

    @invariant()
    def holds(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        try:
            self.the_step_can_be_finished()
        finally:
            for patch in self.patches:
                patch.stop()
            for driver in self.world.drivers:
                if driver.lease:
                    driver.lease.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def the_step_can_be_finished(self) -> None:
        """Whoever comes last finds the step committed, or takes it over from all that show no life, and commits."""
        for driver in self.world.drivers:
            driver.cut_off = driver.lost_answer = False
        last = self.world.add()
        for _ in range(20):
            if self.world.artifact():
                break
            for action in (Driver.look, lambda driver: driver.take(stale=True), lambda driver: driver.write(False)):
                self.world.start(last, action)
                self.world.finish(last)
            self.world.start(last, Driver.commit)
            self.world.finish(last)
        assert self.world.artifact(), "the step can never be committed"
        self.world.check()


class PosixMachine(Machine):
    world_class = PosixWorld


class ObjectMachine(Machine):
    world_class = ObjectWorld


def search(machine: type[Machine], examples: int, steps: int = 30) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        ),
    )


@pytest.mark.parametrize("machine", [PosixMachine, ObjectMachine])
def test_no_history_breaks_an_invariant(machine: type[Machine]) -> None:
    search(machine, 150)


@pytest.mark.long
@pytest.mark.parametrize("machine", [PosixMachine, ObjectMachine])
def test_no_long_history_breaks_an_invariant(machine: type[Machine]) -> None:
    search(machine, 1000, 60)


@pytest.mark.long
def test_no_history_breaks_an_invariant_on_a_server(s3: str) -> None:
    class Served(ServedWorld):
        server = s3

    class ServedMachine(Machine):
        world_class = Served

    search(ServedMachine, 40)


# --- faults, of which each is found


def evict_whoever_holds_it(self: PosixClaims, address: Artifact, claim: Claim) -> bool:
    self.system.world.stop()
    place = Path(self.place(address))
    return any(self.trash.throw_away(path) for path in (list(place.iterdir()) if place.is_dir() else []))


def release_whoever_holds_it(self: PosixLease) -> None:
    evict_whoever_holds_it(self._claims, self.address, self.claim)
    self.close()


def claim_by_overwriting(self: PosixClaims, action: Callable[[], None], folder: str) -> None:
    if "claims/" in folder:
        self.trash.throw_away(self.place(ADDRESS))
    MAKE(self, action, folder)


def commit_by_name(self: PosixLease, manifest: Manifest) -> bool:
    (self.folder / "manifest.json").write_bytes(manifest_to_json(manifest))
    self._publish(f"{self._claims.root}/artifacts/{ADDRESS.stage}/{ADDRESS.key}")
    self.close()
    return True


def take_all_for_dead(self: Claims, claim: Claim, driver: str | None, attempt: int | None = None) -> bool:
    return True


def write_without_condition(self: MemoryMedium, path: str, content: bytes, etag: str | None) -> str:
    found = self.state(path)
    return PUT(self, path, content, found[1] if found else None)


def publish_without_decision(self: ObjectLease, content: bytes) -> bool:
    return b"decided" in content or SWAP(self, content)


def evict_what_is_decided(self: ObjectClaims, address: Artifact, claim: Claim) -> bool:
    path = claim_path(address)
    found = self.medium.state(path)
    return found is not None and bool(found[0]) and self.medium.put(path, b"", found[1]) is not None


MAKE, PUT, SWAP = PosixClaims._make, MemoryMedium._put, ObjectLease._swap
FAULTS = {
    "a takeover of whoever holds it": (PosixMachine, PosixClaims, "evict", evict_whoever_holds_it),
    "a release of whoever holds it": (PosixMachine, PosixLease, "_give_back", release_whoever_holds_it),
    "a claim that overwrites another": (PosixMachine, PosixClaims, "_make", claim_by_overwriting),
    "a commit by name": (PosixMachine, PosixLease, "_commit", commit_by_name),
    "a sweep of the living": (PosixMachine, Claims, "over", take_all_for_dead),
    "a write without a condition": (ObjectMachine, MemoryMedium, "_put", write_without_condition),
    "a manifest without a decision": (ObjectMachine, ObjectLease, "_swap", publish_without_decision),
    "an eviction of what is decided": (ObjectMachine, ObjectClaims, "evict", evict_what_is_decided),
}


@pytest.mark.faults
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_protocol_is_found(name: str) -> None:
    machine, where, attribute, instead = FAULTS[name]
    with mock.patch.object(where, attribute, instead), pytest.raises((AssertionError, ExceptionGroup)):
        search(machine, 2000)

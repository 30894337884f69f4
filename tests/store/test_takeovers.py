"""Drivers that meet the claim of a dead one at the same moment: one of them gets the step."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from typing import Any

import pytest
from holders import dead_pid, hold

from orchestrator.store import ClaimedError, LostOutputError, Store, list_files, open_store
from orchestrator.types import Artifact, Manifest


def step(number: int) -> Artifact:
    return Artifact("toy_source", f"{number:032x}")


def take_over(location: str, rounds: int, name: str, together: Barrier, told: Any) -> None:
    """Take every step in turn, together with the others; tell for how long it was held, and who published."""
    store = open_store(location)
    for number in range(rounds):
        together.wait()
        try:
            with store.lease(step(number), name) as lease:
                since = time.monotonic()
                (lease.folder / "made").write_text(name)
                time.sleep(0.002)
                lease.confirm()
                until = time.monotonic()
                files = list_files(lease.folder)
                manifest = Manifest(step(number), "{}", files, {"m": 1.0}, 1, 0.5, 100.0, name, "abc")
                told.put((number, name, since, until, lease.claim.epoch, lease.commit(manifest)))
        except ClaimedError:
            pass
        except LostOutputError:
            told.put((number, name, 0.0, 0.0, 0, None))
    told.put(None)


@pytest.mark.faults
@pytest.mark.long
@pytest.mark.parametrize("drivers", [2, 8])
def test_drivers_that_meet_a_dead_claim_never_hold_it_both(store: Store, drivers: int) -> None:
    # 200 of both pass; a server that takes one request after the other needs three minutes for that.
    rounds = 40 if "://" in store.location else 200
    for number in range(rounds):
        hold(store, step(number), pid=dead_pid())
    context = multiprocessing.get_context("spawn")
    together, told = context.Barrier(drivers), context.Queue()
    workers = [
        context.Process(target=take_over, args=(store.location, rounds, f"driver{each}", together, told))
        for each in range(drivers)
    ]
    for worker in workers:
        worker.start()
    found: list[tuple[int, str, float, float, int, bool | None]] = []
    ended = 0
    while ended < drivers:
        each = told.get(timeout=400)
        ended += each is None
        found += [each] if each else []
    for worker in workers:
        worker.join()
    # Nobody lost what it held, and the clock is one for all processes of a machine.
    assert all(published is not None for *_, published in found)
    for number in range(rounds):
        held = sorted((since, until) for each, _, since, until, _, _ in found if each == number)
        assert held
        assert all(until <= since for (_, until), (since, _) in itertools.pairwise(held)), (number, held)
        (maker,) = (name for each, name, *_, published in found if each == number and published)
        assert (store.fetch(step(number)) / "made").read_text() == maker
    assert store.claims() == {}

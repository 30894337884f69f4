"""A step has one valid lease; whoever lost it changes nothing any more. One contract for both media."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from holders import dead_pid, hold
from store_samples import ADDRESS, OTHER, commit, manifest_of

from orchestrator.store import ClaimedError, Lease, LostOutputError, Store, list_files, open_store
from orchestrator.store import lease as lease_module
from orchestrator.store import process as process_module
from orchestrator.store.lease import BEAT, TERM, Claim, Stillness, parse_claim
from orchestrator.store.process import UNKNOWN, Process, this_process
from orchestrator.types import Manifest


def manifest(lease: Lease, metric: float = 1.0) -> Manifest:
    return Manifest(lease.address, "{}", list_files(lease.folder), {"m": metric}, 1, 0.5, 100.0, "host", "abc")


def is_free(store: Store) -> bool:
    try:
        with store.lease(ADDRESS, "free"):
            return True
    except ClaimedError:
        return False


@contextmanager
def evicted(store: Store) -> Iterator[Lease]:
    """A lease that another driver evicted, while its holder stood still."""
    with store.lease(ADDRESS, "mine") as lease:
        (lease.folder / "file.txt").write_text("the first half")
        (claim,) = store._claims.look(ADDRESS)
        assert store._claims.evict(ADDRESS, claim)
        yield lease


def test_a_lease_lasts_as_long_as_the_work_and_names_its_holder(store: Store) -> None:
    with store.lease(ADDRESS, "mine"):
        claim = store.claims()[ADDRESS]
        assert (claim.driver, claim.process, claim.epoch) == ("mine", this_process(), 1)
        with pytest.raises(ClaimedError, match=f"process {os.getpid()} on") as caught, store.lease(ADDRESS, "other"):
            pass
        assert caught.value.holder == claim.to_text()
        with store.lease(OTHER, "other"):
            assert store.claims().keys() == {ADDRESS, OTHER}
    assert store.claims() == {}
    assert is_free(store)


def test_a_lease_is_given_back_with_its_folder_by_work_that_fails(store: Store) -> None:
    folders = []

    def work() -> None:
        with store.lease(ADDRESS, "mine") as lease:
            folders.append(lease.folder)
            (lease.folder / "file.txt").touch()
            raise ValueError("work")

    with pytest.raises(ValueError, match="work"):
        work()
    assert not folders[0].exists()
    assert store.committed(["toy_source"]) == set()
    assert is_free(store)


def test_a_lease_is_given_back_by_who_is_interrupted_while_taking_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = store._claims.take

    def interrupted(*args: object) -> Lease:
        take(*args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(store._claims, "take", interrupted)
    with pytest.raises(KeyboardInterrupt), store.lease(ADDRESS, "mine"):
        pass
    monkeypatch.undo()
    assert is_free(store)


def test_claims_of_our_own_driver_of_dead_processes_and_expired_ones_are_evicted_and_the_epoch_rises(
    store: Store,
) -> None:
    for other in ({"driver": "me"}, {"pid": dead_pid()}, {"started": 1}, {"space": "far"}):
        claim = hold(store, ADDRESS, **other)  # type: ignore[arg-type]
        with store.lease(ADDRESS, "me", claim.to_text() if "space" in other else None) as lease:
            assert lease.claim.epoch == 2
            assert store.claims().keys() == {ADDRESS}
    assert store.claims() == {}


def test_a_claim_that_shows_life_again_has_not_expired(store: Store) -> None:
    with store.lease(ADDRESS, "mine") as lease:
        (seen,) = store._claims.look(ADDRESS)
        lease.renew()
        with pytest.raises(ClaimedError), store.lease(ADDRESS, "other", seen.to_text()):
            pass
        assert not store._claims.evict(ADDRESS, seen)
        assert lease.commit(manifest(lease))


def test_nothing_is_inferred_about_processes_of_another_boot_or_namespace(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = dead_pid()
    assert Process(this_process().space, dead, 1).gone()
    # Of another container of one host name, or of a platform that does not tell.
    for space in ("another", UNKNOWN):
        claim = hold(store, ADDRESS, space=space, pid=dead)
        open_store(store.location).prepare()
        assert not is_free(store)
        assert store._claims.evict(ADDRESS, claim)
    # No clock of the machine counts; and somebody else's process is none that is gone.
    assert not this_process().gone()
    assert not Process(this_process().space, 1, process_module._started(1) or 0).gone()
    monkeypatch.setattr(process_module, "this_process", lambda: Process(UNKNOWN, os.getpid(), 0))
    assert not Process(UNKNOWN, dead, 0).gone()


def test_who_was_evicted_commits_nothing(store: Store) -> None:
    with pytest.raises(LostOutputError) as caught, evicted(store) as lease:
        lease.commit(manifest(lease) if lease.folder.exists() else Manifest(ADDRESS, "{}", {}, {}, 1, 1, 1, "h", "c"))
    assert caught.value.evicted
    assert store.committed(["toy_source"]) == set()
    assert is_free(store)


def test_who_was_evicted_commits_nothing_while_its_successor_works_nor_after(store: Store) -> None:
    with evicted(store) as late:
        with store.lease(ADDRESS, "next") as lease:
            (lease.folder / "file.txt").write_text("whole")
            with pytest.raises(LostOutputError):
                late.commit(Manifest(ADDRESS, "{}", {}, {}, 1, 0.5, 100.0, "host", "abc"))
            assert store.claims()[ADDRESS].driver == "next"
            assert lease.commit(manifest(lease, 2.0))
        with pytest.raises(LostOutputError) as caught:
            late.commit(Manifest(ADDRESS, "{}", {}, {}, 1, 0.5, 100.0, "host", "abc"))
    assert caught.value.evicted
    assert (store.fetch(ADDRESS) / "file.txt").read_text() == "whole"


def test_who_was_evicted_neither_renews_releases_nor_sweeps_what_is_its_successors(store: Store) -> None:
    with evicted(store) as late, store.lease(ADDRESS, "next") as lease:
        before = store.claims()[ADDRESS]
        late.renew()
        late.release()
        store.sweep("mine", everywhere=True)
        assert store.claims() == {ADDRESS: before}
        assert lease.folder.is_dir()
    assert store.claims() == {}


def test_of_two_whole_artifacts_of_one_key_the_first_manifest_stays(store: Store) -> None:
    with store.lease(ADDRESS, "mine") as lease:
        (claim,) = store._claims.look(ADDRESS)
        commit_of_another = open_store(store.location)
        assert store._claims.evict(ADDRESS, claim)
        first = commit(commit_of_another)
        with pytest.raises(LostOutputError):
            lease.commit(Manifest(ADDRESS, "{}", {}, {}, 1, 0.5, 100.0, "host", "abc"))
    commit(store, text="second")
    assert manifest_of(store) == first


def test_claims_show_life_each_while_its_work_lasts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module.heartbeat, "seconds", 0.02)
    monkeypatch.setattr(lease_module.heartbeat, "_thread", None)

    def wait_for_life(*addresses: object) -> None:
        before, until = store.claims(), time.monotonic() + 400
        while any(store.claims()[each].beat == before[each].beat for each in addresses):  # type: ignore[index]
            assert time.monotonic() < until
            time.sleep(0.005)

    with store.lease(OTHER, "mine"):
        with store.lease(ADDRESS, "mine") as lease:
            wait_for_life(ADDRESS, OTHER)
            assert lease.commit(manifest(lease))
        assert store.claims().keys() == {OTHER}
        wait_for_life(OTHER)
    assert store.claims() == {}


def test_of_many_who_take_a_step_at_once_one_gets_it(store: Store) -> None:
    held, done, barrier = [], threading.Event(), threading.Barrier(8)
    answers = threading.Semaphore(0)

    def work(name: int) -> None:
        barrier.wait()
        try:
            with store.lease(ADDRESS, f"driver{name}"):
                held.append(name)
                answers.release()
                done.wait()
        except ClaimedError:
            answers.release()

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for _ in threads:
        answers.acquire()
    done.set()
    for thread in threads:
        thread.join()
    assert len(held) == 1
    assert is_free(store)


def test_what_a_driver_left_goes_when_its_run_ends_and_nothing_of_others_does(store: Store) -> None:
    with store.lease(ADDRESS, "mine") as lease:
        left = hold(store, OTHER, "mine", space="another")
        store.sweep("mine", everywhere=True)
        # Not what this very process works on.
        assert store.claims().keys() == {ADDRESS}
        assert lease.folder.is_dir()
    hold(store, OTHER, "another", space="another")
    store.sweep("mine", everywhere=True)
    assert store.claims().keys() == {OTHER}
    assert left.to_text() != store.claims()[OTHER].to_text()


def test_the_claim_of_a_dead_worker_ends_for_its_own_driver_only(store: Store) -> None:
    hold(store, ADDRESS, "mine", space="another")
    store.end_claim(ADDRESS, "other")
    assert not is_free(store)
    store.end_claim(ADDRESS, "mine")
    store.end_claim(ADDRESS, "mine")
    assert is_free(store)


def test_what_dead_processes_left_is_swept_when_the_store_is_prepared(store: Store) -> None:
    claim = hold(store, ADDRESS, pid=dead_pid())
    hold(store, OTHER, space="another")
    open_store(store.location).prepare()
    assert store.claims().keys() == {OTHER}
    assert not [path for path in local_folder(store).rglob(f"*{claim.token}*") if ADDRESS.key in str(path)]


def local_folder(store: Store) -> Path:
    with store.lease(ADDRESS, "look") as lease:
        return lease.folder.parents[2] if "://" not in store.location else lease.folder.parent


def pretend(folder: Path, how: str) -> None:
    """A folder that its stage revived, replaced by another one, or removed."""
    shutil.rmtree(folder)
    if how == "revived":
        folder.mkdir(parents=True)
    elif how == "replaced":
        other = folder.with_name("other")
        other.mkdir(parents=True)
        folder.symlink_to(other)
    if how != "gone":
        (folder / "file.txt").write_text("the rest")


@pytest.mark.parametrize("how", ["revived", "replaced", "gone"])
def test_a_folder_that_is_another_one_by_now_is_never_committed(store: Store, how: str) -> None:
    def work() -> None:
        with store.lease(ADDRESS, "driver") as lease:
            (lease.folder / "first.txt").write_text("the first half")
            files = list_files(lease.folder)
            pretend(lease.folder, how)
            for found in (files, list_files(lease.folder) if how == "revived" else {}):
                with pytest.raises(LostOutputError, match=r"toy_source.* was deleted or replaced"):
                    lease.commit(Manifest(ADDRESS, "{}", found, {"m": 1.0}, 1, 0.5, 100.0, "host", "abc"))
            assert store.committed(["toy_source"]) == set()
            lease.release()
            # What was published or given back needs no confirmation any more.
            lease.confirm()

    work()
    commit(store)
    assert store.committed(["toy_source"]) == {ADDRESS}


def test_whatever_a_stage_raises_whose_folder_was_taken_away_it_is_told_of_that(store: Store) -> None:
    def work(lost: bool) -> None:
        with store.lease(ADDRESS, "driver") as lease:
            if lost:
                pretend(lease.folder, "gone")
            (lease.folder / "no-such-folder" / "file.txt").write_text("nothing")

    with pytest.raises(LostOutputError) as caught:
        work(lost=True)
    assert isinstance(caught.value.__context__, FileNotFoundError)
    assert not caught.value.evicted
    with pytest.raises(FileNotFoundError):
        work(lost=False)
    assert store.claims() == {}


def test_a_claim_has_expired_when_it_was_seen_unchanged_for_the_term_by_our_own_clock() -> None:
    now = 1000.0
    stillness = Stillness(lambda: now)
    assert stillness.seconds("a", "1") == 0
    for _ in range(9):
        now += BEAT
    # One look after a long pause of our own counts one beat: the pause may have been everybody's.
    assert stillness.seconds("a", "1") == BEAT
    looks = 1
    while stillness.seconds("a", "1") < TERM:
        now += 2.0
        looks += 1
    assert looks == (TERM - BEAT) / 2 + 1
    assert stillness.seconds("a", "2") == 0
    stillness.keep({"b"})
    assert stillness.seconds("a", "2") == 0


def test_a_claim_reads_back_as_written_and_anything_else_is_none() -> None:
    claim = Claim(12, "0123456789abcdef", "d1", 3, Process("space", 7, 12345), "a-host.local", "99")
    assert parse_claim(claim.to_text()) == claim
    assert parse_claim(claim.name, "99") == claim
    for text in ("", ".nfs0001", "torn", claim.name[:-14], claim.name + "/..", claim.name + "\n", f"{claim.name} x y"):
        assert parse_claim(text) is None

"""What leases do about the ways of one medium: foreign files in a folder, a decision in an object store."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from holders import dead_pid, hold
from store_samples import ADDRESS, OTHER, Inside, commit

from orchestrator.store import ClaimedError, LostOutputError, Store, StoreError, list_files, open_store, posix_lease
from orchestrator.store.atomic import move_over, replace_file
from orchestrator.store.lease import BEAT, TERM, Stillness, held_here
from orchestrator.store.object_lease import claim_path
from orchestrator.store.objects import ObjectStore
from orchestrator.store.posix import PosixStore
from orchestrator.store.posix_medium import PosixMedium
from orchestrator.types import Artifact, Manifest

EMPTY = Manifest(ADDRESS, "{}", {}, {"m": 1.0}, 1, 0.5, 100.0, "host", "abc")


@pytest.fixture
def posix(tmp_path: Path) -> PosixStore:
    store = PosixStore(tmp_path / "store")
    store.prepare()
    return store


@pytest.fixture
def objects(s3: str) -> ObjectStore:
    store = ObjectStore(f"{s3}/store")
    store.prepare()
    return store


def at_a_later(store: Store, monkeypatch: pytest.MonkeyPatch, looks: int, pause: float = BEAT) -> None:
    """Sweep again and again, on a clock of our own."""
    now = 0.0
    monkeypatch.setattr(store._claims, "_stillness", Stillness(lambda: now))
    for _ in range(looks):
        store.sweep()
        now += pause


def test_claims_without_a_sign_of_life_are_swept_after_the_term_and_a_beating_one_never(
    posix: PosixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = hold(posix, ADDRESS, space="elsewhere")
    hold(posix, OTHER, space="elsewhere")
    beating = next((posix.root / "claims" / OTHER.stage / OTHER.key).iterdir())
    private = posix.root / "claims" / ".0123"
    private.mkdir()
    now = 0.0
    monkeypatch.setattr(posix._claims, "_stillness", Stillness(lambda: now))
    for _ in range(int(TERM / BEAT)):
        posix.sweep()
        assert posix.claims().keys() == {ADDRESS, OTHER}
        assert private.is_dir()
        now += BEAT
        os.utime(beating, ns=(1, int(now * 1e9)))
    posix.sweep()
    assert posix.claims().keys() == {OTHER}
    assert not private.exists()
    assert still.token not in str(list(posix.root.rglob("*")))


def test_what_dies_while_it_makes_a_claim_is_swept_as_soon_as_it_is_known_to_be_dead(posix: PosixStore) -> None:
    names = {}
    for driver, pid in (("mine", os.getpid()), ("another", dead_pid()), ("third", os.getpid())):
        claim = hold(posix, ADDRESS, driver, pid=pid)
        place = posix.root / "claims" / ADDRESS.stage / ADDRESS.key
        names[driver] = place.rename(posix.root / "claims" / f".{claim.token}")
    assert posix.claims() == {}
    posix.sweep("mine")
    assert [driver for driver, path in names.items() if path.exists()] == ["third"]
    posix.sweep("third")
    assert not list((posix.root / "claims").glob(".*"))


def test_a_driver_sweeps_no_claim_of_its_own_workers_that_only_show_no_life(
    posix: PosixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(posix, ADDRESS, "mine", space="elsewhere")
    hold(posix, OTHER, "mine", pid=dead_pid())
    now = 0.0
    monkeypatch.setattr(posix._claims, "_stillness", Stillness(lambda: now))
    for _ in range(int(2 * TERM / BEAT)):
        posix.sweep(running="mine")
        now += BEAT
    assert posix.claims().keys() == {ADDRESS}
    posix.sweep("mine")
    assert posix.claims() == {}


def test_a_pause_of_our_own_is_no_sign_of_anybodys_death(posix: PosixStore, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(posix, ADDRESS, space="elsewhere")
    at_a_later(posix, monkeypatch, int(TERM / BEAT), 3600.0)
    assert posix.claims().keys() == {ADDRESS}


@pytest.mark.parametrize("name", [".nfs0001", ".DS_Store", "notes"])
def test_files_of_others_among_the_claims_are_in_nobodys_way(posix: PosixStore, name: str) -> None:
    place = posix.root / "claims" / ADDRESS.stage / ADDRESS.key
    place.mkdir(parents=True)
    for folder in (place, place.parent, place.parents[1]):
        (folder / name).touch()
    assert posix.claims() == {}
    posix.prepare()
    commit(posix)
    assert posix.committed([ADDRESS.stage]) == {ADDRESS}


def test_a_file_or_link_in_the_place_of_a_claim_is_in_nobodys_way(posix: PosixStore) -> None:
    place = posix.root / "claims" / ADDRESS.stage
    place.mkdir(parents=True)
    (place / ADDRESS.key).touch()
    (place / OTHER.key).symlink_to("nowhere")
    assert posix.claims() == {}
    commit(posix)
    commit(posix, OTHER)


def test_a_claim_that_takes_the_place_of_a_file_while_that_is_deleted_is_spared(posix: PosixStore) -> None:
    place = posix.root / "claims" / ADDRESS.stage / ADDRESS.key
    place.parent.mkdir(parents=True)
    place.touch()

    class Overtaken:
        """Another driver deletes the file first, and takes the lease."""

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def unlink(self, path: str) -> None:
            Path(path).unlink()
            hold(posix, ADDRESS)
            Path(path).unlink()

    posix._claims.system = Overtaken()  # type: ignore[attr-defined]
    with pytest.raises(ClaimedError), posix.lease(ADDRESS, "mine"):
        pass
    assert posix.claims().keys() == {ADDRESS}


def test_a_folder_that_is_deleted_while_its_manifest_is_written_is_a_lost_one(
    posix: PosixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = posix_lease.create_file

    def overtaken(*args: Any) -> None:
        shutil.rmtree(lease.folder)
        write(*args)

    monkeypatch.setattr(posix_lease, "create_file", overtaken)
    with pytest.raises(LostOutputError), posix.lease(ADDRESS, "mine") as lease:
        lease.commit(Manifest(ADDRESS, "{}", list_files(lease.folder), {}, 1, 0.5, 100.0, "host", "abc"))
    assert posix.claims() == {}


def test_a_claim_that_cannot_be_made_costs_its_step_only(posix: PosixStore) -> None:
    elsewhere = Artifact("toy_total", ADDRESS.key)
    (posix.root / "claims" / elsewhere.stage).touch()
    with pytest.raises(StoreError, match="can be neither taken nor read"), posix.lease(elsewhere, "mine"):
        pass
    assert posix.claims() == {}
    commit(posix)


class LostAnswers:
    """NFS, where the answer to a request is lost: the client asks again, and is told that it is done."""

    def __init__(self, name: str, number: int = errno.ENOENT) -> None:
        self.name = name
        self.number = number

    def __getattr__(self, name: str) -> Any:
        if name != self.name:
            return getattr(os, name)

        action = getattr(os, name)

        def ask(*args: Any) -> None:
            action(*args)
            raise OSError(self.number, os.strerror(self.number), args[0])

        return ask


@pytest.mark.parametrize(("name", "number"), [("rename", errno.ENOENT), ("mkdir", errno.EEXIST)])
def test_a_change_of_a_claim_whose_answer_is_lost_has_happened(posix: PosixStore, name: str, number: int) -> None:
    posix._claims.system = LostAnswers(name, number)  # type: ignore[attr-defined]
    with posix.lease(ADDRESS, "mine") as lease:
        with pytest.raises(ClaimedError), posix.lease(ADDRESS, "other"):
            pass
        (lease.folder / "file.txt").write_text("x")
        files = list_files(lease.folder)
        assert lease.commit(Manifest(ADDRESS, "{}", files, {"m": 1.0}, 1, 0.5, 100.0, "host", "abc"))
    assert (posix.fetch(ADDRESS) / "file.txt").read_text() == "x"
    assert posix.claims() == {}
    assert not held_here(lease.claim.token)


def test_a_file_that_was_replaced_is_replaced_also_where_the_answer_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", LostAnswers("replace").replace)
    for content in (b"first", b"second"):
        replace_file(tmp_path / "table", content)
        PosixMedium(tmp_path).replace("pin", content)
        assert (tmp_path / "table").read_bytes() == (tmp_path / "pin").read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} == {"table", "pin"}
    # What is really gone was not put into its place.
    with pytest.raises(FileNotFoundError):
        move_over(tmp_path / "gone", tmp_path / "table")


def test_a_commit_that_failed_for_a_while_may_be_made_again(posix: PosixStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with posix.lease(ADDRESS, "mine") as lease:
        monkeypatch.setattr(lease, "_publish", away)
        with pytest.raises(StoreError) as caught:
            lease.commit(EMPTY)
        assert caught.value.passes
        monkeypatch.undo()
        assert lease.commit(EMPTY)
    assert posix.committed([ADDRESS.stage]) == {ADDRESS}


def test_a_decided_step_is_published_by_whoever_meets_it(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> bool:
        raise KeyboardInterrupt

    for meets in ("a driver that wants the step", "a driver that starts"):
        monkeypatch.setattr(objects._claims, "publish", dies)
        lease = objects._claims.take(ADDRESS, "dies", None, secrets.token_hex(8))
        (lease.folder / "file.txt").write_text(meets)
        files = list_files(lease.folder)
        with pytest.raises(KeyboardInterrupt):
            lease.commit(Manifest(ADDRESS, "{}", files, {"m": 1.0}, 1, 0.5, 100.0, "host", "abc"))
        lease.close()
        monkeypatch.undo()
        assert objects.committed([ADDRESS.stage]) == set()
        assert objects.remains()
        if meets == "a driver that starts":
            open_store(objects.location).prepare()
        else:
            with objects.lease(ADDRESS, "other"):
                pass
        assert (objects.fetch(ADDRESS) / "file.txt").read_text() == meets
        assert objects.claims() == objects.remains() == {}
        objects.remove([ADDRESS])


def test_what_was_given_back_leaves_an_empty_object_and_no_second_request_for_it(objects: ObjectStore) -> None:
    with objects.lease(ADDRESS, "mine"):
        pass
    inside = Inside(objects)
    assert inside.read(f"{inside.root}/{claim_path(ADDRESS)}") == ""
    commit(objects)
    with objects.lease(OTHER, "mine"):
        assert objects.claims().keys() == {OTHER}
        objects.tidy()
        assert [path for path in inside.all("claims") if "claims" in path] == [f"{inside.root}/{claim_path(OTHER)}"]
    assert objects.claims() == {}


def test_a_torn_claim_is_in_nobodys_way(objects: ObjectStore) -> None:
    inside = Inside(objects)
    inside.write(f"{inside.root}/{claim_path(ADDRESS)}", "torn")
    commit(objects)
    assert objects.committed([ADDRESS.stage]) == {ADDRESS}


def test_local_folders_whose_claim_is_gone_or_anothers_are_swept(objects: ObjectStore) -> None:
    left = hold(objects, ADDRESS, space="elsewhere")
    with objects.lease(OTHER, "mine") as lease:
        place = lease.folder.parent
        objects.sweep()
        assert {each.name[-16:] for each in place.iterdir()} == {left.token, lease.claim.token}
        objects._claims.evict(ADDRESS, left)
        objects.sweep()
        assert list(place.iterdir()) == [lease.folder]


def test_a_store_that_refuses_no_conditional_write_has_one_driver_and_says_so(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = objects._medium.fs.pipe_file

    def without_conditions(path: str, data: bytes, **_: object) -> object:
        return put(path, data)

    assert objects.prepare() is None
    monkeypatch.setattr(objects._medium.fs, "pipe_file", without_conditions)
    assert "start no second one" in (objects.prepare() or "")
    commit(objects)
    claim = hold(objects, OTHER, space="elsewhere")
    with pytest.raises(StoreError, match=f"process {claim.process.pid} on a-host works on {OTHER.stage}"):
        open_store(objects.location).prepare()
    objects._claims.evict(OTHER, claim)
    hold(objects, OTHER, pid=dead_pid())
    assert open_store(objects.location).prepare()


def test_a_lease_in_memory_keeps_one_driver_going() -> None:
    store = open_store(f"memory://lease-{time.monotonic_ns()}")
    assert "start no second one" in (store.prepare() or "")
    commit(store)
    with store.lease(OTHER, "mine") as lease:
        lease.renew()
        with pytest.raises(ClaimedError), store.lease(OTHER, "other"):
            pass
        (claim,) = store._claims.look(OTHER)
        store._claims.evict(OTHER, claim)
        with pytest.raises(LostOutputError):
            lease.commit(EMPTY)
    assert store.committed([ADDRESS.stage]) == {ADDRESS}

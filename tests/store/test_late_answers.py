"""Answers that come late or not at all, and processes that act on what is no more: cases that the simulator found."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import pytest
from store_samples import ADDRESS, Inside, commit, set_aside

from orchestrator.store import ClaimedError, StoreError, list_files, open_store
from orchestrator.store.artifacts import Store
from orchestrator.store.object_medium import ObjectMedium
from orchestrator.store.objects import ObjectStore
from orchestrator.store.posix import PosixStore
from orchestrator.types import Manifest


def test_a_commit_whose_decision_lost_its_answer_is_whole_whoever_published_it(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"{s3}/store")
    assert isinstance(store, ObjectStore)
    store.prepare()
    put = ObjectMedium._put

    def breaks(medium: ObjectMedium, path: str, content: bytes, etag: str | None) -> str:
        answer = put(medium, path, content, etag)
        if b"decided" in content:
            raise ConnectionError("the connection broke")
        return answer

    lease = store._claims.take(ADDRESS, "mine", None, secrets.token_hex(8))
    (lease.folder / "file.txt").write_text("mine")
    manifest = Manifest(ADDRESS, "{}", list_files(lease.folder), {"m": 1.0}, 1, 0.5, 100.0, "host", "abc")
    monkeypatch.setattr(ObjectMedium, "_put", breaks)
    with pytest.raises(StoreError):
        lease.commit(manifest)
    monkeypatch.undo()
    # Another driver meets the decision, publishes it, and ends the claim.
    with open_store(store.location).lease(ADDRESS, "other"):
        pass
    assert store.committed([ADDRESS.stage]) == {ADDRESS}
    assert lease.commit(manifest)
    assert (open_store(store.location).fetch(ADDRESS) / "file.txt").read_text() == "mine"
    assert store.remains() == {}


def test_a_sign_of_life_leaves_a_decision_as_it_is(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"{s3}/store")
    assert isinstance(store, ObjectStore)
    store.prepare()
    lease = store._claims.take(ADDRESS, "mine", None, secrets.token_hex(8))
    manifest = Manifest(ADDRESS, "{}", {}, {"m": 1.0}, 1, 0.5, 100.0, "host", "abc")

    def away(*_: object) -> bool:
        raise StoreError("the store is away")

    monkeypatch.setattr(store._claims, "publish", away)
    with pytest.raises(StoreError):
        lease.commit(manifest)
    monkeypatch.undo()
    lease.renew()
    assert [claim.beat for claim in store.claims().values()] == ["decided"]
    assert lease.commit(manifest)


def test_an_attempt_that_was_given_up_leaves_the_next_one_alone(store: Store) -> None:
    with store.lease(ADDRESS, "mine", attempt=2):
        with pytest.raises(ClaimedError), store.lease(ADDRESS, "mine", attempt=1):
            pass
        assert [claim.attempt for claim in store.claims().values()] == [2]


def test_the_next_attempt_of_a_driver_evicts_the_one_that_it_gave_up(store: Store) -> None:
    lost = store._claims.take(ADDRESS, "mine", None, secrets.token_hex(8), 1)
    with store.lease(ADDRESS, "mine", attempt=2):
        assert [claim.attempt for claim in store.claims().values()] == [2]
    lost.close()


def test_an_artifact_that_was_made_again_is_not_set_aside_for_the_damage_of_the_one_before(store: Store) -> None:
    commit(store, text="damaged")
    damaged = set_aside(store)
    commit(store, text="made again", metric=2.5)
    store.discard(ADDRESS, damaged)
    store.discard(ADDRESS)
    assert (store.fetch(ADDRESS) / "sub" / "file.txt").read_text() == "made again"


def test_an_artifact_with_a_torn_manifest_is_set_aside(store: Store) -> None:
    commit(store)
    inside = Inside(store)
    inside.write(inside.manifest(ADDRESS), "{")
    store.discard(ADDRESS)
    assert store.committed([ADDRESS.stage]) == set()


class SweptAway:
    """System calls of a process that stands still for so long that its unfinished claim is swept away, once."""

    def __init__(self) -> None:
        self.swept = False

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def mkdir(self, path: str) -> None:
        if not self.swept and "/claims/." in path and Path(path).parent.name.startswith("."):
            self.swept = True
            shutil.rmtree(Path(path).parent)
        os.mkdir(path)  # noqa: PTH102


def test_a_claim_that_was_swept_away_while_it_was_made_is_made_again(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    store.prepare()
    store._claims.system = SweptAway()  # type: ignore[attr-defined]
    with store.lease(ADDRESS, "mine"):
        assert len(store.claims()) == 1
    assert list((tmp_path / "claims").glob(".*")) == []


def test_what_is_left_of_a_claim_that_could_not_be_made_does_not_become_one(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    store.prepare()
    token = "0123456789abcdef"
    (tmp_path / "claims" / f".{token}" / f"1-{token}-mine-1-space-7-9-host").mkdir(parents=True)
    lease = store._claims.take(ADDRESS, "mine", None, token)
    place = tmp_path / "claims" / ADDRESS.stage / ADDRESS.key
    assert [each.name for each in place.iterdir()] == [lease.claim.name]
    lease.release()


def test_what_another_process_sets_aside_while_it_is_flushed_is_no_error_of_the_store(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    store.prepare()
    commit(store)
    seen = list(os.walk(store.folder(ADDRESS)))
    set_aside(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "walk", lambda _: seen)
        store.flush([ADDRESS])

"""Attempts, logs, claims and pins of a store: appended, listed, forgotten. One contract for all stores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import ADDRESS, OTHER, Inside, attempt, commit, manifest_of

from orchestrator.store import (
    DamagedArtifactError,
    Store,
    StoreError,
    open_store,
)
from orchestrator.store.posix import PosixStore
from orchestrator.types import Artifact, Manifest, Outcome


def test_attempts_are_appended_in_order_and_never_overwritten(store: Store) -> None:
    store.record(attempt(1))
    store.record(attempt(2, Outcome.CRASHED))
    store.record(attempt(2, Outcome.SUCCEEDED))
    history = store.histories([ADDRESS])[ADDRESS]
    assert [each.outcome for each in history] == [Outcome.FAILED, Outcome.CRASHED, Outcome.SUCCEEDED]
    assert history[0] == attempt(1)
    assert store.histories([OTHER]) == {}
    assert store.histories([OTHER, ADDRESS, Artifact("toy_total", "3" * 32)]) == {ADDRESS: history}


def test_a_tenth_attempt_comes_after_the_ninth(store: Store) -> None:
    for number in range(1, 12):
        store.record(attempt(number))
    assert [each.number for each in store.histories([ADDRESS])[ADDRESS]] == list(range(1, 12))


def test_a_torn_attempt_record_is_left_out_of_the_history(store: Store) -> None:
    store.record(attempt(1))
    inside = Inside(store)
    inside.write(f"{inside.root}/attempts/toy_source/{ADDRESS.key}.2.json", json.dumps({"number": 2})[:5])
    assert len(store.histories([ADDRESS])[ADDRESS]) == 1


def test_the_output_of_an_attempt_is_kept_where_the_store_is_and_an_empty_one_is_not(store: Store) -> None:
    store.log_path(ADDRESS, 1).write_text("said something")
    kept = store.keep_log(ADDRESS, 1)
    assert kept is not None
    assert kept.startswith(store.location)
    assert Inside(store).read(kept) == "said something"
    store.log_path(ADDRESS, 2).touch()
    assert store.keep_log(ADDRESS, 2) is None
    assert store.keep_log(ADDRESS, 3) is None


def test_a_record_that_lost_all_its_bytes_is_damaged_and_not_a_store_that_cannot_be_reached(store: Store) -> None:
    commit(store)
    inside = Inside(store)
    inside.write(inside.manifest(ADDRESS), "")
    assert isinstance(manifest_of(store), DamagedArtifactError)
    store.discard(ADDRESS)
    assert store.committed(["toy_source"]) == set()


def test_records_are_read_by_one_request_each(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    store = open_store(s3)
    commit(store)
    commit(store, OTHER)
    asked: list[str] = []
    call = s3fs.S3FileSystem._call_s3

    async def counted(self: s3fs.S3FileSystem, method: str, *args: object, **kwargs: object) -> object:
        asked.append(method)
        return await call(self, method, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    missing = Artifact("toy_source", "2" * 32)
    found = store.manifests([ADDRESS, OTHER, missing])
    assert [isinstance(each, Manifest) for each in found.values()] == [True, True, False]
    assert asked == ["get_object"] * 3


def test_opening_a_store_for_reading_creates_nothing(tmp_path: Path) -> None:
    store = PosixStore(tmp_path / "store")
    assert store.committed(["toy_source"]) == set()
    assert store.histories([ADDRESS]) == {}
    assert not (tmp_path / "store").exists()


def test_a_store_names_its_stages_and_the_steps_that_were_tried(store: Store) -> None:
    assert store.stages() == set()
    commit(store)
    store.record(replace(attempt(1), address=Artifact("toy_total", "3" * 32)))
    store.log_path(OTHER, 1).write_text("a word")
    store.keep_log(OTHER, 1)
    assert store.stages() == {"toy_source", "toy_total"}
    assert store.tried(["toy_source"]) == {OTHER}
    assert store.tried(["toy_total", "nothing"]) == {Artifact("toy_total", "3" * 32)}


def test_the_records_and_logs_of_forgotten_steps_are_gone_and_those_of_others_stay(store: Store) -> None:
    for address in (ADDRESS, OTHER):
        store.record(replace(attempt(1), address=address))
        store.log_path(address, 1).write_text("a word")
        store.keep_log(address, 1)
    store.forget([ADDRESS, Artifact("toy_total", "3" * 32)])
    assert store.tried(["toy_source"]) == {OTHER}
    assert len(Inside(store).all("attempts")) == 2
    assert store.histories([ADDRESS, OTHER]).keys() == {OTHER}


def test_a_pin_stands_for_artifacts_until_it_is_dropped(store: Store) -> None:
    assert store.pins() == {}
    store.pin("paper", {ADDRESS, OTHER})
    store.pin("empty", set())
    assert open_store(store.location).pins() == {"paper": {ADDRESS, OTHER}, "empty": frozenset()}
    store.pin("paper", [OTHER])
    assert store.pins()["paper"] == {OTHER}
    assert store.unpin("paper")
    assert not store.unpin("paper")
    assert list(store.pins()) == ["empty"]


def test_a_torn_pin_is_an_error_with_the_remedy(store: Store) -> None:
    store.pin("paper", {ADDRESS})
    inside = Inside(store)
    inside.write(f"{inside.root}/pins/paper", inside.read(f"{inside.root}/pins/paper")[:-3])
    with pytest.raises(StoreError, match="sweep unpin paper"):
        store.pins()

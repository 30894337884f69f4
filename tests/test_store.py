"""Files first, manifest last, published at once; what is torn or altered is noticed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.store import DamagedArtifactError, PosixStore, StoreError, list_files
from orchestrator.types import Artifact, Attempt, Manifest, Outcome

ADDRESS = Artifact("toy_source", "0" * 32)


@pytest.fixture
def store(tmp_path: Path) -> PosixStore:
    store = PosixStore(tmp_path / "store")
    store.prepare()
    return store


def commit(store: PosixStore, address: Artifact = ADDRESS, text: str = "hello", metric: float = 1.5) -> Manifest:
    scratch = store.scratch(address)
    (scratch / "sub").mkdir()
    (scratch / "sub" / "file.txt").write_text(text)
    manifest = Manifest(address, "{}", list_files(scratch), {"m": metric}, 1, 0.5, 100.0, "abc", {"numpy": "2"})
    store.commit(scratch, manifest)
    return manifest


def attempt(number: int, outcome: Outcome = Outcome.FAILED) -> Attempt:
    return Attempt(ADDRESS, "source", number, outcome, 0.1, 1.0, "here", "abc", "ValueError", "no", None, (ADDRESS,))


def test_a_committed_artifact_is_listed_and_its_manifest_reads_back_as_written(store: PosixStore) -> None:
    assert store.committed(["toy_source"]) == set()
    manifest = commit(store)
    assert store.committed(["toy_source", "other"]) == {ADDRESS}
    assert store.manifest(ADDRESS) == manifest
    assert (store.fetch(ADDRESS) / "sub" / "file.txt").read_text() == "hello"


def test_unfinished_work_is_not_listed(store: PosixStore) -> None:
    scratch = store.scratch(ADDRESS)
    (scratch / "file.txt").write_text("half")
    assert store.committed(["toy_source"]) == set()


def test_the_second_commit_of_a_key_leaves_the_first_untouched(store: PosixStore) -> None:
    first = commit(store, text="first")
    commit(store, text="second!")
    assert store.manifest(ADDRESS) == first
    assert (store.fetch(ADDRESS) / "sub" / "file.txt").read_text() == "first"
    assert not list((store.root / "scratch").iterdir())


@pytest.mark.parametrize(
    "damage", ["truncate", "flip", "remove", "no_manifest", "torn_manifest", "altered_metric", "swap"]
)
def test_a_torn_or_altered_artifact_is_never_read(store: PosixStore, damage: str) -> None:
    commit(store)
    folder = store.folder(ADDRESS)
    file, manifest = folder / "sub" / "file.txt", folder / "manifest.json"
    if damage == "truncate":
        file.write_text("hel")
    elif damage == "flip":
        file.write_text("hellp")
    elif damage == "remove":
        file.unlink()
    elif damage == "no_manifest":
        manifest.unlink()
    elif damage == "torn_manifest":
        manifest.write_text(manifest.read_text()[:40])
    elif damage == "altered_metric":
        manifest.write_text(manifest.read_text().replace('"m": 1.5', '"m": 2.5'))
    else:
        other = Artifact("toy_source", "1" * 32)
        commit(store, other, text="other")
        manifest.write_text((store.folder(other) / "manifest.json").read_text())
    with pytest.raises(DamagedArtifactError, match="damaged"):
        store.fetch(ADDRESS)


def test_a_file_altered_after_it_was_verified_is_noticed(store: PosixStore) -> None:
    commit(store)
    path = store.fetch(ADDRESS) / "sub" / "file.txt"
    path.write_text("hellp")
    os.utime(path, (1, 1))
    with pytest.raises(DamagedArtifactError):
        store.fetch(ADDRESS)


def test_a_damaged_artifact_is_set_aside_and_can_be_made_again(store: PosixStore) -> None:
    commit(store)
    (store.folder(ADDRESS) / "manifest.json").unlink()
    store.discard(ADDRESS)
    assert store.committed(["toy_source"]) == set()
    assert list((store.root / "damaged").rglob("file.txt"))
    commit(store)
    assert store.committed(["toy_source"]) == {ADDRESS}


def test_attempts_are_appended_in_order_and_never_overwritten(store: PosixStore) -> None:
    store.record(attempt(1))
    store.record(attempt(2, Outcome.CRASHED))
    store.record(attempt(2, Outcome.SUCCEEDED))
    history = store.attempts(ADDRESS)
    assert [each.outcome for each in history] == [Outcome.FAILED, Outcome.CRASHED, Outcome.SUCCEEDED]
    assert history[0] == attempt(1)
    assert store.attempted(["toy_source"]) == {ADDRESS}


def test_a_torn_attempt_record_is_left_out_of_the_history(store: PosixStore) -> None:
    store.record(attempt(1))
    (store.root / "attempts" / "toy_source" / ADDRESS.key / "2.json").write_text(json.dumps({"number": 2})[:5])
    assert len(store.attempts(ADDRESS)) == 1


def test_scratch_of_dead_processes_is_swept_and_that_of_living_ones_stays(store: PosixStore) -> None:
    mine = store.scratch(ADDRESS)
    dead = subprocess.Popen(["true"])
    dead.wait()
    theirs = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
    theirs.mkdir()
    elsewhere = mine.with_name(f"toy-0-otherhost-{dead.pid}-xyz")
    elsewhere.mkdir()
    PosixStore(store.root).prepare()
    assert mine.is_dir()
    assert not theirs.exists()
    assert elsewhere.is_dir()


def test_a_place_that_cannot_be_written_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="--outputs"):
        PosixStore(tmp_path / "file" / "store").prepare()


def test_opening_a_store_for_reading_creates_nothing(tmp_path: Path) -> None:
    store = PosixStore(tmp_path / "store")
    assert store.committed(["toy_source"]) == set()
    assert store.attempted(["toy_source"]) == set()
    assert not (tmp_path / "store").exists()

"""Files first, manifest last, published at once; what is torn or altered is noticed. One contract for all stores."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import ADDRESS, OTHER, Inside, commit, manifest_of, set_aside

from orchestrator.store import (
    DamagedArtifactError,
    LostOutputError,
    Store,
    open_store,
)
from orchestrator.store.posix import PosixStore
from orchestrator.types import Artifact, Manifest


def test_a_committed_artifact_is_listed_and_its_manifest_reads_back_as_written(store: Store) -> None:
    assert store.committed(["toy_source"]) == set()
    manifest = commit(store)
    assert store.committed(["toy_source", "other"]) == {ADDRESS}
    assert manifest_of(store) == manifest
    assert manifest_of(open_store(store.location)) == manifest
    assert (store.fetch(ADDRESS) / "sub" / "file.txt").read_text() == "hello"


def test_unfinished_work_is_not_listed(store: Store) -> None:
    with store.lease(ADDRESS, "driver") as lease:
        (lease.folder / "file.txt").write_text("half")
        assert store.committed(["toy_source"]) == set()
    assert store.committed(["toy_source"]) == set()


def test_the_second_commit_of_a_key_leaves_the_first_untouched(store: Store) -> None:
    first = commit(store, text="first")
    commit(store, text="second!")
    assert manifest_of(store) == first
    assert (store.fetch(ADDRESS) / "sub" / "file.txt").read_text() == "first"
    assert len([path for path in Inside(store).all("artifacts") if path.endswith("file.txt")]) == 1


@pytest.mark.parametrize(
    "damage", ["truncate", "flip", "remove", "no_manifest", "torn_manifest", "altered_metric", "swap"]
)
def test_a_torn_or_altered_artifact_is_never_read(store: Store, damage: str) -> None:
    commit(store)
    inside = Inside(store)
    file, manifest = inside.file(ADDRESS), inside.manifest(ADDRESS)
    if damage == "truncate":
        inside.write(file, "hel")
    elif damage == "flip":
        inside.write(file, "hellp")
    elif damage == "remove":
        inside.fs.rm_file(file)
    elif damage == "no_manifest":
        inside.fs.rm_file(manifest)
    elif damage == "torn_manifest":
        inside.write(manifest, inside.read(manifest)[:40])
    elif damage == "altered_metric":
        inside.write(manifest, inside.read(manifest).replace('"m": 1.5', '"m": 2.5'))
    else:
        commit(store, OTHER, text="other")
        inside.write(manifest, inside.read(inside.manifest(OTHER)))
    with pytest.raises(DamagedArtifactError, match="damaged"):
        open_store(store.location).fetch(ADDRESS)
    if damage not in ("truncate", "flip", "remove"):
        assert isinstance(manifest_of(store), DamagedArtifactError)


def test_a_file_altered_after_it_was_verified_is_noticed(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    store.prepare()
    commit(store)
    path = store.fetch(ADDRESS) / "sub" / "file.txt"
    path.write_text("hellp")
    os.utime(path, (1, 1))
    with pytest.raises(DamagedArtifactError):
        store.fetch(ADDRESS)


def test_a_local_copy_of_a_remote_artifact_that_was_altered_is_fetched_again(s3: str) -> None:
    store = open_store(s3)
    commit(store)
    path = store.fetch(ADDRESS) / "sub" / "file.txt"
    path.write_text("hellp")
    os.utime(path, (1, 1))
    assert (store.fetch(ADDRESS) / "sub" / "file.txt").read_text() == "hello"


def test_writers_of_one_key_at_the_same_time_leave_one_whole_artifact(store: Store) -> None:
    texts = [f"writer {number}" * 1000 for number in range(8)]

    def write(text: str) -> None:
        # Of one driver: each takes the claim of the one before for that of an attempt that has ended.
        with contextlib.suppress(LostOutputError):
            commit(store, text=text)

    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert store.committed(["toy_source"]) == {ADDRESS}
    assert (store.fetch(ADDRESS) / "sub" / "file.txt").read_text() in texts


def test_an_artifact_made_again_with_other_bytes_is_read_anew(store: Store) -> None:
    commit(store, text="first")
    store.fetch(ADDRESS)
    set_aside(store)
    commit(store, text="second")
    assert (store.fetch(ADDRESS) / "sub" / "file.txt").read_text() == "second"


def test_manifests_are_read_together_and_damage_to_one_does_not_hide_the_others(store: Store) -> None:
    commit(store)
    other = commit(store, OTHER)
    inside = Inside(store)
    inside.write(inside.manifest(ADDRESS), "{}")
    missing = Artifact("toy_source", "2" * 32)
    found = store.manifests([ADDRESS, OTHER, missing])
    assert manifest_of(store, OTHER) == other == replace(found[OTHER], upload=None)
    assert isinstance(found[ADDRESS], DamagedArtifactError)
    assert isinstance(found[missing], DamagedArtifactError)
    assert store.manifests([]) == {}


def test_an_artifact_may_have_no_files(store: Store) -> None:
    with store.lease(ADDRESS, "driver") as lease:
        lease.commit(Manifest(ADDRESS, "{}", {}, {"m": 1.0}, 1, 0.5, 100.0, "host", "abc"))
    assert not list(store.fetch(ADDRESS).rglob("file*"))


def test_a_damaged_artifact_is_set_aside_and_can_be_made_again(store: Store) -> None:
    commit(store)
    inside = Inside(store)
    inside.write(inside.manifest(ADDRESS), "{}")
    store.discard(ADDRESS)
    store.discard(ADDRESS)
    assert store.committed(["toy_source"]) == set()
    assert inside.all("damaged")
    assert any(path.endswith("file.txt") for path in inside.all(""))
    commit(store)
    assert store.committed(["toy_source"]) == {ADDRESS}


def test_a_removed_artifact_is_gone_with_its_files_and_others_stay(store: Store) -> None:
    commit(store)
    commit(store, OTHER)
    store.fetch(ADDRESS)
    store.remove([ADDRESS, Artifact("toy_total", "3" * 32)])
    assert store.committed(["toy_source"]) == {OTHER}
    for each in (store, open_store(store.location)):
        with pytest.raises(DamagedArtifactError, match="missing"):
            each.fetch(ADDRESS)
    inside = Inside(store)
    assert not [path for path in inside.all("") if ADDRESS.key in path]
    assert (store.fetch(OTHER) / "sub" / "file.txt").read_text() == "hello"
    commit(store)
    assert (store.fetch(ADDRESS) / "sub" / "file.txt").read_text() == "hello"


def test_an_artifact_whose_manifest_is_torn_can_be_removed(store: Store) -> None:
    commit(store)
    inside = Inside(store)
    inside.write(inside.manifest(ADDRESS), "{}")
    store.remove([ADDRESS])
    assert store.committed(["toy_source"]) == set()
    assert not [path for path in inside.all("") if ADDRESS.key in path]


def test_what_was_set_aside_remains_until_it_is_cleared(store: Store) -> None:
    commit(store, OTHER)
    assert store.remains() == {}
    commit(store, text="set aside")
    set_aside(store)
    commit(store, text="made again")
    remains = store.remains()
    assert sum(remains.values()) > len("set aside")
    store.clear(remains.keys())
    store.clear(remains.keys())
    assert store.remains() == {}
    assert (store.fetch(ADDRESS) / "sub" / "file.txt").read_text() == "made again"
    assert store.committed(["toy_source"]) == {ADDRESS, OTHER}
    inside = Inside(store)
    assert sorted(inside.read(path) for path in inside.all("artifacts") if path.endswith("file.txt")) == [
        "hello",
        "made again",
    ]


def test_an_upload_that_was_never_finished_remains_until_it_is_cleared(s3: str) -> None:
    store = open_store(s3)
    commit(store)
    inside = Inside(store)
    inside.write(f"{inside.root}/artifacts/{OTHER.stage}/{OTHER.key}/0123/a file[1].txt", "half")
    damaged = Artifact("toy_source", "4" * 32)
    commit(store, damaged)
    inside.write(inside.manifest(damaged), "{}")
    assert list(store.remains().values()) == [4]
    store.clear(store.remains().keys())
    assert store.remains() == {}
    assert len(inside.all("artifacts")) == 2


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "none"])
def test_an_inspection_reads_the_stored_bytes_whatever_was_read_before(store: Store, damage: str) -> None:
    commit(store)
    store.fetch(ADDRESS)
    manifest = store.manifests([ADDRESS])[ADDRESS]
    assert isinstance(manifest, Manifest)
    inside = Inside(store)
    path = inside.file(ADDRESS)
    before = Path(path).stat() if inside.posix else None
    if damage == "truncate":
        inside.write(path, "hel")
    elif damage == "flip":
        inside.write(path, "hellp")
        if before:
            # Bit rot does not change times.
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif damage == "remove":
        inside.fs.rm_file(path)
    found = store.inspect(manifest)
    words = {"truncate": "3 bytes", "flip": "the bytes of", "remove": "missing"}
    if damage == "none":
        assert found is None
    else:
        assert isinstance(found, DamagedArtifactError)
        assert words[damage] in str(found)


def test_an_empty_file_passes_inspection(store: Store) -> None:
    commit(store, text="")
    manifest = store.manifests([ADDRESS])[ADDRESS]
    assert isinstance(manifest, Manifest)
    assert store.inspect(manifest) is None


def test_an_adopted_artifact_has_the_files_of_the_old_one_and_outlives_it(store: Store) -> None:
    old = commit(store)
    new = replace(old, address=OTHER, identity='{"new": 1}', adopted=ADDRESS.key)
    store.adopt(ADDRESS, new)
    store.flush([OTHER])
    assert manifest_of(store, OTHER) == new
    assert manifest_of(store) == old
    if isinstance(store, PosixStore):
        one, other = (store.folder(each) / "sub" / "file.txt" for each in (ADDRESS, OTHER))
        assert one.samefile(other)
    store.remove([ADDRESS])
    assert (open_store(store.location).fetch(OTHER) / "sub" / "file.txt").read_text() == "hello"


def test_adopting_leaves_what_is_there_untouched(store: Store) -> None:
    old = commit(store)
    commit(store, OTHER, text="mine")
    store.adopt(ADDRESS, replace(old, address=OTHER, adopted=ADDRESS.key))
    assert (store.fetch(OTHER) / "sub" / "file.txt").read_text() == "mine"
    assert len([path for path in Inside(store).all("artifacts") if path.endswith("file.txt")]) == 2
    assert store.claims() == {}


def test_an_artifact_with_a_missing_file_cannot_be_adopted(store: Store) -> None:
    old = commit(store)
    inside = Inside(store)
    inside.fs.rm_file(inside.file(ADDRESS))
    with pytest.raises(DamagedArtifactError, match="missing"):
        store.adopt(ADDRESS, replace(old, address=OTHER, adopted=ADDRESS.key))
    assert store.committed(["toy_source"]) == {ADDRESS}


def test_where_links_are_impossible_an_adopted_artifact_is_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    store = PosixStore(tmp_path)
    store.prepare()
    old = commit(store)
    monkeypatch.setattr(os, "link", refuse)
    store.adopt(ADDRESS, replace(old, address=OTHER, adopted=ADDRESS.key))
    assert (store.fetch(OTHER) / "sub" / "file.txt").read_text() == "hello"
    assert store.claims() == {}

"""Names of files and records: none leads out of its place, and those of others are left alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import ADDRESS, Inside, attempt, commit

from orchestrator.store import (
    DamagedArtifactError,
    Store,
    UnfitError,
    list_files,
    open_store,
)
from orchestrator.store.posix import PosixStore
from orchestrator.store.records import manifest_to_json
from orchestrator.types import Artifact, Manifest

BAD_NAMES = [
    "/etc/passwd", "../outside", "sub/../../outside", "..", ".", "", "sub//file", "sub/", "./file", "sub\\file", "a\0b",
    "manifest.json", "\udc80",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_manifest_that_names_a_file_elsewhere_is_damaged_and_nothing_is_written(
    store: Store, tmp_path: Path, name: str
) -> None:
    good = commit(store)
    inside = Inside(store)
    before = sorted(path for path in tmp_path.rglob("*"))
    bad = replace(good, files={**good.files, name: (5, "0" * 64)}, upload="0" * 16)
    inside.write(inside.manifest(ADDRESS), manifest_to_json(bad).decode())
    message = f"artifact toy_source/{ADDRESS.key} is damaged: manifest.json names {name!r}"
    again = open_store(store.location)
    found = again.manifests([ADDRESS])[ADDRESS]
    assert isinstance(found, DamagedArtifactError)
    assert str(found).startswith(message)
    with pytest.raises(DamagedArtifactError, match=re.escape(message)):
        again.fetch(ADDRESS)
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("address", [("..", "1" * 32), ("toy_source", "../../outside"), ("a/b", "c"), ("", "c")])
def test_a_manifest_that_refers_to_an_artifact_elsewhere_is_damaged(store: Store, address: tuple[str, str]) -> None:
    good = commit(store)
    inside = Inside(store)
    for refers_to, whole in ((Artifact("my_study.train", "1" * 32), True), (Artifact(*address), False)):
        each = replace(good, refers_to=refers_to, upload=None if inside.posix else "0" * 16)
        inside.write(inside.manifest(ADDRESS), manifest_to_json(each).decode())
        found = open_store(store.location).manifests([ADDRESS])[ADDRESS]
        assert isinstance(found, Manifest) == whole
        assert not whole or found.refers_to == refers_to


@pytest.mark.parametrize("upload", ["../../../../outside", "", "a/b"])
def test_a_manifest_whose_upload_lies_elsewhere_is_damaged(s3: str, tmp_path: Path, upload: str) -> None:
    store = open_store(s3)
    good = commit(store)
    inside = Inside(store)
    kept = tmp_path / "outside"
    kept.mkdir()
    for each in (replace(good, upload=upload), replace(good, upload=None)):
        inside.write(inside.manifest(ADDRESS), manifest_to_json(each).decode())
        with pytest.raises(DamagedArtifactError, match=ADDRESS.key):
            store.fetch(ADDRESS)
    assert kept.is_dir()


@pytest.mark.parametrize("name", ["manifest.json", "sub\\file", "\udc80"])
def test_a_file_that_could_not_be_read_back_is_refused_before_anything_is_published(store: Store, name: str) -> None:
    shown = re.escape(name if name.isprintable() else repr(name))
    manifest = Manifest(ADDRESS, "{}", {name: (1, "0" * 64)}, {"m": 1.0}, 1, 0.5, 100.0, "host", "abc")
    with store.lease(ADDRESS, "driver") as lease:
        (lease.folder / name).write_text("x")
        with pytest.raises(UnfitError, match=shown):
            list_files(lease.folder)
        with pytest.raises(UnfitError, match=shown):
            lease.commit(manifest)
    assert store.committed(["toy_source"]) == set()


def test_unusual_names_that_are_fine_are_kept(store: Store) -> None:
    names = ["..a", "a..", ".hidden", "sub/..b/c", "sub/manifest.json", "a b", "ä", "-x", "C:"]
    with store.lease(ADDRESS, "driver") as lease:
        out = lease.folder
        for name in names:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(name)
        lease.commit(Manifest(ADDRESS, "{}", list_files(out), {"m": 1.0}, 1, 0.5, 100.0, "host", "abc"))
    folder = open_store(store.location).fetch(ADDRESS)
    assert {name: (folder / name).read_text() for name in names} == {name: name for name in names}


def test_names_that_are_not_ours_are_no_artifacts_and_no_records(store: Store) -> None:
    commit(store)
    store.record(attempt(1))
    inside = Inside(store)
    listed = "artifacts" if inside.posix else "manifests"
    for name in (f"{listed}/toy_source/.nfs0001", f"{listed}/toy_source/...json"):
        inside.write(f"{inside.root}/{name}", "x")
    for name in (".nfs0001", "notes.txt", "README", f"{ADDRESS.key}.x.json"):
        inside.write(f"{inside.root}/attempts/toy_source/{name}", "x")
    assert store.committed(["toy_source"]) == {ADDRESS}
    assert store.histories([ADDRESS]) == {ADDRESS: [attempt(1)]}


def test_records_of_somebody_else_are_left_alone(store: Store) -> None:
    store.record(attempt(1))
    inside = Inside(store)
    beside = f"{inside.root}/attempts/{ADDRESS.stage}"
    for name in ("notes.txt", ".nfs0001", "a.b.c.d", "x.y.json", "README", f"{ADDRESS.key}.json"):
        inside.write(f"{beside}/{name}", "{}")
    assert store.histories([ADDRESS]) == {ADDRESS: [attempt(1)]}


def test_a_file_in_the_place_of_an_artifact_or_record_is_none(tmp_path: Path) -> None:
    store = PosixStore(tmp_path / "store")
    store.prepare()
    (store.root / "artifacts" / "s").mkdir()
    (store.root / "artifacts" / "s" / "file").touch()
    (store.root / "artifacts" / "odd").touch()
    (found,) = store.manifests([Artifact("s", "file")]).values()
    assert isinstance(found, DamagedArtifactError)
    assert store.committed(["odd"]) == set()
    (store.root / "attempts" / ADDRESS.stage / f"{ADDRESS.key}.7.json").mkdir(parents=True)
    assert store.histories([ADDRESS]) == {}

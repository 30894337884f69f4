"""Files first, manifest last, published at once; what is torn or altered is noticed. One contract for all stores."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
import shutil
import subprocess
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from orchestrator.store import (
    DamagedArtifactError,
    LostOutputError,
    Store,
    StoreError,
    UnfitError,
    list_files,
    open_store,
    output_folder,
    remedy,
)
from orchestrator.store import scratch as scratch_module
from orchestrator.store.posix import PosixStore
from orchestrator.store.process import this_process
from orchestrator.store.records import manifest_to_json
from orchestrator.types import Artifact, Attempt, Manifest, Outcome

ADDRESS = Artifact("toy_source", "0" * 32)
OTHER = Artifact("toy_source", "1" * 32)


@pytest.fixture(params=["posix", pytest.param("objects", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    place = str(tmp_path / "store") if request.param == "posix" else f"{request.getfixturevalue('s3')}/store"
    store = open_store(place)
    store.prepare()
    return store


class Inside:
    """The files of a store as an outsider sees them."""

    def __init__(self, store: Store) -> None:
        self.fs, self.root = fsspec.core.url_to_fs(store.location, use_listings_cache=False)
        self.posix = isinstance(store, PosixStore)

    def all(self, folder: str) -> list[str]:
        return [str(path) for path in self.fs.find(f"{self.root}/{folder}")]

    def file(self, address: Artifact) -> str:
        (found,) = (path for path in self.all(f"artifacts/{address.stage}/{address.key}") if path.endswith("file.txt"))
        return found

    def manifest(self, address: Artifact) -> str:
        stage, key = address
        tail = f"artifacts/{stage}/{key}/manifest.json" if self.posix else f"manifests/{stage}/{key}.json"
        return f"{self.root}/{tail}"

    def read(self, path: str) -> str:
        return bytes(self.fs.cat_file(path)).decode()

    def write(self, path: str, text: str) -> None:
        self.fs.pipe_file(path, text.encode())


def manifest_of(store: Store, address: Artifact = ADDRESS) -> Manifest | DamagedArtifactError:
    found = store.manifests([address])[address]
    return replace(found, upload=None) if isinstance(found, Manifest) else found


def commit(store: Store, address: Artifact = ADDRESS, text: str = "hello", metric: float = 1.5) -> Manifest:
    scratch = store.scratch(address, "driver")
    (scratch / "sub").mkdir()
    (scratch / "sub" / "file.txt").write_text(text)
    manifest = Manifest(
        address, "{}", list_files(scratch), {"m": metric}, 1, 0.5, 100.0, "host", "abc", None, {"numpy": "2"}
    )
    store.commit(scratch, manifest)
    return manifest


def attempt(number: int, outcome: Outcome = Outcome.FAILED) -> Attempt:
    return Attempt(ADDRESS, "source", number, outcome, 0.1, 1.0, "here", "abc", "ValueError", "no", None, (ADDRESS,))


def test_a_committed_artifact_is_listed_and_its_manifest_reads_back_as_written(store: Store) -> None:
    assert store.committed(["toy_source"]) == set()
    manifest = commit(store)
    assert store.committed(["toy_source", "other"]) == {ADDRESS}
    assert manifest_of(store) == manifest
    assert manifest_of(open_store(store.location)) == manifest
    assert (store.fetch(ADDRESS) / "sub" / "file.txt").read_text() == "hello"


def test_unfinished_work_is_not_listed(store: Store) -> None:
    scratch = store.scratch(ADDRESS, "driver")
    (scratch / "file.txt").write_text("half")
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
    writers = [threading.Thread(target=commit, args=(store,), kwargs={"text": text}) for text in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert store.committed(["toy_source"]) == {ADDRESS}
    assert (store.fetch(ADDRESS) / "sub" / "file.txt").read_text() in texts


def test_an_artifact_made_again_with_other_bytes_is_read_anew(store: Store) -> None:
    commit(store, text="first")
    store.fetch(ADDRESS)
    store.discard(ADDRESS)
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
    scratch = store.scratch(ADDRESS, "driver")
    store.commit(scratch, Manifest(ADDRESS, "{}", {}, {"m": 1.0}, 1, 0.5, 100.0, "host", "abc"))
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


def test_a_step_is_claimed_by_one_holder_at_a_time(store: Store) -> None:
    assert store.claim(ADDRESS, "one 1") is None
    assert store.claim(ADDRESS, "two 2") == "one 1"
    assert store.claim(OTHER, "two 2") is None
    store.renew(ADDRESS, "two 3")
    assert store.claim(ADDRESS, "one 1") == "two 3"
    # Who does not hold it takes it away from nobody.
    store.release(ADDRESS, "one 1")
    store.release(ADDRESS, "two 2")
    assert store.claim(ADDRESS, "one 1") == "two 3"
    store.release(ADDRESS, "two 3")
    store.release(ADDRESS, "two 3")
    assert store.claim(ADDRESS, "three 1") is None
    store.release(ADDRESS)
    store.release(ADDRESS)
    assert store.claim(ADDRESS, "four 1") is None


def test_a_claim_on_what_is_committed_is_swept_and_one_on_work_in_progress_stays(store: Store) -> None:
    commit(store)
    store.claim(ADDRESS, "died before it gave it back")
    store.claim(OTHER, "at work")
    again = open_store(store.location)
    again.prepare()
    assert again.claim(ADDRESS, "next") is None
    assert again.claim(OTHER, "next") == "at work"


def test_of_many_who_claim_a_step_at_once_one_gets_it(store: Store) -> None:
    answers: list[str | None] = []
    threads = [
        threading.Thread(target=lambda name=name: answers.append(store.claim(ADDRESS, f"holder {name}")))
        for name in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count(None) == 1
    assert len(set(answers)) == 2


def test_the_output_of_an_attempt_is_kept_where_the_store_is_and_an_empty_one_is_not(store: Store) -> None:
    store.log_path(ADDRESS, 1).write_text("said something")
    kept = store.keep_log(ADDRESS, 1)
    assert kept is not None
    assert kept.startswith(store.location)
    assert Inside(store).read(kept) == "said something"
    store.log_path(ADDRESS, 2).touch()
    assert store.keep_log(ADDRESS, 2) is None
    assert store.keep_log(ADDRESS, 3) is None


def of_another(folder: Path, **other: object) -> Path:
    """An output folder like this one, of a process that differs in something, with a file in it."""
    me = this_process()
    them = replace(me, **other)  # type: ignore[arg-type]
    spelled = [f"-{each.space}-{each.pid}-{each.started}-" for each in (me, them)]
    path = folder.with_name(folder.name.replace(*spelled)[:-16] + secrets.token_hex(8))
    path.mkdir()
    (path / "file.txt").touch()
    return path


def test_scratch_of_dead_processes_is_swept_and_that_of_living_ones_stays(store: Store) -> None:
    mine = store.scratch(ADDRESS, "driver")
    dead = subprocess.Popen(["true"])
    dead.wait()
    swept = [of_another(mine, pid=dead.pid), of_another(mine, started=1)]
    # A process of another machine or container that has the same number cannot be looked up from here.
    elsewhere = of_another(mine, space="elsewhere", pid=dead.pid)
    unknown = of_another(mine, space="unknown", pid=dead.pid)
    foreign = [mine.with_name(name) for name in (".nfs0001", "notes", f"toy-0-otherhost-{dead.pid}-xyz")]
    for path in foreign:
        path.touch()
    open_store(store.location).prepare()
    assert not any(path.exists() for path in swept)
    assert set(mine.parent.iterdir()) == {mine, elsewhere, unknown, *foreign}
    assert not list((mine.parents[1] / "trash").iterdir())


def test_what_a_driver_left_goes_when_its_run_ends_and_nothing_of_others_does(store: Store) -> None:
    mine = store.scratch(ADDRESS, "driver")
    other = store.scratch(ADDRESS, "another")
    left = of_another(mine, space="another")
    store.drop(mine)
    store.sweep(math.inf, "driver")
    assert not left.exists()
    assert list(mine.parent.iterdir()) == [other]


def test_scratch_without_a_sign_of_life_is_swept_by_our_own_clock_and_a_beating_one_never(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = store.scratch(ADDRESS, "driver")
    still, alive = (of_another(mine, space="elsewhere") for _ in range(2))
    now = 1000.0
    monkeypatch.setattr(scratch_module, "monotonic", lambda: now)
    for _ in range(5):
        assert still.is_dir()
        store.sweep(60.0)
        os.utime(alive, ns=(1, int(now)))
        now += 15.0
    assert not still.exists()
    assert (alive / "file.txt").exists()
    assert mine.is_dir()
    # Sixty seconds later, and not a look earlier.
    for _ in range(4):
        store.sweep(60.0)
        assert alive.is_dir()
        now += 15.0
    store.sweep(60.0)
    assert not alive.exists()


def test_a_pause_of_our_own_is_no_sign_of_anybodys_death(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    still = of_another(store.scratch(ADDRESS, "driver"), space="elsewhere")
    now = 1000.0
    monkeypatch.setattr(scratch_module, "monotonic", lambda: now)
    for _ in range(4):
        store.sweep(60.0)
        now += 3600.0
        assert still.is_dir()
    store.sweep(60.0)
    assert not still.exists()


def test_an_output_folder_shows_life_as_long_as_it_is_written_into(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch_module.heartbeat, "seconds", 0.01)
    monkeypatch.setattr(scratch_module.heartbeat, "_thread", None)
    folder = store.scratch(ADDRESS, "driver")
    for _ in range(3):
        before = folder.stat().st_mtime_ns
        until = time.monotonic() + 400
        while folder.stat().st_mtime_ns == before:
            assert time.monotonic() < until
            time.sleep(0.005)


def pretend(scratch: Path, how: str) -> None:
    """A folder that was swept and revived by its stage, replaced by another one, or is simply gone."""
    shutil.rmtree(scratch)
    if how == "revived":
        scratch.mkdir()
    elif how == "replaced":
        other = scratch.with_name("other")
        other.mkdir()
        scratch.symlink_to(other)
    if how != "gone":
        (scratch / "file.txt").write_text("the rest")


@pytest.mark.parametrize("how", ["revived", "replaced", "gone"])
def test_an_output_folder_that_is_another_one_by_now_is_never_committed(store: Store, how: str) -> None:
    scratch = store.scratch(ADDRESS, "driver")
    (scratch / "first.txt").write_text("the first half")
    files = list_files(scratch)
    pretend(scratch, how)
    for found in (files, list_files(scratch) if how == "revived" else {}):
        with pytest.raises(LostOutputError, match=r"toy_source.* was deleted or replaced"):
            store.commit(scratch, Manifest(ADDRESS, "{}", found, {"m": 1.0}, 1, 0.5, 100.0, "host", "abc"))
    assert store.committed(["toy_source"]) == set()
    store.drop(scratch)
    assert not scratch.is_dir()
    # What was published or dropped needs no confirmation any more.
    store.confirm(scratch)
    commit(store)
    assert store.committed(["toy_source"]) == {ADDRESS}


def test_whatever_a_stage_raises_whose_folder_was_taken_away_it_is_told_of_that(store: Store) -> None:
    def work(lost: bool) -> None:
        with output_folder(store, ADDRESS, "driver") as out:
            if lost:
                pretend(out, "gone")
            (out / "no-such-folder" / "file.txt").write_text("nothing")

    with pytest.raises(LostOutputError) as caught:
        work(lost=True)
    assert isinstance(caught.value.__context__, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        work(lost=False)
    mine = store.scratch(ADDRESS, "driver")
    assert list(mine.parent.iterdir()) == [mine]


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
    out = store.scratch(ADDRESS, "driver")
    (out / name).write_text("x")
    shown = re.escape(name if name.isprintable() else repr(name))
    with pytest.raises(UnfitError, match=shown):
        list_files(out)
    manifest = Manifest(ADDRESS, "{}", {name: (1, "0" * 64)}, {"m": 1.0}, 1, 0.5, 100.0, "host", "abc")
    with pytest.raises(UnfitError, match=shown):
        store.commit(out, manifest)
    assert store.committed(["toy_source"]) == set()


def test_unusual_names_that_are_fine_are_kept(store: Store) -> None:
    names = ["..a", "a..", ".hidden", "sub/..b/c", "sub/manifest.json", "a b", "ä", "-x", "C:"]
    with output_folder(store, ADDRESS, "driver") as out:
        for name in names:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(name)
        store.commit(out, Manifest(ADDRESS, "{}", list_files(out), {"m": 1.0}, 1, 0.5, 100.0, "host", "abc"))
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


def test_a_place_that_cannot_be_written_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="--outputs"):
        PosixStore(tmp_path / "file" / "store").prepare()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "free some space or choose another place"),
        (errno.EDQUOT, "have the quota raised"),
        (errno.EROFS, "mount it writable"),
        (errno.EACCES, "give this user the right"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, "mend that"),
    ],
)
def test_the_remedy_fits_the_trouble(number: int, words: str) -> None:
    said = remedy(OSError(number, os.strerror(number)))
    assert words in said
    assert said.endswith("then give the same command again; nothing is lost")
    assert ("space" in said) is (number in (errno.ENOSPC, errno.EDQUOT))


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


@pytest.mark.parametrize(
    ("uri", "words"),
    [("s3://no-such-bucket/folder", "cannot be reached or written"), ("nosuch://bucket", "nosuch")],
)
def test_an_object_store_that_is_not_there_is_an_error_with_the_remedy(s3: str, uri: str, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        open_store(uri).prepare()


def test_an_object_store_that_does_not_answer_is_an_error_with_the_remedy(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    try:
        with pytest.raises(StoreError, match="check address and credentials"):
            open_store(s3).prepare()
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def spoil(uri: str, fault: str, times: int = 1) -> None:
    """Have the S3 server spoil the next writes below a URI (see `s3_server`)."""
    body = json.dumps({"path": uri.removeprefix("s3://"), "fault": fault, "times": times}).encode()
    urllib.request.urlopen(f"{os.environ['AWS_ENDPOINT_URL']}/faults", body).close()


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


def test_a_commit_whose_answer_is_lost_on_its_way_is_ours_and_complete(s3: str) -> None:
    store = open_store(s3)
    # Asked again, the service says that the manifest is there already; it is the one that was written before.
    spoil(f"{s3}/manifests", "lost answer")
    commit(store)
    assert (store.fetch(ADDRESS) / "sub" / "file.txt").read_text() == "hello"
    found = store.manifests([ADDRESS])[ADDRESS]
    assert isinstance(found, Manifest)
    assert store.inspect(found) is None


def test_an_attempt_whose_answer_is_lost_on_its_way_is_recorded_once(s3: str) -> None:
    store = open_store(s3)
    spoil(f"{s3}/attempts", "lost answer")
    store.record(attempt(1))
    assert store.histories([ADDRESS]) == {ADDRESS: [attempt(1)]}


def test_a_claim_whose_answer_is_lost_on_its_way_is_ours(s3: str) -> None:
    store = open_store(s3)
    spoil(f"{s3}/claims", "lost answer")
    assert store.claim(ADDRESS, "one 1") is None
    assert store.claim(ADDRESS, "two 1") == "one 1"


def test_a_write_that_meets_another_one_is_tried_again(s3: str) -> None:
    store = open_store(s3)
    spoil(f"{s3}/claims", "conflict", times=3)
    assert store.claim(ADDRESS, "one 1") is None
    assert store.claim(ADDRESS, "two 1") == "one 1"


def test_a_service_that_does_not_name_the_failed_condition_is_understood(s3: str) -> None:
    store = open_store(s3)
    assert store.claim(ADDRESS, "one 1") is None
    spoil(s3, "plain 412", times=100)
    assert store.claim(ADDRESS, "two 1") == "one 1"
    commit(store, text="hello")
    commit(store, text="later")
    assert (store.fetch(ADDRESS) / "sub" / "file.txt").read_text() == "hello"


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
    store.discard(ADDRESS)
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


def test_claims_are_listed_with_their_holders(store: Store) -> None:
    assert store.claims() == {}
    store.claim(ADDRESS, "one 1")
    store.claim(Artifact("toy_total", OTHER.key), "two 2")
    store.renew(ADDRESS, "one 2")
    assert store.claims() == {ADDRESS: "one 2", Artifact("toy_total", OTHER.key): "two 2"}


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
    assert not Inside(store).all("scratch")


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
    assert not list((tmp_path / "scratch").iterdir())

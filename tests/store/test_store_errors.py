"""A place that cannot be written, and a service that loses its answers: named with the remedy, or endured."""

from __future__ import annotations

import errno
import json
import os
import urllib.request
from pathlib import Path

import pytest
from store_samples import ADDRESS, attempt, commit

from orchestrator.store import (
    ClaimedError,
    StoreError,
    open_store,
    remedy,
)
from orchestrator.store.posix import PosixStore
from orchestrator.types import Manifest


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
    try:
        with pytest.raises(StoreError, match="check address and credentials"):
            open_store(s3).prepare()
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def spoil(uri: str, fault: str, times: int = 1) -> None:
    """Have the S3 server spoil the next writes below a URI (see `s3_server`)."""
    body = json.dumps({"path": uri.removeprefix("s3://"), "fault": fault, "times": times}).encode()
    urllib.request.urlopen(f"{os.environ['AWS_ENDPOINT_URL']}/faults", body).close()


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
    with store.lease(ADDRESS, "one"):
        with pytest.raises(ClaimedError), store.lease(ADDRESS, "two"):
            pass
        spoil(f"{s3}/claims", "lost answer")
    # Given back, although that answer was lost as well.
    with store.lease(ADDRESS, "two"):
        pass


def test_a_decision_whose_answer_is_lost_on_its_way_is_ours(s3: str) -> None:
    store = open_store(s3)
    with store.lease(ADDRESS, "one") as lease:
        spoil(f"{s3}/claims", "lost answer")
        assert lease.commit(Manifest(ADDRESS, "{}", {}, {"m": 1.0}, 1, 0.5, 100.0, "host", "abc"))
    assert store.committed(["toy_source"]) == {ADDRESS}
    assert store.claims() == {}


def test_a_write_that_meets_another_one_is_tried_again(s3: str) -> None:
    store = open_store(s3)
    spoil(f"{s3}/claims", "conflict", times=3)
    with store.lease(ADDRESS, "one"), pytest.raises(ClaimedError), store.lease(ADDRESS, "two"):
        pass


def test_a_service_that_does_not_name_the_failed_condition_is_understood(s3: str) -> None:
    store = open_store(s3)
    with store.lease(ADDRESS, "one"):
        spoil(s3, "plain 412", times=100)
        with pytest.raises(ClaimedError), store.lease(ADDRESS, "two"):
            pass
    commit(store, text="hello")
    commit(store, text="later")
    assert (store.fetch(ADDRESS) / "sub" / "file.txt").read_text() == "hello"

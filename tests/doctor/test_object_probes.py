"""What `sweep doctor` says of an object store: with conditions on writes, without, and with some that do not hold."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from typing import Any

import pytest
import s3fs

from orchestrator.doctor.examination import Examination, Subject
from orchestrator.doctor.finding import Finding
from orchestrator.doctor.objects import object_probes
from orchestrator.store.object_medium import ObjectMedium

CONDITIONS = ["conditional create", "conditional replace"]


def spoil(uri: str, fault: str) -> None:
    """Have the server spoil all writes into this bucket from now on."""
    body = json.dumps({"path": uri.split("/")[2], "fault": fault, "times": 10**9}).encode()
    with urllib.request.urlopen(f"{os.environ['AWS_ENDPOINT_URL']}/faults", body):
        pass


def examined(uri: str) -> dict[str, Finding]:
    subject = Examination(Subject("store", lambda: object_probes(uri)))
    found = {each.name: each for each in subject.findings(lambda _: None)}
    subject.join(60)
    return found


def left(uri: str) -> list[str]:
    return list(s3fs.S3FileSystem().find(uri.removesuffix("/folder")))


def test_a_service_with_conditions_on_writes_is_all_right_and_is_left_empty(s3: str) -> None:
    found = examined(s3)
    assert {each.state for each in found.values()} == {"ok"}
    assert found.keys() >= {*CONDITIONS, "place", "list after write", "read after write", "copy", "clock", "delete"}
    assert left(s3) == []


def test_a_service_that_ignores_conditions_is_a_warning_that_names_the_one_driver(s3: str) -> None:
    spoil(s3, "no conditions")
    found = examined(s3)
    assert {name for name, each in found.items() if each.state != "ok"} == {"conditional writes"}
    assert "one driver at a time" in found["conditional writes"].remedy
    assert left(s3) == []


def test_a_service_that_looks_and_then_writes_lets_two_win_and_is_wrong(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = ObjectMedium._put

    def look_then_write(self: ObjectMedium, path: str, content: bytes, etag: str | None) -> str:
        found = self.state(path)
        if (found and found[1]) != etag:
            raise FileExistsError(path)
        time.sleep(0.01)
        return str(self.fs.pipe_file(self.path(path), content)["ETag"])

    monkeypatch.setattr(ObjectMedium, "_put", look_then_write)
    found = examined(s3)
    monkeypatch.setattr(ObjectMedium, "_put", put)
    assert [found[name].state for name in CONDITIONS] == ["wrong", "wrong"]
    assert "of 8 at once" in found["conditional create"].seen
    assert left(s3) == []


def test_what_was_written_is_deleted_also_after_an_error(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(s3, "no conditions")

    def fail(*_: Any) -> None:
        raise RuntimeError("the network is gone")

    monkeypatch.setattr(ObjectMedium, "copy", fail)
    monkeypatch.setattr("orchestrator.doctor.objects._Objects.delete", fail)
    found = examined(s3)
    assert found["copy"].state == found["delete"].state == "wrong"
    assert "the network is gone" in found["copy"].seen
    assert left(s3) == []


def test_a_bucket_that_is_not_there_is_told_with_what_to_check(s3: str) -> None:
    found = examined("s3://no-such-bucket/folder")
    assert list(found) == ["place"]
    assert "bucket does not exist" in found["place"].seen
    assert "AWS_ENDPOINT_URL" in found["place"].remedy


def test_objects_that_only_one_driver_may_use_are_a_warning() -> None:
    found = examined(f"memory://doctor-{time.monotonic_ns()}")
    assert [name for name, each in found.items() if each.state != "ok"] == ["conditional writes"]

"""What `sweep doctor` says of a store in a folder, each time with a real cause where one can be had."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import toy_sweep
from command_server import sweep
from small_disk import mounted

from orchestrator.doctor.examination import Examination, Subject
from orchestrator.doctor.file_system import Mount, judge, mount_of
from orchestrator.doctor.finding import Finding
from orchestrator.doctor.folder import folder_probes
from orchestrator.doctor.patient import Patient, admit
from orchestrator.sweep.problems import SweepError


def examined(place: Path) -> dict[str, Finding]:
    """What is found of a store in this process, by name; nothing that was written for it is left."""
    before = sorted(place.parent.rglob("*"))
    subject = Examination(Subject("store", lambda: folder_probes(str(place))))
    found = {each.name: each for each in subject.findings(lambda _: None)}
    subject.join(60)
    assert sorted(place.parent.rglob("*")) == before
    return found


def states(found: dict[str, Finding], state: str) -> list[str]:
    return [name for name, each in found.items() if each.state == state]


def test_the_command_looks_at_all_that_is_there_and_leaves_nothing(tmp_path: Path) -> None:
    done = sweep(tmp_path, "doctor", "out", "--json")
    report = json.loads(done.stdout)
    subjects = list(dict.fromkeys(each["subject"] for each in report["findings"]))
    assert subjects == [f"store {tmp_path / 'out' / 'store'}", "this machine", "services", "cluster"]
    assert done.returncode == (1 if report["wrong"] else 0)
    assert not [each for each in report["findings"] if each["subject"] == subjects[0] and each["state"] == "wrong"]
    assert all(bool(each["remedy"]) == (each["state"] != "ok") for each in report["findings"])
    assert "RAY_ADDRESS is not set" in report["findings"][-1]["seen"]
    assert sorted(tmp_path.iterdir()) == []


def test_lines_fold_to_the_terminal_and_what_is_to_be_done_is_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "afile").touch()
    done = sweep(tmp_path, "doctor", "afile")
    assert done.returncode == 1
    title, line, *_ = done.stdout.splitlines()
    assert title == f"store {tmp_path / 'afile' / 'store'}"
    assert line.startswith("  wrong   place: ")
    assert "→ choose a folder with --outputs" in done.stdout
    assert "wrong" in done.stdout.splitlines()[-1]


def test_a_store_is_named_by_itself_by_its_root_or_by_a_sweep_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "out"
    for given in ("out", "out/store", str(root), f"{root}/store/"):
        patient = admit(given)
        assert Path(patient.store).absolute() == root / "store"
        assert patient.tracking_uri == f"sqlite:///{root}/mlflow.db"
    assert admit("s3://b/f").store == admit("s3://b/f/store").store == "s3://b/f/store"
    path = toy_sweep.write_sweep(tmp_path, f"store: {root}\n{toy_sweep.SWEEP}")
    assert admit(str(path), address="auto") == Patient(str(root / "store"), None, (), "auto")
    assert admit(str(path), outputs="/elsewhere").store == "/elsewhere/store"
    assert admit(outputs="/elsewhere", store="/store").store == "/store"


def test_a_place_that_is_none_is_a_mistake_that_is_named_as_it_was_given() -> None:
    for given, reason in (("s3://name:word@bucket/x", "has a password in it"), ("gs://bucket/x", "gcsfs")):
        with pytest.raises(SweepError, match=f"^URI: .*{reason}"):
            admit(given)
    with pytest.raises(SweepError, match="no such file"):
        admit("nowhere.yaml")


def test_two_places_or_a_change_of_no_sweep_are_mistakes() -> None:
    for option, value in (("outputs", "a"), ("store", "a"), ("overrides", ["axes.seed=[0]"])):
        with pytest.raises(SweepError, match="goes with a sweep file"):
            admit("place", **{option: value})  # type: ignore[arg-type]


def test_a_folder_on_a_disk_keeps_all_that_leases_rely_on(tmp_path: Path) -> None:
    found = examined(tmp_path / "store")
    assert set(states(found, "ok")) >= {
        "place", "rename", "rename, raced", "exclusive create", "sign of life", "listing", "clock", "links", "names",
    }  # fmt: skip
    assert states(found, "wrong") == []


def test_a_folder_that_may_not_be_looked_into_is_told_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As for another user than root, for whom everything is open.
    closed = tmp_path / "closed"
    closed.mkdir()
    really = Path.exists

    def exists(path: Path) -> bool:
        if closed in path.parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really(path)

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", exists)
    monkeypatch.setattr(Path, "mkdir", refuse)
    found = examined(closed / "store")
    assert found["place"].seen == f"{closed} cannot be written: Permission denied"
    assert "give this user the right to it" in found["place"].remedy


@pytest.mark.faults
def test_a_store_in_memory_is_a_warning_and_a_read_only_one_is_wrong(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "64m") as disk:
        assert mount_of(disk / "store" / "deeper") == mount_of(disk)
        found = examined(disk / "store")
        assert states(found, "warning") == ["file system", "room"]
        assert "tmpfs" in found["file system"].seen
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        found = examined(disk / "store")
        assert list(found) == ["place"]
        assert "Read-only file system" in found["place"].seen
        assert found["place"].remedy.startswith("mount it writable")


@pytest.mark.faults
def test_a_store_without_inodes_or_space_is_wrong_and_nothing_else_is_tried(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "64m,nr_inodes=40") as disk:
        found = examined(disk / "store")
        assert states(found, "wrong") == ["room"]
        assert list(found)[-1] == "room"
        assert "inodes" in found["room"].seen
    with mounted(tmp_path / "other", "1m") as disk:
        (disk / "ballast").write_bytes(b"\0" * 1000 * 1024)
        found = examined(disk / "store")
        assert found["room"].state == "wrong"


@pytest.mark.faults
def test_a_container_s_own_layer_is_a_warning_also_when_a_run_starts(tmp_path: Path) -> None:
    layers = [tmp_path / name for name in ("lower", "upper", "work", "merged")]
    for each in layers:
        each.mkdir()
    lower, upper, work, merged = layers
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    tried = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], capture_output=True, text=True
    )
    if tried.returncode:
        pytest.skip(f"no overlay can be mounted here: {tried.stderr.strip()}")
    try:
        found = examined(merged / "store")
        assert states(found, "warning") == ["file system"]
        assert "overlay" in found["file system"].seen
    finally:
        subprocess.run(["umount", "-l", str(merged)], check=True)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("ext4", "rw", ""),
        ("nfs4", "rw,hard,acdirmax=60", ""),
        ("nfs4", "rw,soft", "with the option soft"),
        ("nfs", "rw,hard,actimeo=600", "600 s ago"),
        ("cifs", "rw", "not a POSIX file system"),
        ("fuse.sshfs", "rw", "not a POSIX file system"),
        ("fuse.s3fs", "rw", "a mounted bucket"),
        ("ramfs", "rw", "memory"),
    ],
)
def test_a_kind_of_file_system_is_told_with_what_it_means_for_a_store(kind: str, options: str, said: str) -> None:
    found = judge(Mount("server:/export", "/shared", kind, frozenset(options.split(","))))
    assert found.state == ("warning" if said else "ok")
    assert said in found.seen
    assert found.seen.startswith(f"{kind}, mounted at /shared")


def copying(source: Path, target: Any) -> Path:
    """A rename as a mounted bucket does it: look, copy, delete."""
    target = Path(target)
    if not source.exists():
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(source))
    if target.exists() and any(target.iterdir()):
        raise OSError(errno.ENOTEMPTY, "Directory not empty", str(target))
    time.sleep(0.02)
    shutil.copytree(source, target, dirs_exist_ok=True)
    shutil.rmtree(source)
    return target


def replacing(source: Path, target: Any) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    shutil.rmtree(source)
    return Path(target)


def test_renames_that_are_none_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "rename", copying)
    found = examined(tmp_path / "store")
    assert "inode changed" in found["rename"].seen
    assert found["rename, raced"].state == "wrong"
    assert "two drivers could hold one lease" in found["rename, raced"].seen
    monkeypatch.setattr(Path, "rename", replacing)
    assert "replaces one that is not empty" in examined(tmp_path / "store")["rename"].seen


def test_a_file_system_without_links_folder_times_or_long_names_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.open

    def short(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if len(Path(path).name) > 143:
            raise OSError(errno.ENAMETOOLONG, "File name too long", str(path))
        return really(path, flags, mode, dir_fd=dir_fd)

    def no_link(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(os, "utime", lambda *_: None)
    monkeypatch.setattr(os, "open", short)
    found = examined(tmp_path / "store")
    assert found["links"].state == "warning"
    assert "sweep adopt copies" in found["links"].seen
    assert "taken for dead" in found["sign of life"].seen
    assert "a claim may have one" in found["names"].seen


def test_a_file_server_whose_clock_is_off_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr("orchestrator.doctor.folder.time.time", lambda: now() + 3600)
    found = examined(tmp_path / "store")
    assert found["clock"].state == "warning"
    assert "3,600 s earlier" in found["clock"].seen

"""Output folders: whose process is dead is swept, and what was swept is never committed."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import ADDRESS, commit

from orchestrator.store import (
    LostOutputError,
    Store,
    list_files,
    open_store,
    output_folder,
)
from orchestrator.store import scratch as scratch_module
from orchestrator.store.process import this_process
from orchestrator.types import Manifest


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

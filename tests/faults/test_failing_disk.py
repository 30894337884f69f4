"""A disk that is full or read-only in mid-run stops the sweep with the remedy, and what was published is whole."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import toy_sweep
from drivers import calls, check, finish, start, wait_for
from long_sweep import LONG
from small_disk import mounted
from toy_runs import command

from orchestrator.session import open_session
from orchestrator.types import Artifact

pytestmark = pytest.mark.faults


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "16m") as folder:
        yield folder


def fill(disk: Path) -> None:
    """Until not one byte more can be written."""
    with (disk / "ballast").open("wb", buffering=0) as stream:
        for size in (65536, 4096, 1):
            try:
                while True:
                    stream.write(b"\0" * size)
            except OSError:
                pass


def freeze(disk: Path) -> None:
    """Read-only, whoever writes at the moment."""
    subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
    for _ in range(1000):
        if subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], capture_output=True).returncode == 0:
            return
    raise AssertionError("somebody always writes")


@pytest.mark.parametrize(
    ("strike", "reason"), [(fill, "No space left on device"), (freeze, "Read-only file system")], ids=["full", "frozen"]
)
@pytest.mark.long
def test_a_disk_that_fails_in_mid_run_stops_the_sweep_with_the_remedy_and_the_same_command_goes_on(
    disk: Path, tmp_path: Path, calm: pa.Table, strike: Callable[[Path], None], reason: str
) -> None:
    path = toy_sweep.write_sweep(tmp_path, LONG)
    out = disk / "out"
    line = command(tmp_path, path, "--inline")
    line[line.index("--outputs") + 1] = str(out)
    driver = start(line)
    wait_for(lambda: calls(tmp_path) > 150, driver)
    assert driver.poll() is None
    strike(disk)
    printed, _ = driver.communicate(timeout=400)
    assert driver.returncode == 2, printed
    assert reason in printed
    assert "give the same command again" in printed.replace("\n", " ")
    assert "Traceback" not in printed
    # What was published is whole, whatever the disk did.
    session = open_session(path, outputs=str(out))
    committed = [
        Artifact(each.parent.name, each.name) for each in (Path(session.outputs.store) / "artifacts").glob("*/*")
    ]
    assert 100 < len(committed) < 600
    for address in committed:
        session.store.fetch(address)
    # And it stopped at once: steps are not tried one after another on a disk that takes nothing.
    assert calls(tmp_path) <= len(committed) + 1
    if strike is fill:
        (disk / "ballast").unlink()
    else:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    before = calls(tmp_path)
    finish(tmp_path, out)
    assert calls(tmp_path) == before + 600 - len(committed)
    check(tmp_path, calm, out)

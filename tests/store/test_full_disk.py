"""A full or read-only disk is one clear message; with room again, the same command goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import toy_sweep
from small_disk import mounted

from orchestrator.cli.show_run import run_and_show
from orchestrator.session import open_session
from orchestrator.store import StoreError

pytestmark = pytest.mark.faults


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "100k") as folder:
        yield folder


def test_a_full_disk_stops_the_sweep_and_loses_nothing(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = toy_sweep.write_sweep(tmp_path)
    with pytest.raises(StoreError, match=r"No space left on device.*same command again"):
        run_and_show(open_session(path, outputs=str(disk / "out")), None, True, None)
    # Either the store or the stage itself meets the end of the disk first.
    (reason,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("stopped: ")]
    assert "No space left on device" in reason
    assert "--outputs" in reason
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    session = open_session(path, outputs=str(disk / "out"))
    assert session.schedule.committed.any()
    assert run_and_show(session, None, True, None) == 0
    table = pq.read_table(session.outputs.results)
    assert table["total"].to_pylist() == [4 * x + 2 + y for x in (1, 2, 3) for y in (10, 20)]


def test_a_read_only_disk_is_refused_before_anything_runs(disk: Path, tmp_path: Path) -> None:
    path = toy_sweep.write_sweep(tmp_path)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(StoreError, match="Read-only file system"):
        run_and_show(open_session(path, outputs=str(disk / "out")), None, True, None)

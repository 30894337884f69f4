"""What `sweep doctor` says of a machine as a container may be: little shared memory, few files, no name of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_runs

from orchestrator.doctor import machine
from orchestrator.doctor.devices import Devices, devices, judge
from orchestrator.events import Troubled

#: In namespaces of mounts and of host names.
CONTAINER = 'hostname localhost && mount -t tmpfs -o size=64m tmpfs /dev/shm && ulimit -n 200 && exec "$@"'


@pytest.mark.faults
def test_what_a_bare_container_lacks_is_told_with_its_remedies(tmp_path: Path) -> None:
    described = tmp_path / "typer-0.1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: typer\nVersion: 0.1\n")
    done = subprocess.run(
        [
            "unshare", "--mount", "--uts", "sh", "-c", CONTAINER, "sh",
            sys.executable, "-m", "orchestrator", "doctor", str(tmp_path / "out"), "--json",
        ],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    if "unshare" in done.stderr:
        pytest.skip(f"containers cannot be imitated here: {done.stderr.strip()}; only root may")
    found = {each["name"]: each for each in json.loads(done.stdout)["findings"] if each["subject"] == "this machine"}
    assert done.returncode == 1
    assert found["open files"]["state"] == "wrong"
    assert "ulimit -n 4096" in found["open files"]["remedy"]
    assert found["shared memory"]["state"] == "warning"
    assert "--shm-size" in found["shared memory"]["remedy"]
    assert found["host name"]["state"] == "warning"
    assert found["packages"]["state"] == "wrong"
    assert "typer is 0.1, not >=0.20" in found["packages"]["seen"]


def test_a_clock_before_this_package_was_written_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.clock().state == "ok"
    monkeypatch.setattr(time, "time", lambda: 1e6)
    assert machine.clock().state == "wrong"
    assert machine.clock().seen.startswith("1970-01-12")


def test_a_gpu_that_torch_or_the_driver_cannot_use_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho NVIDIA-SMI has failed >&2\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert judge(devices()).seen == "nvidia-smi fails: NVIDIA-SMI has failed"
    assert judge(Devices()).state == "ok"
    two = Devices(("A100, 550, 80 GiB",) * 2, torch="torch 2 (CUDA 12) can use all of them")
    assert judge(two).seen.startswith("2 × A100, 550, 80 GiB; torch 2")


def test_a_run_tells_by_itself_what_it_sees_at_no_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.doctor import before_run
    from orchestrator.drive import drive

    monkeypatch.setattr(before_run, "open_files", lambda: machine.warning("open files", "only 1,024", "ulimit -n 4096"))
    told: list[str] = []
    session = toy_runs.open_toy(tmp_path)
    drive(session, None, True, None, lambda event: told.append(event.message) if isinstance(event, Troubled) else None)
    assert told == ["open files: only 1,024; ulimit -n 4096"]

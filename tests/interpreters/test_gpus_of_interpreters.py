"""Steps that use GPUs, under the driver's interpreter and another one, take turns at the same devices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from made_interpreters import make_interpreter
from toy_sweep import write_sweep

from orchestrator.drive import drive
from orchestrator.session import open_session

STUDY = """\
import json, os, sys, time
from pathlib import Path

def look(number: int, entry: str, out: Path) -> dict[str, float]:
    time.sleep(0.2)
    seen = {"prefix": sys.prefix, "process": os.getpid(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}
    (out / "seen.json").write_text(json.dumps(seen))
    return {"value": number}
"""
SWEEP = """\
name: devices
question: Who has which device?
axes: {number: [1, 2, 3, 4]}
stages:
  here: {stage: "study:look", config: {number: $number, entry: here}}
  there: {stage: "study:look", config: {number: $number, entry: there}}
results: [there]
tracking: false
"""


@pytest.fixture
def two_gpus() -> Iterator[None]:
    """A local Ray with two logical GPUs."""
    import ray

    from orchestrator.run.executors.ray_start import copies, start_ray

    ray.shutdown()
    start_ray(
        address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, runtime_env=copies()
    )
    yield
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.long
def test_each_step_has_one_device_and_its_process_is_gone_afterwards(tmp_path: Path, two_gpus: None) -> None:
    other = make_interpreter(tmp_path / "other")
    (tmp_path / "study.py").write_text(STUDY)
    runtime: dict[str, Any] = {"here": {"gpus": 1}, "there": {"gpus": 1, "python": other}}
    sweep = write_sweep(tmp_path, f"{SWEEP}runtime: {json.dumps(runtime)}\n")
    session = open_session(sweep, outputs=str(tmp_path / "out"))
    assert drive(session) == 0
    seen: dict[str, list[dict[str, Any]]] = {}
    for name, entry in session.plan.by_entry.items():
        folders = [session.store.fetch(session.plan.address(number)) for number in entry.steps]
        seen[name] = [json.loads((folder / "seen.json").read_text()) for folder in folders]
    assert {each["prefix"] for each in seen["there"]} == {str(tmp_path / "other")}
    assert not {each["prefix"] for each in seen["here"]} & {str(tmp_path / "other")}
    for each in seen["here"] + seen["there"]:
        assert each["gpus"] in ("0", "1")
    # Only a process that ends gives back all memory of its GPU.
    assert len({each["process"] for each in seen["there"]}) == 4
    assert not any(psutil.pid_exists(each["process"]) for each in seen["there"])

"""Ctrl-C in a notebook leaves a state from which the same call goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import toy_sweep
from toy_runs import environment

from orchestrator import open_sweep

SCRIPT = Path(__file__).with_name("as_a_notebook.py")


def interrupted(folder: Path, *how: str) -> dict[str, Any]:
    """What the notebook says, which is interrupted in the middle of its run; it prints nothing else."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), *how],
        env=environment(), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=400)
    assert (process.returncode, errors) == (0, "")
    facts: dict[str, Any] = json.loads(printed)
    return facts


def check(facts: dict[str, Any], folder: Path) -> None:
    assert facts["to_run"] == 4
    # Python's own has no words: it may arrive while the notebook reports progress.
    assert facts["interrupted"] in ("what was running is abandoned, the rest is kept; run() goes on", "")
    assert (facts["restored"], facts["children"], facts["live"]) == (True, [], False)
    assert 0 <= facts["then"].get("succeeded", 0) == facts["in_the_table"] <= 4
    assert facts["finished"]
    calm = open_sweep(toy_sweep.write_sweep(folder, toy_sweep.SLOW), ["axes.x=[1, 2]"], outputs=folder / "calm")
    assert calm.run(inline=True).finished
    assert facts["rows"] == calm.table().select(list(facts["rows"][0])).to_pylist()


@pytest.mark.faults
def test_a_notebook_goes_on_after_ctrl_c(tmp_path: Path) -> None:
    facts = interrupted(tmp_path, "inline")
    # At most the step that was in flight ran twice.
    assert len((tmp_path / "toy-trace").read_text().splitlines()) in (12, 12 + 1)
    check(facts, tmp_path)


@pytest.mark.ray
@pytest.mark.mlflow
@pytest.mark.long
def test_a_notebook_goes_on_after_ctrl_c_over_ray(tmp_path: Path) -> None:
    check(interrupted(tmp_path), tmp_path)

"""A study outside of this repository, with a module of stages beside its sweep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import read_results

STAGES = """\
from pathlib import Path

from workers.config import Config
from workers.stage import Input, Stage


class DrawConfig(Config):
    number: float

    def metrics(self):
        return ()


class SquareConfig(Config):
    plus: float = 0

    def metrics(self):
        return ("square",)


STAGES = {
    "draw": Stage("own_work.draw:draw", 1, DrawConfig, "number"),
    "square": Stage("own_work.square:square", 1, SquareConfig, "squares", {"number": Input("number")}),
}
"""
DRAW = """\
def draw(config, out):
    (out / "number.txt").write_text(str(config.number))
    return {}
"""
SQUARE = """\
def square(config, out, *, number):
    (out / "square.txt").write_text("done")
    return {"square": float((number / "number.txt").read_text()) ** 2 + config.plus}
"""
SWEEP = """\
name: squares
question: Do stages of one's own run like ours?
uses: [own_work.stages]
namespace: own-work
axes: {number: [1, 2, 3], plus: [0, 1]}
stages:
  draw: {config: {number: $number}}
  square: {inputs: {number: draw}, config: {plus: $plus}}
tracking: false
"""


@pytest.mark.parametrize("inline", [True, pytest.param(False, marks=pytest.mark.ray)], ids=["inline", "ray"])
def test_a_study_of_its_own_runs_from_any_folder_and_has_nothing_to_do_afterwards(tmp_path: Path, inline: bool) -> None:
    package = tmp_path / "study" / "own_work"
    package.mkdir(parents=True)
    for name, content in {"__init__": "", "stages": STAGES, "draw": DRAW, "square": SQUARE}.items():
        (package / f"{name}.py").write_text(content)
    sweep = tmp_path / "study" / "squares.yaml"
    sweep.write_text(SWEEP)
    (tmp_path / "elsewhere").mkdir()
    command = [sys.executable, "-m", "orchestrator", "run", str(sweep), "--outputs", str(tmp_path / "out")]
    command += ["--inline"] if inline else []
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run() -> str:
        done = subprocess.run(
            command, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run()
    table = read_results(tmp_path / "out" / "sweeps" / "squares")
    assert table["square"].to_pylist() == [1, 2, 4, 5, 9, 10]
    assert "nothing to do: all 6 cells are finished" in run()

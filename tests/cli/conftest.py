"""Fixtures of the tests of commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import toy
import toy_sweep
from submissions import REPOSITORY, SWEEP

#: A module of stages beside the sweep is all that a person needs; this one traces where the test looks.
TRACED = """

os.environ["TOY_TRACE"] = {trace!r}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A working directory with the packages of the repository, a module of toy stages, and a toy sweep."""
    folder = tmp_path / "checkout"
    for name in ("orchestrator", "workers"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    stages = Path(toy.__file__).read_text() + TRACED.format(trace=str(tmp_path / "toy-trace"))
    (folder / "toy.py").write_text(stages)
    toy_sweep.write_sweep(folder, SWEEP)
    return folder

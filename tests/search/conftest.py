"""A search and a grid that are finished; and where the bowls of `search_toy` write down what they compute."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import search_runs
import toy_sweep


@pytest.fixture(scope="session")
def _searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOY_TRACE", str(folder / "toy-trace"))
        search_runs.run(folder, toy_sweep.SEARCH)
    return folder


@pytest.fixture(scope="session")
def _measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOY_TRACE", str(folder / "toy-trace"))
        search_runs.run(folder, toy_sweep.GRID, "grid.yaml")
    return folder


@pytest.fixture
def measured(_measured: Path, tmp_path: Path) -> Path:
    """A folder with `toy_sweep.GRID` as grid.yaml, finished in the outputs `out`."""
    shutil.copytree(_measured, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def searched(_searched: Path, tmp_path: Path) -> Path:
    """A folder with `toy_sweep.SEARCH` as tune.yaml, finished in the outputs `out`."""
    shutil.copytree(_searched, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(autouse=True)
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOWL_TRACE", str(tmp_path / "trace"))
    return tmp_path / "trace"

"""Fixtures of the fault tests."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pytest
import toy_sweep
from long_sweep import LONG, calm_table


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The table of `LONG` when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("calm") / "long"
    table = calm_table(folder, LONG)
    shutil.rmtree(folder)
    return table


@pytest.fixture(scope="session")
def calm_toy(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The table of the toy sweep when nothing goes wrong."""
    return calm_table(tmp_path_factory.mktemp("calm") / "toy", toy_sweep.SWEEP)

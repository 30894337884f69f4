"""Fixtures of the fault tests."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy
from long_sweep import COLUMNS, LONG

from orchestrator.drive import drive
from orchestrator.session import open_session


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The table of `LONG` when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("calm")
    session = open_session(toy.write_sweep(folder, LONG), outputs=str(folder / "out"))
    assert drive(session, None, True, None) == 0
    table = pq.read_table(session.outputs.results, columns=COLUMNS)
    shutil.rmtree(folder)
    return table

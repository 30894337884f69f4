"""Fixtures of the tests of stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.store import (
    Store,
    open_store,
)


@pytest.fixture(params=["posix", pytest.param("objects", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    place = str(tmp_path / "store") if request.param == "posix" else f"{request.getfixturevalue('s3')}/store"
    store = open_store(place)
    store.prepare()
    return store

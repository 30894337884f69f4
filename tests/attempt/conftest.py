"""Fixtures of the tests of attempts."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.store import Store
from orchestrator.store.posix import PosixStore


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = PosixStore(tmp_path / "store")
    store.prepare()
    return store

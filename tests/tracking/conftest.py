"""Fixtures of the tests of MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest
from tracked_sweep import opened, posted, table_of

from orchestrator.cli.show_run import run_and_show
from orchestrator.session import Session
from orchestrator.tracking.outbox import Outbox


@pytest.fixture(scope="session")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A finished sweep of which MLflow has nothing: 6 cells succeeded, 6 failed."""
    folder = tmp_path_factory.mktemp("untracked")
    assert run_and_show(opened(folder, "tracking=false"), None, True, None) == 1
    return opened(folder)


@pytest.fixture
def outbox(untracked: Session, tmp_path: Path) -> Outbox:
    """An outbox that holds that sweep."""
    outbox = Outbox(tmp_path / "outbox")
    assert posted(untracked, outbox, table_of(untracked)) == 12
    return outbox

"""Fixtures of the tests of judges behind an endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from endpoint_server import KEY, Server

from workers import tables


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("SWEEP_ANSWERS", str(tmp_path / "answers"))
    monkeypatch.setenv("JUDGE_KEY", KEY)
    monkeypatch.setenv("SWEEP_ACCOUNT", "study/judge")
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    columns = {
        "prompt": [f"\n\nHuman: {i}?\n\nAssistant:" for i in range(3)],
        "chosen": [" Yes."] * 3,
        "rejected": [" No."] * 3,
        "subset": [""] * 3,
    }
    tables.PREFERENCES.write(columns, tmp_path)
    return tmp_path

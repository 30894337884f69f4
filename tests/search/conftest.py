from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the bowls of `search_toy` write down what they compute."""
    monkeypatch.setenv("BOWL_TRACE", str(tmp_path / "trace"))
    return tmp_path / "trace"

"""Searches over toy stages beside other sweeps, all in one folder with the outputs `out`."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy_sweep

from orchestrator.cli.show_run import run_and_show
from orchestrator.session import Session, open_session
from orchestrator.sweep.problems import SweepError


def opened(folder: Path, text: str, name: str = "tune.yaml") -> Session:
    return open_session(toy_sweep.write_sweep(folder, text, name), outputs=str(folder / "out"))


def run(folder: Path, text: str, name: str = "tune.yaml", code: int = 0) -> Session:
    session = opened(folder, text, name)
    assert run_and_show(session, None, True, None) == code
    return session


def mistakes(folder: Path, text: str, name: str = "tune.yaml") -> list[str]:
    with pytest.raises(SweepError) as caught:
        opened(folder, text, name)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def edited(text: str, *edits: tuple[str, str]) -> str:
    for before, after in edits:
        assert before in text
        text = text.replace(before, after)
    return text

"""What a live page is about: a toy sweep and its session."""

from __future__ import annotations

from pathlib import Path

import toy_sweep

from dashboards.live.watch import Subject
from orchestrator.session import Session, open_session


def opened(subject: Subject) -> Session:
    return open_session(subject.file, list(subject.overrides), outputs=subject.outputs)


def planned(folder: Path, text: str = toy_sweep.SWEEP) -> Subject:
    """A sweep that was never run."""
    return Subject(toy_sweep.write_sweep(folder, text), outputs=str(folder / "out"))

"""Runs of a toy sweep, in this process or as a command in one of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pyarrow.parquet as pq
import toy_sweep

from orchestrator.cli.show_run import run_and_show
from orchestrator.session import Session, open_session


def open_toy(folder: Path, *overrides: str, text: str = toy_sweep.SWEEP) -> Session:
    return open_session(toy_sweep.write_sweep(folder, text), list(overrides), outputs=str(folder / "out"))


def run_inline(folder: Path, *overrides: str, text: str = toy_sweep.SWEEP) -> tuple[int, Session]:
    session = open_toy(folder, *overrides, text=text)
    return run_and_show(session, None, True, None), session


def rows(session: Session) -> list[dict[str, object]]:
    return pq.read_table(session.outputs.results).to_pylist()  # type: ignore[no-any-return]


def attempts_made(session: Session) -> int:
    """How often a stage was called, by whatever process, since the test began."""
    return len((session.file.parent / "toy-trace").read_text().splitlines())


def command(folder: Path, path: Path, *options: str) -> list[str]:
    """`sweep run` in a process of its own, which knows the toy stages."""
    # A shell that runs the tests in the background has them ignore SIGINT, which children inherit.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{listen}; import toy; from orchestrator.cli import main; main()"
    return [sys.executable, "-c", code, "run", str(path), "--outputs", str(folder / "out"), *options]


def environment() -> dict[str, str]:
    """What `command` needs."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}

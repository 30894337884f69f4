"""Drivers that tests disturb, each a process of its own, and the check of what they leave."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from toy_runs import command, environment

from orchestrator.session import Session, open_session
from orchestrator.types import Artifact


def check(folder: Path, calm: pa.Table, outputs: Path | None = None) -> Session:
    """Finished; the calm table, made of what the store has; each artifact is there once and whole; nothing is left."""
    session = open_session(folder / "toy.yaml", outputs=str(outputs or folder / "out"))
    assert session.schedule.done
    table = pq.read_table(session.outputs.results)
    assert len(set(table["cell_id"].to_pylist())) == table.num_rows == calm.num_rows
    assert table.select(calm.column_names).equals(calm)
    # Artifacts come first in the order of truth: a table that is made again is the same one.
    assert table.to_pylist() == session.results().table().to_pylist()
    store = Path(session.outputs.store)
    addresses = {session.plan.address(number) for number in range(len(session.plan))}
    assert {Artifact(path.parent.name, path.name) for path in (store / "artifacts").glob("*/*")} == addresses
    for address in addresses:
        session.store.fetch(address)
    assert not list((store / "claims").rglob("*/*"))
    return session


def calls(folder: Path) -> int:
    """How often a stage was called so far, by whatever process."""
    trace = folder / "toy-trace"
    return len(trace.read_text().splitlines()) if trace.exists() else 0


def wait_for(condition: Callable[[], object], driver: subprocess.Popen[str], seconds: float = 400) -> None:
    """Until a condition holds, or the driver has ended."""
    until = time.monotonic() + seconds
    while not condition() and driver.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.005)


def start(line: list[str], folder: Path | None = None, **more: str) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    return subprocess.Popen(
        line, env={**environment(), **more}, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(folder: Path, outputs: Path | None = None, **more: str) -> str:
    """The same command, undisturbed; returns what it printed."""
    line = command(folder, folder / "toy.yaml", "--inline")
    if outputs:
        line[line.index("--outputs") + 1] = str(outputs)
    driver = start(line, **more)
    printed, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, printed
    return printed

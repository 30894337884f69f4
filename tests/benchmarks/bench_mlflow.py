"""`python tests/benchmarks/bench_mlflow.py [FILE]`: how fast MLflow is told of the paper's grid, on two cores.

Prints a table and writes the same as JSON (`outputs/bench_mlflow.json`, or FILE). The results are made up, MLflow and
its server are real. `--keep FOLDER` leaves the SQLite database with all runs there, to be looked at with `mlflow ui`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from servers import free_port, wait_until_it_answers  # noqa: E402

from orchestrator.analysis.summary import summarise  # noqa: E402
from orchestrator.results.metrics import reported_metrics  # noqa: E402
from orchestrator.results.parquet import write_results  # noqa: E402
from orchestrator.session import Session, open_session  # noqa: E402
from orchestrator.tracking.experiment import experiment_of  # noqa: E402
from orchestrator.tracking.outbox import Outbox  # noqa: E402
from orchestrator.tracking.runs import Projection  # noqa: E402
from orchestrator.tracking.sync import sync_runs  # noqa: E402

#: Of the 12,960; a server is asked three times a cell.
THROUGH_A_SERVER = 300


def made_up(session: Session, seed: int = 0) -> pa.Table:
    """A results table in which every cell but one of a hundred succeeded."""
    empty = session.results().table()
    chance = np.random.default_rng(seed)
    count = empty.num_rows
    failed = chance.random(count) < 0.01
    columns: dict[str, Any] = {name: empty[name] for name in empty.column_names}
    for name in reported_metrics(empty):
        columns[name] = pa.array(chance.random(count), pa.float64(), mask=failed)
    columns["status"] = pa.array(np.where(failed, "failed", "succeeded").tolist(), pa.string())
    columns["error_class"] = pa.array(["ValueError"] * count, pa.string(), mask=~failed)
    columns["error"] = pa.array(["made up"] * count, pa.string(), mask=~failed)
    columns["seconds"] = pa.array(chance.random(count) * 100)
    columns["attempts"] = pa.array([1] * count, pa.int64())
    columns["code_commit"] = pa.array(["0123456789ab"] * count, pa.string())
    return pa.Table.from_pydict(columns, schema=empty.schema)


def outbox_with(session: Session, folder: Path, table: pa.Table, cells: list[int]) -> Outbox:
    """An outbox that holds some rows of a table."""
    outbox = Outbox(folder)
    outbox.post(Projection(session.plan).runs(table.take(cells), cells))
    return outbox


def through_a_server(session: Session, folder: Path, table: pa.Table) -> tuple[float, float]:
    """Cells per second through `mlflow server` as it comes, and seconds of computing per cell, here and there."""
    port = free_port()
    place = folder / "server"
    place.mkdir()
    server = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
            "--backend-store-uri", f"sqlite:///{place / 'mlflow.db'}", "--artifacts-destination", str(place / "a"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        uri = f"http://127.0.0.1:{port}"
        wait_until_it_answers(f"{uri}/health", server)
        # What it starts beside itself computes for seconds.
        busy = 1.0
        while busy > 0.2:
            before = _computing(server.pid)
            time.sleep(2)
            busy = _computing(server.pid) - before
        cells = sorted(random.Random(0).sample(range(table.num_rows), THROUGH_A_SERVER))
        outbox = outbox_with(session, place / "outbox", table, cells)
        experiment = experiment_of(Projection(session.plan), session.file, session.outputs, uri)
        marks: list[tuple[float, float]] = []

        def note(done: int, total: int) -> None:
            if total and done in (1, total):
                marks.append((time.perf_counter(), time.process_time() + _computing(server.pid)))

        sync_runs(outbox, experiment, note)
        wall, computing = (marks[1][each] - marks[0][each] for each in (0, 1))
        return (THROUGH_A_SERVER - 1) / wall, computing / (THROUGH_A_SERVER - 1)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _computing(pid: int) -> float:
    """Seconds of computing of a process and all below it."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(each.cpu_times()[:2]) for each in family)


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("target", nargs="?", default="outputs/bench_mlflow.json", type=Path)
    options.add_argument("--keep", type=Path)
    options.add_argument("--no-server", action="store_true")
    chosen = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-mlflow-"))
    place = chosen.keep or folder
    rows: list[dict[str, Any]] = []

    def note(what: str, value: float, unit: str, goal: str = "", met: bool | None = None) -> None:
        rows.append({"what": what, "value": round(value, 4), "unit": unit, "goal": goal, "met": met})
        print(f"{what}: {value:.4g} {unit} {goal}", flush=True)

    try:
        session = open_session(REPOSITORY / "sweeps" / "full.yaml", outputs=str(place))
        table = made_up(session)
        write_results(table, session.outputs.results)
        projection, cells = Projection(session.plan), list(range(table.num_rows))
        _ = projection.owners
        before = time.process_time()
        session.results().rows(cells)
        outbox = outbox_with(session, session.outputs.outbox, table, cells)
        each = (time.process_time() - before) / len(cells)
        note(
            "a cell into the outbox: computing in the driver",
            each * 1000,
            "ms",
            "≤0.25: a tenth of 400/s",
            each < 25e-5,
        )
        note("… bytes per cell", outbox.journal.offset / len(cells), "B")
        uri = f"sqlite:///{place / 'mlflow.db'}"
        experiment = experiment_of(projection, session.file, session.outputs, uri, summarise(table, session.spec))
        # Its tables are made, which takes MLflow some seconds, once.
        sync_runs(Outbox(folder / "nothing"), experiment)
        before, computing = time.perf_counter(), time.process_time()
        sync_runs(outbox, experiment)
        seconds = time.perf_counter() - before
        note("into SQLite, 12,960 cells", len(cells) / seconds, "cells/s", "≥40", len(cells) / seconds >= 40)
        note("… computing", (time.process_time() - computing) / len(cells) * 1000, "ms a cell")
        before = time.perf_counter()
        synced = sync_runs(outbox, experiment)
        assert synced.unchanged == len(cells), synced
        note("the same again (sweep sync)", time.perf_counter() - before, "s")
        if not chosen.no_server:
            rate, each = through_a_server(session, folder, table)
            note(f"through mlflow server, {THROUGH_A_SERVER} cells", rate, "cells/s", "≥20", rate >= 20)
            # What is left where others compute, too: two cores give 2 s each second.
            note("… computing, client and server", each * 1000, "ms a cell", "≤100", each <= 0.1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    load = os.getloadavg()[0]
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "cores": os.cpu_count(),
            "load": round(load, 1),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "rows": rows,
    }
    chosen.target.parent.mkdir(parents=True, exist_ok=True)
    chosen.target.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    shown = Table("what", "measured", "", "to reach", "", box=None)
    for row in rows:
        shown.add_row(
            row["what"], f"{row['value']:.4g}", row["unit"], row["goal"], {True: "yes", False: "NO"}.get(row["met"], "")
        )
    Console().print(shown)
    print(f"load {load:.1f} on {os.cpu_count()} cores; written to {chosen.target}")


if __name__ == "__main__":
    main()

"""The toy sweep with MLflow: its commands, and the checks of its table and of its runs in MLflow."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy_sweep
from long_sweep import COLUMNS

from orchestrator.cli.show_run import run_and_show
from orchestrator.cli.sync import synchronise
from orchestrator.session import Session, open_session
from orchestrator.tracking.experiment import experiment_of
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.publisher import post_table
from orchestrator.tracking.runs import Projection
from orchestrator.tracking.sync import Synced, sync_runs


def opened(folder: Path, *overrides: str) -> Session:
    """The toy sweep, with an experiment of its own on the server that the tests share."""
    text = toy_sweep.SWEEP.replace("tracking: false", f"tracking: {{experiment: {folder.name}}}")
    return open_session(toy_sweep.write_sweep(folder, text), list(overrides), outputs=str(folder / "out"))


def run(folder: Path, uri: str | None, *overrides: str) -> float:
    """The run command; it ends with 0, as without MLflow. Returns its seconds."""
    started = time.monotonic()
    assert run_and_show(opened(folder, *overrides), None, True, uri) == 0
    return time.monotonic() - started


def sync(folder: Path, uri: str | None) -> bool:
    """The sync command; whether MLflow has everything now."""
    session = opened(folder)
    return synchronise(session, session.results().table(), uri)


def tell_directly(folder: Path, uri: str) -> Callable[[], Synced]:
    """What `sweep sync` does, for a sweep that was run without MLflow."""
    run(folder, None, "tracking=false")
    session = opened(folder)
    outbox, projection = Outbox(session.outputs.outbox), Projection(session.plan)
    table = session.results().table()
    post_table(projection, outbox, session.store, session.schedule.committed, table, exact=True)
    return lambda: sync_runs(outbox, experiment_of(projection, session.file, session.outputs, uri))


def check_sweep(folder: Path, calm: pa.Table) -> None:
    """The sweep is finished, its table is the calm one, and every step was computed and committed once."""
    session = opened(folder)
    assert session.schedule.done
    assert pq.read_table(session.outputs.results, columns=COLUMNS).equals(calm)
    assert len(list((Path(session.outputs.store) / "artifacts").glob("*/*"))) == len(session.plan) == 18
    assert len((folder / "toy-trace").read_text().splitlines()) == 18


def check_mlflow(folder: Path, uri: str, *overrides: str) -> None:
    """MLflow has one ended run per cell, with the table's number, one per group, and one of the sweep; nothing else."""
    import mlflow

    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(folder.name)
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    session = opened(folder, *overrides)
    table = pq.read_table(session.outputs.results).to_pylist()
    groups = len(session.spec.labels("x"))
    assert Counter(run.data.tags["sweep.kind"] for run in found) == {"cell": len(table), "group": groups, "sweep": 1}
    assert {run.info.status for run in found} == {"FINISHED"}
    cells = {run.data.tags["sweep.cell_id"]: run for run in found if run.data.tags["sweep.kind"] == "cell"}
    for column, shown in (("total", "metrics"), ("key", "tags")):
        name = {"key": "sweep.key"}.get(column, column)
        assert {id_: getattr(run.data, shown)[name] for id_, run in cells.items()} == {
            row["cell_id"]: row[column] for row in table
        }
    names = {run.info.run_id: run.info.run_name for run in found}
    for each in cells.values():
        assert names[each.data.tags["mlflow.parentRunId"]] == f"x={each.data.params['x']}"


def check_that_it_was_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The person who runs the sweep knows that MLflow lags behind, and the command that mends it."""
    printed = capsys.readouterr().out
    assert "MLflow" in printed
    assert re.search(r"then: .* sync ", printed), printed


def writers(folder: Path) -> list[psutil.Process]:
    """The processes that tell MLflow of a sweep."""
    place = str(opened(folder).outputs.outbox)
    found = []
    for process in psutil.process_iter():
        try:
            if place in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found

"""A sweep of which half the cells fail, and what MLflow shows of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import toy_sweep
from servers import put_mlflow_database

from orchestrator.cli.show_run import run_and_show
from orchestrator.session import Session, open_session
from orchestrator.tracking.experiment import Experiment, experiment_of
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.publisher import post_table
from orchestrator.tracking.runs import Projection, Run

TEXT = (
    toy_sweep.SWEEP.replace("tracking: false\n", "")
    .replace("plain: {behaviour: work}", "plain: {behaviour: work}\n    bad: {behaviour: raise}")
    .replace("question: Does adding work?", "question: Does adding work?\ndata: {path: data.txt}")
    .replace("[{add: $y}, $kind]", "[{add: $y, marker: $data.sha256}, $kind]")
)


def opened(folder: Path, *overrides: str) -> Session:
    (folder / "data.txt").write_text("one two")
    return open_session(toy_sweep.write_sweep(folder, TEXT), list(overrides), outputs=str(folder / "out"))


def finished(folder: Path, uri: str | None = None) -> tuple[Session, int]:
    session = opened(folder)
    put_mlflow_database(folder / "out" / "mlflow.db")
    return session, run_and_show(session, None, True, uri)


def posted(session: Session, outbox: Outbox, table: pa.Table, exact: bool = True) -> int:
    """Post a table; how much of it changed."""
    return post_table(Projection(session.plan), outbox, session.store, session.schedule.committed, table, exact)


def experiment_at(session: Session, uri: str) -> Experiment:
    return experiment_of(Projection(session.plan), session.file, session.outputs, uri)


def table_of(session: Session) -> pa.Table:
    return pq.read_table(session.outputs.results)


def all_runs(uri: str, name: str = "toy") -> list[Any]:
    import mlflow

    client = mlflow.MlflowClient(uri)
    return list(client.search_runs([client.get_experiment_by_name(name).experiment_id], max_results=1000))


def runs(uri: str, kind: str = "cell") -> list[Any]:
    return [run for run in all_runs(uri) if run.data.tags.get("sweep.kind") == kind]


def check(uri: str) -> None:
    """One ended run per cell, per group and for the sweep; each below its own."""
    found = all_runs(uri)
    assert Counter(run.data.tags.get("sweep.kind") for run in found) == {"cell": 12, "group": 3, "sweep": 1}
    assert len({run.data.tags["sweep.cell_id"] for run in runs(uri)}) == 12
    assert Counter(run.info.status for run in runs(uri)) == {"FINISHED": 6, "FAILED": 6}
    assert {run.info.status for run in found} == {"FINISHED", "FAILED"}
    (whole,) = runs(uri, "sweep")
    groups = {run.info.run_id: run for run in runs(uri, "group")}
    assert {run.data.tags["mlflow.parentRunId"] for run in groups.values()} == {whole.info.run_id}
    for run in runs(uri):
        assert groups[run.data.tags["mlflow.parentRunId"]].data.tags["sweep.group"] == f"x={run.data.params['x']}"


def shown(uri: str) -> set[str]:
    """All that can be known of the runs, whichever way they were written, without what differs by nature."""
    found = all_runs(uri)
    names = {run.info.run_id: run.info.run_name for run in found}
    spelled = set()
    for run in found:
        tags = dict(run.data.tags)
        tags["mlflow.parentRunId"] = names.get(tags.get("mlflow.parentRunId", ""), "")
        tags.pop("sweep.store", None)
        info = (run.info.status, run.info.lifecycle_stage, run.info.user_id)
        times = (run.info.start_time, run.info.end_time) if tags["sweep.kind"] in ("cell", "step") else ()
        facts = [sorted(each.items()) for each in (tags, run.data.params, run.data.metrics)]
        spelled.add(str([names[run.info.run_id], facts, info, times]))
    return spelled


def step_run(steps: int = 1200) -> Run:
    """A long step with its training curve, longer than one call of MLflow takes."""
    curve = tuple((metric, step, step / 7) for step in range(steps) for metric in ("loss", "grad_norm"))
    tags = {"sweep.kind": "step", "sweep.id": "step:0123", "sweep.entry": "sft"}
    return Run(
        "step:0123", "sft policy=tiny", ("training sft",), True, 10.0, 70.0, {"x": "1"}, {"seconds": 60.0}, tags, curve
    )

"""The same command makes MLflow right again, whatever was interrupted, changed or lost: no run is there twice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from servers import put_mlflow_database
from tracked_sweep import all_runs, check, experiment_at, opened, posted, runs, table_of

from orchestrator.cli.show_run import run_and_show
from orchestrator.plan.select import select
from orchestrator.session import Session
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.sync import Synced, sync_runs

pytestmark = pytest.mark.mlflow


def test_a_second_synchronisation_writes_nothing(untracked: Session, outbox: Outbox, tmp_path: Path) -> None:
    uri = put_mlflow_database(tmp_path / "mlflow.db")
    assert sync_runs(outbox, experiment_at(untracked, uri)) == Synced(12, 0, 0)
    before = {run.info.run_id: run.to_dictionary() for run in all_runs(uri)}
    assert sync_runs(Outbox(outbox.folder), experiment_at(untracked, uri)) == Synced(0, 12, 0)
    assert {run.info.run_id: run.to_dictionary() for run in all_runs(uri)} == before
    # Nor if nobody remembers what was sent.
    for path in outbox.folder.glob("sent-*"):
        path.unlink()
    assert sync_runs(Outbox(outbox.folder), experiment_at(untracked, uri)) == Synced(0, 12, 0)
    assert {run.info.run_id for run in all_runs(uri)} == before.keys()
    check(uri)


def test_a_changed_row_replaces_its_run_and_no_other(untracked: Session, outbox: Outbox, tmp_path: Path) -> None:
    uri = put_mlflow_database(tmp_path / "mlflow.db")
    sync_runs(outbox, experiment_at(untracked, uri))
    before = {run.data.tags["sweep.cell_id"]: run.info.run_id for run in runs(uri)}
    table = table_of(untracked)
    column = table.column_names.index("total")
    values = pa.array([99.0, *table["total"].to_pylist()[1:]], pa.float64())
    changed = table.set_column(column, table.schema.field("total"), values)
    assert posted(untracked, outbox, changed) == 1
    assert sync_runs(outbox, experiment_at(untracked, uri)) == Synced(0, 11, 1)
    check(uri)
    after = {run.data.tags["sweep.cell_id"]: run for run in runs(uri)}
    first = table["cell_id"][0].as_py()
    assert after[first].data.metrics["total"] == 99.0
    assert {id_ for id_, run in after.items() if run.info.run_id != before[id_]} == {first}


def test_cells_that_are_pending_again_or_no_longer_in_the_sweep_are_shown_no_more(
    untracked: Session, outbox: Outbox, tmp_path: Path
) -> None:
    uri = put_mlflow_database(tmp_path / "mlflow.db")
    sync_runs(outbox, experiment_at(untracked, uri))
    table = table_of(untracked)
    column = table.column_names.index("status")
    statuses = pa.array(["pending", *table["status"].to_pylist()[1:]], pa.string())
    pending = table.set_column(column, table.schema.field("status"), statuses)
    # At the end of a run another driver may have finished it meanwhile; `sweep sync` means exactly the table.
    assert posted(untracked, outbox, pending, exact=False) == 0
    assert posted(untracked, outbox, pending) == 1
    sync_runs(outbox, experiment_at(untracked, uri))
    assert {run.data.tags["sweep.cell_id"] for run in runs(uri)} == set(table["cell_id"].to_pylist()[1:])


def test_a_driver_that_has_not_seen_how_another_finished_a_cell_does_not_undo_its_run(
    untracked: Session, outbox: Outbox, tmp_path: Path
) -> None:
    uri = put_mlflow_database(tmp_path / "mlflow.db")
    table = table_of(untracked)
    rows = table.to_pylist()
    (place,) = [number for number, row in enumerate(rows) if row["total"] is not None][:1]
    rows[place] |= {"status": "failed", "total": None, "error_class": "NodeLost", "error": "its node went away"}
    stale = table.from_pylist(rows, schema=table.schema)
    assert posted(untracked, outbox, stale, exact=False) == 0
    sync_runs(outbox, experiment_at(untracked, uri))
    check(uri)
    # The store has the last word: should it say the same, the artifact was lost, and the failure is what is true.
    assert posted(untracked, outbox, stale) == 1
    # With another key it is another result, of an edited sweep.
    rows[place + 2] |= {"status": "failed", "total": None, "key": "another"}
    assert posted(untracked, outbox, table.from_pylist(rows, schema=table.schema), exact=False) == 1


@pytest.mark.faults
def test_an_interrupted_synchronisation_is_completed_without_twins_or_running_leftovers(
    untracked: Session, outbox: Outbox, tmp_path: Path
) -> None:
    import mlflow

    uri = put_mlflow_database(tmp_path / "other.db")

    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync_runs(outbox, experiment_at(untracked, uri), interrupt)
    # And runs that others cut off between their creation and their end.
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("toy").experiment_id
    for cell in table_of(untracked)["cell_id"].to_pylist()[6:8]:
        client.create_run(experiment, tags={"sweep.kind": "cell", "sweep.cell_id": cell})
    client.create_run(experiment, tags={"sweep.kind": "group", "sweep.id": "group:x=3", "sweep.group": "x=3"})
    sync_runs(outbox, experiment_at(untracked, uri))
    check(uri)


def test_a_database_that_is_gone_or_an_older_copy_is_completed_by_the_same_command(tmp_path: Path) -> None:
    database = tmp_path / "out" / "mlflow.db"
    put_mlflow_database(database)
    whole = opened(tmp_path)
    part = replace(whole, cells=select(whole.plan, ["x=1"], ()))
    run_and_show(part, None, True, None)
    shutil.copyfile(database, tmp_path / "older.db")
    database.unlink()
    run_and_show(opened(tmp_path), None, True, None)
    # MLflow in this process would keep a connection to a file that is replaced.
    check(f"sqlite:///{shutil.copyfile(database, tmp_path / 'whole.db')}")
    shutil.copyfile(tmp_path / "older.db", database)
    run_and_show(opened(tmp_path), None, True, None)
    check(opened(tmp_path).outputs.tracking_uri)


def test_a_deleted_experiment_is_brought_back_and_a_rebuilt_one_is_new(
    untracked: Session, outbox: Outbox, tmp_path: Path
) -> None:
    import mlflow

    uri = put_mlflow_database(tmp_path / "mlflow.db")
    sync_runs(outbox, experiment_at(untracked, uri))
    client = mlflow.MlflowClient(uri)
    first = client.get_experiment_by_name("toy").experiment_id
    client.delete_experiment(first)
    assert sync_runs(outbox, experiment_at(untracked, uri)) == Synced(0, 12, 0)
    assert client.get_experiment_by_name("toy").lifecycle_stage == "active"
    check(uri)
    assert sync_runs(outbox, experiment_at(untracked, uri), rebuild=True) == Synced(12, 0, 0)
    assert client.get_experiment_by_name("toy").experiment_id != first
    assert client.get_experiment(first).lifecycle_stage == "deleted"
    check(uri)

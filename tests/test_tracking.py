"""The MLflow projection: one run per cell, never twice, never in the way; real MLflow throughout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy
from servers import free_port, wait_until_it_answers

from orchestrator import tracking
from orchestrator.drive import drive
from orchestrator.session import Session, open_session
from orchestrator.tracking import TrackingUnreachableError, sync_runs

TEXT = toy.SWEEP.replace("tracking: false\n", "").replace(
    "plain: {behaviour: work}", "plain: {behaviour: work}\n    bad: {behaviour: raise}"
)


def finished(folder: Path, uri: str | None = None) -> tuple[Session, int]:
    session = open_session(toy.write_sweep(folder, TEXT), outputs=str(folder / "out"))
    return session, drive(session, None, True, uri)


def table_of(session: Session) -> pa.Table:
    return pq.read_table(session.outputs.results)


def runs(uri: str, kind: str = "cell") -> list[object]:
    import mlflow

    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("toy")
    return [
        run
        for run in client.search_runs([experiment.experiment_id], max_results=1000)
        if run.data.tags.get("sweep.kind") == kind
    ]


def check(uri: str) -> None:
    found = runs(uri)
    assert len(found) == 12
    assert len({run.data.tags["sweep.cell_id"] for run in found}) == 12  # type: ignore[attr-defined]
    assert {run.info.status for run in found} == {"FINISHED", "FAILED"}  # type: ignore[attr-defined]


def test_each_cell_is_one_run_with_coordinates_metrics_and_tags_below_a_group(tmp_path: Path) -> None:
    session, code = finished(tmp_path)
    assert code == 1
    uri = session.outputs.tracking_uri
    check(uri)
    groups = {run.info.run_id: run.data.tags["sweep.group"] for run in runs(uri, "group")}  # type: ignore[attr-defined]
    by_id = {row["cell_id"]: row for row in table_of(session).to_pylist()}
    for run in runs(uri):
        tags, row = run.data.tags, by_id[run.data.tags["sweep.cell_id"]]  # type: ignore[attr-defined]
        assert run.data.params == {axis: str(row[axis]) for axis in ("x", "y", "kind")}  # type: ignore[attr-defined]
        assert groups[tags["mlflow.parentRunId"]] == f"x={row['x']}"
        assert tags["sweep.key"] == row["key"]
        if row["kind"] == "plain":
            assert run.data.metrics["total"] == row["total"]  # type: ignore[attr-defined]
            assert run.info.status == "FINISHED"  # type: ignore[attr-defined]
        else:
            assert "total" not in run.data.metrics  # type: ignore[attr-defined]
            assert tags["sweep.error_class"] == "ValueError"


def test_no_parent_has_more_children_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "CHILDREN_PER_PARENT", 3)
    session, _ = finished(tmp_path)
    children: dict[str, int] = {}
    for run in runs(session.outputs.tracking_uri):
        parent = run.data.tags["mlflow.parentRunId"]  # type: ignore[attr-defined]
        children[parent] = children.get(parent, 0) + 1
    assert max(children.values()) <= 3


def test_a_second_synchronisation_writes_nothing(tmp_path: Path) -> None:
    session, _ = finished(tmp_path)
    synced = sync_runs(table_of(session), session.outputs.tracking_uri, "toy", tmp_path / "lock")
    assert (synced.created, synced.unchanged, synced.replaced) == (0, 12, 0)
    check(session.outputs.tracking_uri)


def test_a_changed_row_replaces_its_run_and_no_other(tmp_path: Path) -> None:
    session, _ = finished(tmp_path)
    table = table_of(session)
    changed = table.set_column(
        table.column_names.index("total"),
        table.schema.field("total"),
        pa.array([99.0, *table["total"].to_pylist()[1:]], pa.float64()),
    )
    synced = sync_runs(changed, session.outputs.tracking_uri, "toy", tmp_path / "lock")
    assert (synced.created, synced.unchanged, synced.replaced) == (0, 11, 1)
    check(session.outputs.tracking_uri)


@pytest.mark.faults
def test_an_interrupted_synchronisation_is_completed_without_twins_or_running_leftovers(tmp_path: Path) -> None:
    session, _ = finished(tmp_path)
    table, uri = table_of(session), f"sqlite:///{tmp_path / 'other.db'}"

    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync_runs(table, uri, "toy", tmp_path / "lock", interrupt)
    # And one run that was cut off between its creation and its end.
    import mlflow

    client = mlflow.MlflowClient(uri)
    cell = table["cell_id"][7].as_py()
    client.create_run(
        client.get_experiment_by_name("toy").experiment_id, tags={"sweep.kind": "cell", "sweep.cell_id": cell}
    )
    sync_runs(table, uri, "toy", tmp_path / "lock")
    check(uri)


def command(folder: Path) -> None:
    """The same command in a process of its own: MLflow keeps connections to a deleted file."""
    code = "import toy; toy.install(); from orchestrator.cli import main; main()"
    arguments = ["run", str(folder / "toy.yaml"), "--outputs", str(folder / "out"), "--inline"]
    environment = {**os.environ, "PYTHONPATH": str(Path(toy.__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, timeout=400)
    assert done.returncode == 1


def test_a_deleted_database_is_rebuilt_by_the_same_command(tmp_path: Path) -> None:
    toy.write_sweep(tmp_path, TEXT)
    command(tmp_path)
    (tmp_path / "out" / "mlflow.db").unlink()
    command(tmp_path)
    check(f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}")


def test_a_deleted_experiment_is_brought_back_by_the_same_command(tmp_path: Path) -> None:
    import mlflow

    session, _ = finished(tmp_path)
    client = mlflow.MlflowClient(session.outputs.tracking_uri)
    client.delete_experiment(client.get_experiment_by_name("toy").experiment_id)
    finished(tmp_path)
    assert client.get_experiment_by_name("toy").lifecycle_stage == "active"
    check(session.outputs.tracking_uri)


def test_without_an_answer_from_mlflow_the_sweep_goes_on_and_sync_catches_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    started = time.monotonic()
    session, code = finished(tmp_path, uri)
    assert time.monotonic() - started < 20
    assert code == 1  # for the failing cells, not for MLflow
    assert table_of(session).num_rows == 12
    printed = capsys.readouterr().out
    assert f"the MLflow server {uri} does not answer" in printed
    assert "sync" in printed
    with pytest.raises(TrackingUnreachableError, match="sweep sync"):
        sync_runs(table_of(session), uri, "toy", tmp_path / "lock")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}",
            "--artifacts-destination", str(tmp_path / "a"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    uri = f"http://127.0.0.1:{port}"
    try:
        wait_until_it_answers(f"{uri}/health", process)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_real_server_gets_the_same_runs_as_a_file(tmp_path: Path, server: str) -> None:
    finished(tmp_path, server)
    check(server)
    finished(tmp_path, server)
    check(server)

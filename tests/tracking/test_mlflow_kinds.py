"""A database file, a server and PostgreSQL get the same runs; what one refuses costs no other run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from servers import free_port, kill_group, put_mlflow_database
from tracked_sweep import all_runs, experiment_at, runs, shown, step_run

from orchestrator.session import Session
from orchestrator.tracking.client import TrackingError
from orchestrator.tracking.experiment import Experiment
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.server import Server
from orchestrator.tracking.sync import Sync, Synced, attach, sync_runs

pytestmark = pytest.mark.mlflow


def test_a_server_gets_the_same_runs_as_a_file_training_curves_included(
    untracked: Session, outbox: Outbox, tmp_path: Path, mlflow_server: str
) -> None:
    import mlflow

    outbox.post([step_run()])
    file = put_mlflow_database(tmp_path / "mlflow.db")
    for uri in (file, mlflow_server):
        assert sync_runs(outbox, experiment_at(untracked, uri)) == Synced(13, 0, 0)
        assert sync_runs(outbox, experiment_at(untracked, uri)) == Synced(0, 13, 0)
        (step,) = runs(uri, "step")
        history = mlflow.MlflowClient(uri).get_metric_history(step.info.run_id, "loss")
        assert [(point.step, point.value) for point in history] == [(each, each / 7) for each in range(1200)]
        assert step.data.metrics["loss"] == 1199 / 7
    assert shown(file) == shown(mlflow_server)
    assert len(shown(file)) == 12 + 3 + 1 + 2


def test_a_run_that_changes_while_it_is_brought_is_counted_once(outbox: Outbox, tmp_path: Path) -> None:
    experiment = Experiment(put_mlflow_database(tmp_path / "mlflow.db"), "changing", "what it is about")
    sync = Sync(outbox, experiment, lambda done, total: None)
    before = len(outbox.digests)
    with outbox.locked():
        sync.connect()
        for length in (3, 4, 5):
            outbox.post([step_run(length)])
            sync.deliver()
    assert sync.synced() == Synced(before + 1, 0, 0)


@pytest.fixture(params=["file", "server"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of a database file, or of a server."""
    if request.param == "file":
        return put_mlflow_database(tmp_path / "mlflow.db")
    return str(request.getfixturevalue("mlflow_server"))


def test_a_run_that_mlflow_refuses_costs_no_other_run_and_is_named(outbox: Outbox, either: str) -> None:
    experiment = Experiment(either, "refused", "what it is about")
    # A database refuses the same point twice, a server a name that no path can have.
    point = ("loss" if either.startswith("sqlite") else "../loss", 0, 0.5)
    bad = replace(step_run(0), name="the bad one", curve=(point, point))
    good = step_run(3)
    outbox.post([bad, replace(good, id="step:4567", tags={**good.tags, "sweep.id": "step:4567"})])
    for _ in range(2):
        with pytest.raises(TrackingError, match=r"refuses the bad one: .*; it has all others"):
            sync_runs(outbox, experiment)
        kinds = Counter(run.data.tags["sweep.kind"] for run in all_runs(either, experiment.name))
        assert kinds == {"cell": 12, "step": 1, "group": 4, "sweep": 1}
    outbox.post([replace(bad, curve=(("loss", 0, 0.5),))])
    assert sync_runs(outbox, experiment) == Synced(1, 13, 0)
    assert {run.info.status for run in all_runs(either, experiment.name)} == {"FINISHED", "FAILED"}


def test_a_server_finds_a_run_again_whatever_letters_its_name_has(mlflow_server: str) -> None:
    import mlflow

    client = mlflow.MlflowClient(mlflow_server)
    server = Server(client, client.create_experiment("odd names"))
    names = [f"group:{each}" for each in ("it's", "its", "it_s", 'it\'s "so" `x` \\ %', "it%", "x=1,y=ä", "a\nb\t\r")]
    written = [(replace(step_run(0), id=each, tags={"sweep.kind": "group", "sweep.id": each}), None) for each in names]
    made = {run.id: found for run, found in server.write(written)}
    assert [[each.run for each in server.find([name])] for name in names] == [[made[name]] for name in names]
    assert sorted(each.id for each in server.find(names)) == sorted(names)


def test_a_report_is_kept_with_the_run_of_the_sweep(outbox: Outbox, tmp_path: Path, either: str) -> None:
    import mlflow

    experiment = Experiment(either, "report", "what it is about")
    (tmp_path / "report.html").write_text("<h1>So it is</h1>")
    run = attach(outbox, experiment, [tmp_path / "report.html"], "report")
    assert attach(outbox, experiment, [tmp_path / "report.html"], "report") == run
    sync_runs(outbox, experiment)
    (whole,) = [each for each in all_runs(either, "report") if each.data.tags["sweep.kind"] == "sweep"]
    assert whole.info.run_id == run
    path = mlflow.MlflowClient(either).download_artifacts(run, "report/report.html", str(tmp_path))
    assert Path(path).read_text() == "<h1>So it is</h1>"


POSTGRES = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URI of a PostgreSQL server of our own, which does not run as root."""
    if not (POSTGRES / "initdb").exists():
        pytest.skip(f"there is no {POSTGRES}/initdb: Debian's package postgresql-15 is not installed")
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed")
    root = os.getuid() == 0
    if root and (not shutil.which("runuser") or subprocess.run(["id", "postgres"], capture_output=True).returncode):
        pytest.skip("this is root, and there is no user postgres for PostgreSQL to run as")
    prefix = ["runuser", "-u", "postgres", "--"] if root else []
    # Not pytest's folder, which other users may not enter; the path of a socket is short, too.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if root:
        shutil.chown(folder, "postgres")
    port, data = free_port(), str(folder / "data")
    initdb = [str(POSTGRES / "initdb"), "-D", data, "-U", "mlflow", "--auth", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run([*prefix, *initdb], check=True, capture_output=True, cwd="/", timeout=300)
    options = ["-p", str(port), "-k", str(folder), "-h", "127.0.0.1", "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*prefix, str(POSTGRES / "postgres"), "-D", data, *options],
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 400
        while b"ready to accept connections" not in (folder / "log").read_bytes():
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.05)
        yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
    finally:
        kill_group(server)
        shutil.rmtree(folder, ignore_errors=True)


def test_postgresql_gets_the_same_runs_as_a_file(
    untracked: Session, outbox: Outbox, tmp_path: Path, postgres: str
) -> None:
    outbox.post([step_run(3)])
    file = put_mlflow_database(tmp_path / "mlflow.db")
    sync_runs(outbox, experiment_at(untracked, file))
    # Where the artifacts go, if MLflow is not told where: below the working directory.
    experiment = Experiment(**{**vars(experiment_at(untracked, postgres)), "files": ()})
    assert sync_runs(outbox, experiment) == Synced(13, 0, 0)
    assert sync_runs(outbox, experiment) == Synced(0, 13, 0)
    assert shown(postgres) == shown(file)
    assert sync_runs(outbox, experiment, rebuild=True) == Synced(13, 0, 0)
    assert shown(postgres) == shown(file)

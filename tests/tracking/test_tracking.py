"""The MLflow projection: one run per cell, never twice, never in the way; real MLflow throughout."""

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
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy
from servers import free_port, kill_group, put_mlflow_database

from orchestrator.cli.show_run import run_and_show
from orchestrator.cli.sync import synchronise
from orchestrator.plan.select import select
from orchestrator.session import Session, open_session
from orchestrator.tracking import publisher
from orchestrator.tracking import runs as projection
from orchestrator.tracking.client import TrackingError
from orchestrator.tracking.experiment import Experiment, experiment_of
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.publisher import post_table
from orchestrator.tracking.runs import Projection, Run
from orchestrator.tracking.sync import Synced, attach, sync_runs
from workers.history import write_history

pytestmark = pytest.mark.mlflow

TEXT = (
    toy.SWEEP.replace("tracking: false\n", "")
    .replace("plain: {behaviour: work}", "plain: {behaviour: work}\n    bad: {behaviour: raise}")
    .replace("question: Does adding work?", "question: Does adding work?\ndata: {path: data.txt}")
    .replace("[{add: $y}, $kind]", "[{add: $y, marker: $data.sha256}, $kind]")
)


def opened(folder: Path, *overrides: str) -> Session:
    (folder / "data.txt").write_text("one two")
    return open_session(toy.write_sweep(folder, TEXT), list(overrides), outputs=str(folder / "out"))


def finished(folder: Path, uri: str | None = None) -> tuple[Session, int]:
    session = opened(folder)
    put_mlflow_database(folder / "out" / "mlflow.db")
    return session, run_and_show(session, None, True, uri)


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A finished sweep of which MLflow has nothing: 6 cells succeeded, 6 failed."""
    folder = tmp_path_factory.mktemp("untracked")
    assert run_and_show(opened(folder, "tracking=false"), None, True, None) == 1
    return opened(folder)


def posted(session: Session, outbox: Outbox, table: pa.Table, exact: bool = True) -> int:
    """Post a table; how much of it changed."""
    return post_table(Projection(session.plan), outbox, session.store, session.schedule.committed, table, exact)


@pytest.fixture
def outbox(untracked: Session, tmp_path: Path) -> Outbox:
    """An outbox that holds that sweep."""
    outbox = Outbox(tmp_path / "outbox")
    assert posted(untracked, outbox, table_of(untracked)) == 12
    return outbox


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


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A sweep that was run with MLflow."""
    session, code = finished(tmp_path_factory.mktemp("tracked"))
    assert code == 1
    return session


def test_each_cell_is_one_run_with_coordinates_metrics_and_tags_below_a_group(tracked: Session) -> None:
    uri = tracked.outputs.tracking_uri
    check(uri)
    by_id = {row["cell_id"]: row for row in table_of(tracked).to_pylist()}
    for run in runs(uri):
        tags, row = run.data.tags, by_id[run.data.tags["sweep.cell_id"]]
        assert run.data.params == {axis: str(row[axis]) for axis in ("x", "y", "kind")}
        assert tags["sweep.key"] == tags["sweep.key.total"] == row["key"]
        assert tags["sweep.status"] == row["status"]
        assert tags["sweep.code_commit"] == tags["mlflow.source.git.commit"] == row["code_commit"]
        assert run.info.run_name == f"y={row['y']},{row['kind']}"
        if row["kind"] == "plain":
            assert run.data.metrics["total"] == row["total"]
            assert run.info.status == "FINISHED"
        else:
            assert "total" not in run.data.metrics
            assert tags["sweep.error_class"] == "ValueError"
            assert "the toy was told to raise" in tags["sweep.error"]


def test_groups_have_means_and_the_sweep_has_summary_data_and_table(tracked: Session) -> None:
    import mlflow

    session = tracked
    uri = session.outputs.tracking_uri
    client = mlflow.MlflowClient(uri)
    page = client.get_experiment_by_name("toy").tags["mlflow.note.content"]
    assert "Does adding work?" in page
    rows = [row for row in table_of(session).to_pylist() if row["status"] == "succeeded"]
    for group in runs(uri, "group"):
        values = [row["total"] for row in rows if f"x={row['x']}" == group.info.run_name]
        assert group.data.metrics["total_mean"] == sum(values) / len(values) == sum(values) / 2
        assert (group.data.metrics["cells"], group.data.metrics["cells_failed"]) == (4, 2)
    (whole,) = runs(uri, "sweep")
    assert whole.data.metrics["cells_succeeded"] == 6
    assert "| 10 | plain | 3 | 20.000 ± 4.000 |" in whole.data.tags["mlflow.note.content"]
    (data,) = client.get_run(whole.info.run_id).inputs.dataset_inputs
    assert data.dataset.name == "data.txt"
    assert session.spec.data["sha256"].startswith(data.dataset.digest)
    kept = {each.path for each in client.list_artifacts(whole.info.run_id)}
    assert kept == {"results.parquet", "toy.yaml"}
    folder = Path(client.download_artifacts(whole.info.run_id, "results.parquet"))
    assert pq.read_table(folder).equals(table_of(session))


def test_no_parent_in_mlflow_has_more_children_than_the_limit(
    untracked: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "CHILDREN_PER_PARENT", 3)
    outbox, uri = Outbox(tmp_path / "outbox"), put_mlflow_database(tmp_path / "mlflow.db")
    posted(untracked, outbox, table_of(untracked))
    sync_runs(outbox, experiment_at(untracked, uri))
    found = all_runs(uri)
    assert len(runs(uri)) == 12
    # Four groups of three would be one too many for the sweep, so there are two levels.
    children = Counter(run.data.tags["mlflow.parentRunId"] for run in found if "mlflow.parentRunId" in run.data.tags)
    assert sorted(children.values()) == [1, 2, 3, 3, 3, 3, 3]


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
    outbox.post([], table="something else")
    assert posted(untracked, outbox, pending) == 1
    sync_runs(outbox, experiment_at(untracked, uri))
    assert {run.data.tags["sweep.cell_id"] for run in runs(uri)} == set(table["cell_id"].to_pylist()[1:])


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


def test_without_an_answer_from_mlflow_the_sweep_goes_on_and_sync_catches_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    session, code = finished(tmp_path, uri)
    assert code == 1  # for the failing cells, not for MLflow
    assert table_of(session).num_rows == 12
    printed = capsys.readouterr().out
    assert f"the MLflow server {uri} does not answer" in printed
    assert "12 of 12 runs wait in" in printed
    assert "sync" in printed
    with pytest.raises(TrackingError, match="sweep sync"):
        sync_runs(Outbox(session.outputs.outbox), experiment_at(session, uri))
    # What waits for one MLflow is there for any other.
    assert synchronise(session, table_of(session), None)
    check(session.outputs.tracking_uri)


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


def test_a_run_ends_with_what_mlflow_refuses_and_the_next_one_tries_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = opened(tmp_path, "axes.kind={plain: {behaviour: work}}")
    put_mlflow_database(tmp_path / "out" / "mlflow.db")
    point = ("loss", 0, 0.5)
    Outbox(session.outputs.outbox).post([replace(step_run(0), name="the bad one", curve=(point, point))])
    for _ in range(2):
        assert run_and_show(opened(tmp_path, "axes.kind={plain: {behaviour: work}}"), None, True, None) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert "refuses the bad one: (sqlite3.IntegrityError)" in printed
        assert "1 of 7 runs wait in" in printed
        assert len(runs(session.outputs.tracking_uri)) == 6


def test_the_curves_of_committed_steps_are_posted_once_whatever_they_were_committed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = toy.double

    def with_curve(config: toy.TotalConfig, out: Path, *, number: Path) -> dict[str, float]:
        metrics = double(config, out, number=number)
        write_history([{"step": 10, "loss": metrics["total"]}, {"step": 20, "loss": 0.5}], out)
        return metrics

    monkeypatch.setattr(toy, "double", with_curve)
    monkeypatch.setitem(toy.STAGES, "toy_double", replace(toy.STAGES["toy_double"], history=True))
    overrides = ("tracking=false", "axes.kind={plain: {behaviour: work}}")
    assert run_and_show(opened(tmp_path, *overrides), None, True, None) == 0
    session, outbox = opened(tmp_path, *overrides), Outbox(tmp_path / "outbox")
    # Three values of x in two shards each, and six cells.
    assert posted(session, outbox, table_of(session)) == 6 + 6
    outbox.post([], table="something else")
    assert posted(session, outbox, table_of(session)) == 0
    _, waiting = Outbox(outbox.folder).follow()
    steps = {id_: run for id_, run in waiting.items() if run and run.tags["sweep.kind"] == "step"}
    doubles = [number for number in range(len(session.plan)) if session.plan.entry_of(number) == "double"]
    assert steps.keys() == {f"step:{session.plan.keys[number]}" for number in doubles}
    first = steps[f"step:{session.plan.keys[doubles[0]]}"]
    assert (first.name, first.group, first.params) == ("double x=1", ("training double",), {"x": "1"})
    assert first.curve == (("loss", 10, 2.0), ("loss", 20, 0.5))
    assert first.ended - first.started == pytest.approx(first.metrics["seconds"], abs=1e-3)


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


def test_a_run_is_followed_while_it_goes_on_and_a_finished_one_is_sent_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_WRITER_AFTER", 0.0)
    monkeypatch.setattr("orchestrator.drive.HEARTBEAT_EVERY", 0.0)
    uri = put_mlflow_database(tmp_path / "out" / "mlflow.db")
    publish = publisher.Publisher.publish
    shown: list[set[str]] = []

    def wait_once(self: publisher.Publisher) -> None:
        """The run is held up at its first finished cells, until MLflow shows them."""
        publish(self)
        known, until = self.outbox.sent(f"{uri} toy"), time.monotonic() + 400
        while self.outbox.digests and not shown and time.monotonic() < until:
            known.follow()
            if self.outbox.digests.keys() <= known.runs.keys():
                shown.append(set(self.outbox.digests))
            time.sleep(0.05)

    monkeypatch.setattr(publisher.Publisher, "publish", wait_once)
    overrides = ("axes.kind={plain: {behaviour: work}}",)
    assert run_and_show(opened(tmp_path, *overrides), None, True, None) == 0
    assert 1 <= len(shown[0]) < 6
    assert len(runs(uri)) == 6
    # Whoever starts a process now fails.
    monkeypatch.setattr(subprocess, "Popen", None)
    assert run_and_show(opened(tmp_path, *overrides), None, True, None) == 0

"""MLflow is down, broken, slow, locked or killed: the sweep has its table all the same, and MLflow catches up."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy
from proxy import Mode, Proxy
from servers import free_port, kill_group, put_mlflow_database

from orchestrator.cli.show_run import run_and_show
from orchestrator.cli.sync import synchronise
from orchestrator.session import Session, open_session
from orchestrator.tracking import publisher
from orchestrator.tracking.client import TrackingError
from orchestrator.tracking.experiment import experiment_of
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.publisher import post_table
from orchestrator.tracking.runs import Projection
from orchestrator.tracking.sync import Synced, sync_runs
from orchestrator.types import Manifest

pytestmark = pytest.mark.faults

#: What must be the same with and without MLflow.
COLUMNS = ["cell_id", "x", "y", "kind", "status", "total", "key"]


@pytest.fixture
def upstream(mlflow_server: str) -> int:
    """The port of a real MLflow server."""
    return int(mlflow_server.rsplit(":", 1)[1])


@pytest.fixture
def proxy(upstream: int) -> Iterator[Proxy]:
    proxy = Proxy(upstream)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The table of a run that knows no MLflow."""
    folder = tmp_path_factory.mktemp("calm")
    session = open_session(toy.write_sweep(folder), outputs=str(folder / "out"))
    assert run_and_show(session, None, True, None) == 0
    return pq.read_table(session.outputs.results, columns=COLUMNS)


def opened(folder: Path, *overrides: str) -> Session:
    """The toy sweep, with an experiment of its own on the server that the tests share."""
    text = toy.SWEEP.replace("tracking: false", f"tracking: {{experiment: {folder.name}}}")
    return open_session(toy.write_sweep(folder, text), list(overrides), outputs=str(folder / "out"))


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


def test_a_server_that_was_down_during_the_run_gets_every_cell_once_it_is_up(
    tmp_path: Path, upstream: int, calm: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    run(tmp_path, uri)
    check_that_it_was_told(capsys)
    check_sweep(tmp_path, calm)
    assert not sync(tmp_path, uri)
    late = Proxy(upstream, port)
    try:
        run(tmp_path, uri)
        check_mlflow(tmp_path, uri)
    finally:
        late.close()
    check_sweep(tmp_path, calm)


@pytest.mark.parametrize(
    ("mode", "path", "after"),
    [
        pytest.param("error500", "", 0, id="answers_500", marks=pytest.mark.long),
        pytest.param("error500", "/api/", 15, id="answers_500_from_its_16th_answer_on"),
        pytest.param(
            "error500",
            "runs/update",
            0,
            id="answers_500_when_the_first_group_is_to_be_ended",
            marks=pytest.mark.long,
        ),
        pytest.param("drop", "", 0, id="drops_connections", marks=pytest.mark.long),
        pytest.param("drop_answer", "/api/", 15, id="does_what_it_is_asked_but_drops_its_answers"),
        pytest.param("silent", "/api/", 15, id="never_answers_from_its_16th_answer_on", marks=pytest.mark.long),
    ],
)
def test_what_a_server_did_before_it_failed_is_neither_done_twice_nor_left_undone(
    tmp_path: Path, proxy: Proxy, mode: Mode, path: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode == "silent":
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    tell = tell_directly(tmp_path, proxy.uri)
    proxy.tell(mode, path, after)
    with pytest.raises(TrackingError, match="sweep sync"):
        tell()
    assert proxy.troubled
    proxy.tell("forward")
    tell()
    check_mlflow(tmp_path, proxy.uri)


@pytest.mark.parametrize(
    ("mode", "path"),
    [
        ("drop_answer", "runs/create"),
        pytest.param("drop_answer", "runs/log-batch", marks=pytest.mark.long),
        pytest.param("drop_answer", "runs/update", marks=pytest.mark.long),
        pytest.param("error500", "runs/create", marks=pytest.mark.long),
    ],
)
def test_a_server_that_fails_once_leaves_no_twin_behind(tmp_path: Path, proxy: Proxy, mode: Mode, path: str) -> None:
    tell = tell_directly(tmp_path, proxy.uri)
    # The first are of parents. MLflow's client asks again by itself, whatever the server had done already.
    proxy.tell(mode, path, after=4, times=1)
    tell()
    assert proxy.troubled == 1
    # A person who sees a command succeed gives no other one.
    check_mlflow(tmp_path, proxy.uri)


def test_no_step_waits_for_a_slow_server_and_the_table_is_there_before_it_is_asked(
    tmp_path: Path, proxy: Proxy, calm: pa.Table
) -> None:
    proxy.delay = 1.0
    proxy.tell("slow", times=6)
    run(tmp_path, proxy.uri)
    assert proxy.troubled == 6
    first = min(when for when, _ in proxy.heard)
    session = opened(tmp_path)
    manifests = session.store.manifests([session.plan.address(number) for number in range(len(session.plan))])
    assert all(isinstance(each, Manifest) and each.finished < first for each in manifests.values())
    assert session.outputs.results.stat().st_mtime < first
    check_mlflow(tmp_path, proxy.uri)
    check_sweep(tmp_path, calm)


def test_a_server_is_asked_three_times_a_cell_and_nothing_that_could_be_left_out(
    tmp_path: Path, proxy: Proxy, capfd: pytest.CaptureFixture[str]
) -> None:
    # Each answer of a slow server costs a second: with 12,960 cells, one request per cell less is three hours less.
    tell_directly(tmp_path, proxy.uri)()
    asked = Counter(re.sub(r".*/api/2.0/mlflow/", "", path).split("?")[0] for _, path in proxy.heard)
    # Cells are made, get their numbers, and are ended; the four parents are made and ended, get their means, and the
    # sweep's own its tags and its end.
    cells, parents = 6, 4
    assert asked["runs/create"] == cells + parents
    assert asked["runs/log-batch"] == cells + parents + 1
    assert asked["runs/update"] == cells + parents + 1
    # The experiment is looked up, made and read; all of its runs are listed, by kind; files are kept.
    rest = sum(asked.values()) - sum(asked[f"runs/{name}"] for name in ("create", "log-batch", "update"))
    assert rest <= 20, asked
    # Nor is a person told two lines for every run.
    assert "View run" not in capfd.readouterr().out
    check_mlflow(tmp_path, proxy.uri)


@pytest.mark.long
def test_a_server_that_hangs_for_longer_than_anybody_waits_is_given_up(
    tmp_path: Path,
    proxy: Proxy,
    calm: pa.Table,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It says that it is well, and its first answer takes ten minutes.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
    monkeypatch.setattr(publisher, "PATIENCE", 15.0)
    proxy.tell("silent", "/api/")
    assert run(tmp_path, proxy.uri) < 60
    printed = capsys.readouterr().out
    assert "did not answer for 15 s" in printed
    assert "6 of 6 runs wait in" in printed
    check_sweep(tmp_path, calm)
    assert not writers(tmp_path)


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


def hold(monkeypatch: pytest.MonkeyPatch, uri: str, meanwhile: Callable[[publisher.Publisher], None]) -> None:
    """Run with a writer from the first cell on, and hold the run up once, as soon as MLflow shows a cell, to meddle."""
    monkeypatch.setattr(publisher, "_WRITER_AFTER", 0.0)
    monkeypatch.setattr("orchestrator.drive.HEARTBEAT_EVERY", 0.0)
    publish = publisher.Publisher.publish
    held: list[bool] = []

    def held_publish(self: publisher.Publisher) -> None:
        publish(self)
        until = time.monotonic() + 400
        while len(self.outbox.digests) >= 20 and not held and time.monotonic() < until:
            sent = self.outbox.sent(f"{uri} {self.projection.spec.tracking.experiment}")  # type: ignore[union-attr]
            sent.follow()
            if any(":" not in id_ for id_ in sent.runs):
                held.append(True)
                meanwhile(self)
            time.sleep(0.01)

    monkeypatch.setattr(publisher.Publisher, "publish", held_publish)


#: 40 cells, that there is something to interrupt.
MANY = (f"axes.x={list(range(2))}", f"axes.y={list(range(20))}")


@pytest.mark.long
def test_killing_the_server_in_mid_sweep_and_bringing_it_back_loses_nothing(
    tmp_path: Path,
    start_mlflow: Callable[[Path, int], AbstractContextManager[subprocess.Popen[bytes]]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    place = tmp_path / "server"
    place.mkdir()
    with start_mlflow(place, port) as server:
        hold(monkeypatch, uri, lambda _: kill_group(server))
        run(tmp_path, uri, *MANY)
    check_that_it_was_told(capsys)
    with start_mlflow(place, port):
        run(tmp_path, uri, *MANY)
        check_mlflow(tmp_path, uri, *MANY)


def test_a_writer_that_is_killed_is_replaced_and_nothing_is_there_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = put_mlflow_database(tmp_path / "out" / "mlflow.db")
    killed: list[int] = []

    def kill(_: publisher.Publisher) -> None:
        for process in writers(tmp_path):
            process.kill()
            killed.append(process.pid)

    hold(monkeypatch, uri, kill)
    run(tmp_path, None, *MANY)
    assert killed
    check_mlflow(tmp_path, uri, *MANY)


def test_killing_the_driver_leaves_the_rest_in_the_outbox_and_no_writer_behind(tmp_path: Path) -> None:
    opened(tmp_path)
    code = "import toy; from orchestrator.cli import main; main()"
    options = ["-s", f"axes.x={list(range(100))}", "-s", "axes.kind={slow: {behaviour: slow}}"]
    down = ["--inline", "--tracking-uri", f"http://127.0.0.1:{free_port()}", "--outputs", str(tmp_path / "out")]
    driver = subprocess.Popen(
        [sys.executable, "-c", code, "run", str(tmp_path / "toy.yaml"), *options, *down],
        env={**os.environ, "PYTHONPATH": str(Path(toy.__file__).parent)},
        stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + 400
    try:
        while not writers(tmp_path):
            assert driver.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    while writers(tmp_path):
        assert time.monotonic() < until
        time.sleep(0.1)
    outbox = Outbox(opened(tmp_path).outputs.outbox)
    _, waiting = outbox.follow()
    assert waiting
    # Whatever comes first, another command or just this: what was written down is told.
    session, uri = opened(tmp_path), put_mlflow_database(tmp_path / "out" / "mlflow.db")
    sync_runs(outbox, experiment_of(Projection(session.plan), session.file, session.outputs, uri))
    import mlflow

    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(tmp_path.name).experiment_id
    found = client.search_runs([experiment], "tags.`sweep.kind` = 'cell'")
    assert sorted(each.data.tags["sweep.cell_id"] for each in found) == sorted(waiting)
    assert {each.info.status for each in found} == {"FINISHED"}


def test_an_outbox_that_cannot_be_written_costs_the_sweep_nothing(
    tmp_path: Path, calm: pa.Table, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.drive.HEARTBEAT_EVERY", 0.0)
    uri = put_mlflow_database(tmp_path / "out" / "mlflow.db")
    place = opened(tmp_path).outputs.outbox
    place.parent.mkdir(parents=True)
    place.write_text("no folder")
    run(tmp_path, None)
    printed = capsys.readouterr().out
    assert f"{place} cannot be written" in printed
    assert re.search(r"then: .* sync ", printed), printed
    check_sweep(tmp_path, calm)
    place.unlink()
    assert sync(tmp_path, None)
    check_mlflow(tmp_path, uri)


@contextmanager
def locked(database: Path) -> Iterator[sqlite3.Connection]:
    """Nobody else may read or write a database."""
    connection = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield connection
    finally:
        connection.rollback()
        connection.close()


@pytest.mark.long
def test_a_database_that_is_locked_for_good_costs_the_sweep_some_seconds_only(
    tmp_path: Path, calm: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "out" / "mlflow.db"
    uri = put_mlflow_database(database)
    with locked(database):
        assert run(tmp_path, None) < 90
        assert "locked" in (printed := capsys.readouterr().out)
        assert re.search(r"then: .* sync ", printed), printed
        check_sweep(tmp_path, calm)
    assert sync(tmp_path, None)
    check_mlflow(tmp_path, uri)


def test_a_database_that_is_locked_for_some_seconds_is_waited_for(tmp_path: Path) -> None:
    database = tmp_path / "out" / "mlflow.db"
    tell = tell_directly(tmp_path, put_mlflow_database(database))
    taken = threading.Event()
    released: list[float] = []

    def lock() -> None:
        with locked(database):
            taken.set()
            time.sleep(3.0)
            released.append(time.monotonic())

    other = threading.Thread(target=lock)
    other.start()
    assert taken.wait(30)
    assert tell() == Synced(6, 0, 0)
    assert time.monotonic() > released[0]
    other.join()
    check_mlflow(tmp_path, f"sqlite:///{database}")

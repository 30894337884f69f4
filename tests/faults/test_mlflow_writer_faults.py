"""Who tells MLflow is killed, and what it writes to is locked or gone: the sweep goes on, and MLflow catches up."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
import toy
from servers import free_port, kill_group, put_mlflow_database
from tracked_toy import check_mlflow, check_sweep, check_that_it_was_told, opened, run, sync, tell_directly, writers

from orchestrator.tracking import publisher
from orchestrator.tracking.client import open_client
from orchestrator.tracking.experiment import experiment_of
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.runs import Projection
from orchestrator.tracking.sync import Synced, sync_runs

pytestmark = pytest.mark.faults


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
    tmp_path: Path, calm_toy: pa.Table, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
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
    check_sweep(tmp_path, calm_toy)
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
    tmp_path: Path, calm_toy: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "out" / "mlflow.db"
    uri = put_mlflow_database(database)
    with locked(database):
        assert run(tmp_path, None) < 90
        assert "locked" in (printed := capsys.readouterr().out)
        assert re.search(r"then: .* sync ", printed), printed
        check_sweep(tmp_path, calm_toy)
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


@pytest.mark.mlflow
def test_a_process_that_is_killed_while_it_makes_the_database_leaves_none_that_cannot_be_used(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    make = f"from orchestrator.tracking.client import open_client; open_client({uri!r}, lambda: print('', flush=True))"
    # It takes a second or two from there on.
    for seconds in (0.1, 0.4, 0.8):
        with subprocess.Popen([sys.executable, "-c", make], stdout=subprocess.PIPE) as maker:
            assert maker.stdout
            maker.stdout.readline()
            time.sleep(seconds)
            maker.kill()
    client = open_client(uri, lambda: None)
    assert client.search_experiments()[0].name == "Default"

"""MLflow is down, broken, slow or locked: the sweep has its table all the same, and MLflow catches up, once each."""

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
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy
from proxy import Mode, Proxy
from servers import free_port, wait_until_it_answers

from orchestrator import screen
from orchestrator.drive import drive, synchronise
from orchestrator.selection import select
from orchestrator.session import Session, open_session
from orchestrator.types import Manifest

pytestmark = pytest.mark.faults

#: What must be the same with and without MLflow.
COLUMNS = ["cell_id", "x", "y", "kind", "status", "total", "key"]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real MLflow server."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--artifacts-destination", str(folder / "a"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/health", process)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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
    assert drive(session, None, True, None) == 0
    return pq.read_table(session.outputs.results, columns=COLUMNS)


def opened(folder: Path) -> Session:
    """The toy sweep, with an experiment of its own on the server that the tests share."""
    text = toy.SWEEP.replace("tracking: false", f"tracking: {{experiment: {folder.name}}}")
    return open_session(toy.write_sweep(folder, text), outputs=str(folder / "out"))


def run(folder: Path, uri: str | None) -> float:
    """The run command; it ends with 0, as without MLflow. Returns its seconds."""
    started = time.monotonic()
    assert drive(opened(folder), None, True, uri) == 0
    return time.monotonic() - started


def sync(folder: Path, uri: str | None) -> bool:
    """The sync command; whether MLflow has everything now."""
    session = opened(folder)
    return synchronise(session, session.results().table(), uri, again=True)


def check_sweep(folder: Path, calm: pa.Table) -> None:
    """The sweep is finished, its table is the calm one, and every step was computed and committed once."""
    session = opened(folder)
    assert session.schedule.done
    assert pq.read_table(session.outputs.results, columns=COLUMNS).equals(calm)
    assert len(list((Path(session.outputs.store) / "artifacts").glob("*/*"))) == len(session.plan) == 18
    assert len((folder / "toy-trace").read_text().splitlines()) == 18


def check_mlflow(folder: Path, uri: str) -> None:
    """MLflow has one ended run per cell, with the table's number, and one per group; nothing else."""
    import mlflow

    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(folder.name)
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    assert Counter(run.data.tags["sweep.kind"] for run in found) == {"cell": 6, "group": 3}
    assert {run.info.status for run in found} == {"FINISHED"}
    cells = {run.data.tags["sweep.cell_id"]: run for run in found if run.data.tags["sweep.kind"] == "cell"}
    table = pq.read_table(opened(folder).outputs.results).to_pylist()
    assert {cell: run.data.metrics["total"] for cell, run in cells.items()} == {
        row["cell_id"]: row["total"] for row in table
    }
    assert {cell: run.data.tags["sweep.key"] for cell, run in cells.items()} == {
        row["cell_id"]: row["key"] for row in table
    }


def check_that_it_was_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The person who runs the sweep knows that MLflow lags behind, and the command that mends it."""
    printed = capsys.readouterr().out
    assert "MLflow" in printed
    assert re.search(r"then: .* sync ", printed), printed


Catch = Callable[[Path, str | None], object]


@pytest.mark.parametrize("catch_up", [run, sync], ids=["the_same_command", "sync"])
def test_a_server_that_was_down_during_the_run_gets_every_cell_once_it_is_up(
    tmp_path: Path, upstream: int, calm: pa.Table, catch_up: Catch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    assert run(tmp_path, uri) < 20
    check_that_it_was_told(capsys)
    check_sweep(tmp_path, calm)
    assert not sync(tmp_path, uri)
    late = Proxy(upstream, port)
    try:
        catch_up(tmp_path, uri)
        check_mlflow(tmp_path, uri)
    finally:
        late.close()
    check_sweep(tmp_path, calm)


@pytest.mark.parametrize(
    ("mode", "path", "after", "catch_up"),
    [
        ("error500", "", 0, run),
        ("error500", "/api/", 11, sync),
        ("error500", "runs/update", 0, sync),
        ("drop", "", 0, sync),
        ("drop_answer", "/api/", 11, run),
    ],
    ids=[
        "answers_500",
        "answers_500_from_its_12th_answer_on",
        "answers_500_when_the_first_group_is_to_be_ended",
        "drops_connections",
        "does_what_it_is_asked_but_drops_its_answers",
    ],
)
def test_while_a_server_fails_the_sweep_ends_within_half_a_minute_and_afterwards_nothing_is_missing_or_there_twice(
    tmp_path: Path,
    proxy: Proxy,
    calm: pa.Table,
    capsys: pytest.CaptureFixture[str],
    mode: Mode,
    path: str,
    after: int,
    catch_up: Catch,
) -> None:
    proxy.tell(mode, path, after)
    assert run(tmp_path, proxy.uri) < 30
    assert proxy.troubled
    check_that_it_was_told(capsys)
    check_sweep(tmp_path, calm)
    proxy.tell("forward")
    catch_up(tmp_path, proxy.uri)
    check_mlflow(tmp_path, proxy.uri)
    check_sweep(tmp_path, calm)


@pytest.mark.parametrize(
    ("mode", "path"),
    [
        ("drop_answer", "runs/create"),
        ("drop_answer", "runs/log-batch"),
        ("drop_answer", "runs/update"),
        ("error500", "runs/create"),
    ],
)
def test_a_server_that_fails_once_leaves_no_twin_behind(
    tmp_path: Path, proxy: Proxy, calm: pa.Table, mode: Mode, path: str
) -> None:
    # The first is a group's. MLflow's client asks again by itself, whatever the server had done already.
    proxy.tell(mode, path, after=1, times=1)
    assert run(tmp_path, proxy.uri) < 30
    assert proxy.troubled == 1
    # A person who sees a command succeed gives no other one.
    check_mlflow(tmp_path, proxy.uri)
    check_sweep(tmp_path, calm)


def test_no_step_waits_for_a_slow_server_and_the_table_is_there_before_it_is_asked(
    tmp_path: Path, proxy: Proxy, calm: pa.Table
) -> None:
    proxy.delay = 1.0
    proxy.tell("slow", times=6)
    seconds = run(tmp_path, proxy.uri)
    assert proxy.troubled == 6
    assert 6 * proxy.delay < seconds < 6 * proxy.delay + 20
    first = min(when for when, _ in proxy.heard)
    session = opened(tmp_path)
    manifests = session.store.manifests([session.plan.address(number) for number in range(len(session.plan))])
    assert all(isinstance(each, Manifest) and each.finished < first for each in manifests.values())
    assert session.outputs.results.stat().st_mtime < first
    check_mlflow(tmp_path, proxy.uri)
    check_sweep(tmp_path, calm)


def test_a_server_is_asked_nothing_that_could_be_left_out(
    tmp_path: Path, proxy: Proxy, calm: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    # Each answer of a slow server costs a second: with 12,960 cells, one request per cell less is three hours less.
    run(tmp_path, proxy.uri)
    # The experiment is looked up and made, its runs listed; groups are made and ended; cells get their numbers, too.
    assert len(proxy.heard) <= 4 + 2 * 3 + 3 * 6, Counter(path.split("?")[0] for _, path in proxy.heard)
    # Nor is a person told two lines for every run.
    assert "View run" not in capsys.readouterr().out
    check_mlflow(tmp_path, proxy.uri)
    check_sweep(tmp_path, calm)


@pytest.mark.parametrize(("path", "after"), [("", 0), ("/api/", 11)], ids=["at_all", "from_its_12th_answer_on"])
def test_a_server_that_never_answers_costs_the_sweep_some_timeouts_only(
    tmp_path: Path,
    proxy: Proxy,
    calm: pa.Table,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    after: int,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    proxy.tell("silent", path, after)
    # Three tries of a second, and the pauses between them.
    assert run(tmp_path, proxy.uri) < 20
    check_that_it_was_told(capsys)
    check_sweep(tmp_path, calm)
    proxy.tell("forward")
    assert sync(tmp_path, proxy.uri)
    check_mlflow(tmp_path, proxy.uri)


def command(folder: Path, name: str, *options: str) -> tuple[int, str, float]:
    """A command in a process of its own: exit code, what it printed, seconds."""
    code = "import toy; toy.install(); from orchestrator.cli import main; main()"
    arguments = [name, str(folder / "toy.yaml"), "--outputs", str(folder / "out"), *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(toy.__file__).parent)}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, timeout=400
    )
    return done.returncode, done.stdout + done.stderr, time.monotonic() - started


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


def test_a_database_that_is_locked_for_good_costs_the_sweep_some_seconds_only(tmp_path: Path, calm: pa.Table) -> None:
    session = opened(tmp_path)
    database = Path(session.outputs.tracking_uri.removeprefix("sqlite:///"))
    session.cells = select(session.plan, ["x=1"], ())
    assert drive(session, None, True, None) == 0
    with locked(database):
        code, printed, seconds = command(tmp_path, "run", "--inline")
        assert code == 0, printed
        assert "locked" in printed
        assert re.search(r"then: .* sync ", printed), printed
        assert seconds < 40
        check_sweep(tmp_path, calm)
    assert sync(tmp_path, None)
    check_mlflow(tmp_path, session.outputs.tracking_uri)
    check_sweep(tmp_path, calm)


def test_a_database_that_is_locked_for_some_seconds_in_the_middle_of_its_writing_is_waited_for(
    tmp_path: Path, calm: pa.Table, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = opened(tmp_path)
    database = Path(session.outputs.tracking_uri.removeprefix("sqlite:///"))
    released: list[float] = []

    def hold() -> None:
        with locked(database):
            taken.set()
            time.sleep(3.0)
            released.append(time.monotonic())

    taken = threading.Event()
    other = threading.Thread(target=hold)

    @contextmanager
    def bar(_title: str) -> Iterator[Callable[[int, int], None]]:
        def advance(done: int, _total: int) -> None:
            if done == 3:
                other.start()
                assert taken.wait(30)

        yield advance

    monkeypatch.setattr(screen, "bar", bar)
    assert run(tmp_path, None) > 3.0
    other.join()
    assert time.monotonic() > released[0]
    assert "MLflow: 6 runs written" in capsys.readouterr().out
    check_mlflow(tmp_path, session.outputs.tracking_uri)
    check_sweep(tmp_path, calm)

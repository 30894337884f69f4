"""What lies in the place of MLflow's database stops no sweep: a line says what it is, and what to do."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from servers import put_mlflow_database
from tracked_sweep import check, experiment_at, finished, opened, posted, table_of

from orchestrator.cli.show_run import run_and_show
from orchestrator.tracking.client import TrackingError
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.sync import sync_runs

pytestmark = pytest.mark.mlflow


def other(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('of tomorrow')")
        database.commit()


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (Path.mkdir, "cannot be opened (Is a directory)"),
    "a FIFO": (os.mkfifo, "cannot be opened (it is a FIFO and no regular file)"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "it is a character device"),
    "a link to itself": (lambda path: path.symlink_to(path), "cannot be opened (Too many levels"),
    "a link to nothing": (lambda path: path.symlink_to("/nowhere/at/all"), "is a link to a file that is not there"),
    "garbage": (lambda path: path.write_bytes(b"garbage" * 1000), "is no SQLite database"),
    "another version's": (other, "another version of MLflow made it"),
}


@pytest.mark.parametrize("kind", ODD)
def test_something_else_in_the_place_of_the_database_is_named_with_the_remedy(tmp_path: Path, kind: str) -> None:
    session = opened(tmp_path)
    make, words = ODD[kind]
    path = tmp_path / "mlflow.db"
    make(path)
    with pytest.raises(TrackingError) as caught:
        sync_runs(Outbox(tmp_path / "outbox"), experiment_at(session, f"sqlite:///{path}"))
    assert words in str(caught.value)
    assert "nothing is lost" in str(caught.value)
    assert "move the file away: `sweep sync` writes a new one" in str(caught.value)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield


@pytest.mark.long
def test_a_database_that_another_process_keeps_locked_is_named_with_the_remedy(tmp_path: Path) -> None:
    session, uri = opened(tmp_path), put_mlflow_database(tmp_path / "mlflow.db")
    with locked(tmp_path / "mlflow.db"), pytest.raises(TrackingError, match=r"database is locked.* end that first"):
        sync_runs(Outbox(tmp_path / "outbox"), experiment_at(session, uri))


@pytest.mark.faults
def test_a_sweep_ends_well_without_its_database_and_a_new_one_gets_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = opened(tmp_path)
    path = tmp_path / "out" / "mlflow.db"
    path.mkdir(parents=True)
    # Half of its cells fail by themselves.
    assert run_and_show(session, None, True, None) == 1
    said = capsys.readouterr()
    told = " ".join((said.out + said.err).split())
    assert "cannot be opened (Is a directory)" in told
    assert table_of(session)["status"].to_pylist().count("succeeded") == 6
    path.rmdir()
    again, _ = finished(tmp_path)
    outbox = Outbox(again.outputs.outbox)
    posted(again, outbox, table_of(again))
    sync_runs(outbox, experiment_at(again, again.tracking_uri()))
    check(again.tracking_uri())

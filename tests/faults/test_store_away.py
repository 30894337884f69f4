"""A store that is away for a while is waited for: nothing is computed twice, one line says so; then the sweep stops."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import toy_sweep
from drivers import calls
from proxy import Mode, Proxy
from toy_runs import environment, rows, run_inline

from orchestrator.attempt import outage
from orchestrator.cli.show_run import run_and_show
from orchestrator.results.parquet import read_results
from orchestrator.session import Session, open_session
from orchestrator.store import StoreError
from orchestrator.store.files import MANIFEST
from orchestrator.store.object_medium import ObjectMedium
from orchestrator.store.posix import PosixStore
from orchestrator.types import Manifest

pytestmark = pytest.mark.faults

#: One cell of five steps.
SWEEP = toy_sweep.SWEEP.replace("[1, 2, 3]", "[1]").replace("[10, 20]", "[10]")
STEPS = 5
FAILING = toy_sweep.ONE.replace("value: $x", "value: $x, behaviour: raise")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses, and every outage is told."""
    monkeypatch.setattr(outage, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(outage, "TOLD_AFTER", 0.0)


def check_calm(session: Session, outputs: str, calm: pa.Table, computed: int = STEPS) -> None:
    """The row of a calm run, and every step was computed once."""
    table = read_results(f"{outputs}/sweeps/toy").select(calm.column_names)
    assert table.num_rows == 1
    assert table.to_pylist()[0] in calm.to_pylist()
    assert calls(session.file.parent) == computed
    assert not session.store.claims()


@pytest.mark.parametrize(
    ("mode", "path", "after", "times"),
    [
        pytest.param("drop", "/claims/toy_source", 0, 4, id="claim", marks=pytest.mark.long),
        # The look whether a step is committed already.
        pytest.param("drop", "/manifests/toy_double", 0, 4, id="look", marks=pytest.mark.long),
        pytest.param("drop", "/artifacts/toy_source", 0, 4, id="upload", marks=pytest.mark.long),
        pytest.param("error500", "/artifacts/toy_total", 0, 4, id="upload_500", marks=pytest.mark.long),
        # It is written, and nobody hears of it, also when the library asks again by itself.
        pytest.param("drop_answer", "/manifests/toy_total", 1, 2, id="publish"),
    ],
)
def test_an_object_store_that_is_away_for_a_while_is_waited_for_and_nothing_is_computed_twice(
    s3: str,
    tmp_path: Path,
    proxy: Proxy,
    calm_toy: pa.Table,
    quick: None,
    capsys: pytest.CaptureFixture[str],
    mode: Mode,
    path: str,
    after: int,
    times: int,
) -> None:
    session = open_session(toy_sweep.write_sweep(tmp_path, SWEEP), outputs=s3)
    proxy.tell(mode, path, after, times)
    assert run_and_show(session, None, True, None) == 0
    assert proxy.troubled == times
    check_calm(session, s3, calm_toy)
    said = capsys.readouterr().out
    assert said.count("the store has been away for") == 1
    assert said.count("the store is back after") == 1
    assert session.store.histories([session.plan.address(number) for number in range(len(session.plan))]) == {}


def test_an_object_store_that_is_away_for_longer_stops_the_sweep_and_the_same_command_finishes_it(
    s3: str, tmp_path: Path, proxy: Proxy, calm_toy: pa.Table
) -> None:
    path = toy_sweep.write_sweep(tmp_path, SWEEP)
    # Of the driver, and of the process of its steps.
    (tmp_path / "sitecustomize.py").write_text(
        "from orchestrator.attempt import outage; "
        "outage.PATIENCE = 1.0; outage._FIRST_PAUSE = 0.1; outage.TOLD_AFTER = 0.5"
    )
    variables = environment()
    variables["PYTHONPATH"] = os.pathsep.join([str(tmp_path), variables.get("PYTHONPATH", "")])
    code = "import toy; from orchestrator.cli import main; main()"
    line = [sys.executable, "-c", code, "run", str(path), "--outputs", s3, "--inline"]
    driver = subprocess.Popen(
        line, env=variables, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while calls(tmp_path) < 2 and driver.poll() is None:
        time.sleep(0.005)
    proxy.tell("drop")
    printed, errors = driver.communicate(timeout=400)
    assert driver.returncode == 2, printed + errors
    assert "Traceback" not in errors
    assert "cannot be reached or written" in errors
    assert "(waited for 1 s)" in errors
    assert "give the same command again; nothing is lost" in errors
    assert printed.replace("\n", " ").count("the store has been away for") == 1
    proxy.tell("forward")
    session = open_session(path, outputs=s3)
    # No step has failed.
    assert set(session.results().table()["status"].to_pylist()) <= {"succeeded", "pending"}
    assert run_and_show(session, None, True, None) == 0
    # The one that waited is computed again, since its process has ended.
    assert calls(tmp_path) <= STEPS + 1
    check_calm(session, s3, calm_toy, calls(tmp_path))


@pytest.mark.parametrize("mode", ["slow_down", "half_answer"])
def test_a_request_that_fails_is_sent_three_times_and_the_outage_is_ours(
    s3: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    monkeypatch.delenv("AWS_MAX_ATTEMPTS")
    medium = ObjectMedium(s3)
    medium.replace("large", b"0123456789" * 1000)
    proxy.tell(mode)
    with pytest.raises(StoreError) as caught:
        medium.read({name: name for name in ("large", "missing")})
    assert caught.value.passes
    assert proxy.troubled <= 6
    with pytest.raises(StoreError) as caught:
        medium.state("large")
    assert caught.value.passes


@pytest.mark.ray
@pytest.mark.long
def test_on_ray_the_driver_tells_of_the_outage_that_its_workers_wait_out(
    s3: str, tmp_path: Path, proxy: Proxy, calm_toy: pa.Table
) -> None:
    path = toy_sweep.write_sweep(tmp_path)
    code = (
        "import toy; from orchestrator.attempt import outage; from orchestrator.cli import main; "
        "outage.TOLD_AFTER = 0.5; toy.connect(); main()"
    )
    line = [sys.executable, "-c", code, "run", str(path), "--outputs", s3]
    driver = subprocess.Popen(
        line, env=environment(), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while calls(tmp_path) < 4 and driver.poll() is None:
        time.sleep(0.005)
    proxy.tell("drop")
    # Longer than the libraries try by themselves.
    time.sleep(15)
    proxy.tell("forward")
    printed, errors = driver.communicate(timeout=400)
    assert driver.returncode == 0, printed + errors
    assert read_results(f"{s3}/sweeps/toy").select(calm_toy.column_names).equals(calm_toy)
    assert calls(tmp_path) == 18
    said = printed.replace("\n", " ")
    assert said.count("the store has been away for") == 1
    assert said.count("the store is back after") == 1
    assert "fails for now" not in said


@pytest.mark.long
def test_attempts_that_failed_while_the_store_was_away_are_recorded_later_and_once(
    s3: str, tmp_path: Path, proxy: Proxy, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.drive.HEARTBEAT_EVERY", 60.0)
    session = open_session(toy_sweep.write_sweep(tmp_path, FAILING), outputs=s3)
    # The first record is not written; the second is, and its answer is lost.
    proxy.tell("drop", ".1.json", 0, 1)
    assert run_and_show(session, None, True, None) == 1
    proxy.tell("drop_answer", ".2.json", 0, 1)
    assert run_and_show(open_session(session.file, outputs=s3), None, True, None) == 1
    assert proxy.troubled == 2
    (history,) = session.store.histories([session.plan.address(0)]).values()
    assert [(each.number, each.error_class, each.unrecorded) for each in history] == [
        (1, "ValueError", False),
        (2, "ValueError", False),
    ]


def test_an_object_store_that_takes_no_pulse_and_no_table_in_mid_run_ends_nothing(
    s3: str,
    tmp_path: Path,
    proxy: Proxy,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestrator.drive.HEARTBEAT_EVERY", 0.0)
    session = open_session(toy_sweep.write_sweep(tmp_path), outputs=s3)
    proxy.tell("drop", "/sweeps/", times=7)
    assert run_and_show(session, None, True, None) == 0
    assert proxy.troubled == 7
    assert read_results(f"{s3}/sweeps/toy")["status"].to_pylist() == ["succeeded"] * 6
    said = capsys.readouterr().out
    assert said.count("running.json) fails for now, the sweep goes on") == 1
    assert said.count("running.json) works again") == 1


# --- a file server


def away(
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    times: int,
    error: Callable[[], Exception],
    of: Callable[..., bool] = lambda *_, **__: True,
) -> list[float]:
    """Have a function fail so often, as with a file server that restarts; returns when it failed."""
    true, failed = getattr(owner, name), list[float]()

    def fail(*arguments: object, **more: object) -> object:
        if len(failed) < times and of(*arguments, **more):
            failed.append(time.monotonic())
            raise error()
        return true(*arguments, **more)

    monkeypatch.setattr(owner, name, fail)
    return failed


def publishing(path: object, *_: object, dir_fd: int | None = None) -> bool:
    """Whether `os.open` is to make a manifest."""
    return path == MANIFEST and dir_fd is not None


def commits_fail(monkeypatch: pytest.MonkeyPatch, times: int) -> list[float]:
    """Have it fail so often to make a manifest."""
    return away(monkeypatch, os, "open", times, stale, publishing)


def stale() -> Exception:
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def stale_store() -> Exception:
    error = StoreError("the store cannot be written: Stale file handle")
    error.__cause__ = stale()
    return error


@pytest.mark.parametrize("name", ["log_path", "fetch", "commit", "flush"])
def test_a_file_server_that_is_away_for_a_while_is_waited_for(
    tmp_path: Path,
    calm_toy: pa.Table,
    quick: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    if name == "commit":
        failed = commits_fail(monkeypatch, 3)
    else:
        # Reading an input is nothing but reading files.
        failed = away(monkeypatch, PosixStore, name, 3, stale if name == "fetch" else stale_store)
    code, session = run_inline(tmp_path, text=SWEEP)
    assert code == 0
    assert len(failed) == 3
    check_calm(session, str(tmp_path / "out"), calm_toy)
    said = capsys.readouterr().out
    assert said.count("the store has been away for") == 1
    assert said.count("the store is back after") == 1


@pytest.mark.long
def test_a_time_limit_does_not_count_the_wait_and_neither_do_the_seconds_of_the_step(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "_FIRST_PAUSE", 1.2)
    monkeypatch.setattr("random.uniform", lambda low, high: 1.0)
    # Before the stage is called, and after it.
    away(monkeypatch, PosixStore, "log_path", 1, stale_store)
    commits_fail(monkeypatch, 1)
    code, session = run_inline(tmp_path, "runtime.default.timeout=1", text=toy_sweep.ONE)
    assert code == 0
    (manifest,) = session.store.manifests([session.plan.address(0)]).values()
    assert isinstance(manifest, Manifest)
    assert manifest.attempt == 1
    assert session.store.histories([manifest.address]) == {}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_wait_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    monkeypatch.setattr(outage, "_FIRST_PAUSE", 400.0)
    failed = commits_fail(monkeypatch, 1)

    def interrupt() -> None:
        while not failed:
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run_inline(tmp_path, text=toy_sweep.ONE)[0] == code
    finally:
        signal.signal(signal.SIGINT, before)
        thread.join()


def test_where_only_one_machine_cannot_reach_the_store_its_steps_are_tried_again(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.run.retry._BACKOFF", 0.01)
    monkeypatch.setattr(outage, "PATIENCE", 0.0)
    commits_fail(monkeypatch, 1)
    code, session = run_inline(tmp_path, text=toy_sweep.ONE)
    assert code == 0
    ((attempt,),) = session.store.histories([session.plan.address(0)]).values()
    assert attempt.outcome == "io_error"
    assert "Stale file handle" in (attempt.error or "")
    assert [row["status"] for row in rows(session)] == ["succeeded"]


def test_a_store_that_was_not_reached_yet_is_not_waited_for(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    away(monkeypatch, PosixStore, "prepare", 1, stale_store)
    with pytest.raises(StoreError, match="Stale file handle"):
        run_inline(tmp_path)

"""MLflow's server is down, broken or slow: the sweep has its table all the same, and MLflow catches up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from proxy import Mode, Proxy
from servers import free_port
from tracked_toy import check_mlflow, check_sweep, check_that_it_was_told, opened, run, sync, tell_directly, writers

from orchestrator.tracking import publisher
from orchestrator.tracking.client import TrackingError
from orchestrator.types import Manifest

pytestmark = pytest.mark.faults


@pytest.fixture
def upstream(mlflow_server: str) -> int:
    """The port of a real MLflow server."""
    return int(mlflow_server.rsplit(":", 1)[1])


@pytest.fixture
def proxy(upstream: int) -> Iterator[Proxy]:
    proxy = Proxy(upstream)
    yield proxy
    proxy.close()


def test_a_server_that_was_down_during_the_run_gets_every_cell_once_it_is_up(
    tmp_path: Path, upstream: int, calm_toy: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    run(tmp_path, uri)
    check_that_it_was_told(capsys)
    check_sweep(tmp_path, calm_toy)
    assert not sync(tmp_path, uri)
    late = Proxy(upstream, port)
    try:
        run(tmp_path, uri)
        check_mlflow(tmp_path, uri)
    finally:
        late.close()
    check_sweep(tmp_path, calm_toy)


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
    tmp_path: Path, proxy: Proxy, calm_toy: pa.Table
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
    check_sweep(tmp_path, calm_toy)


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
    calm_toy: pa.Table,
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
    check_sweep(tmp_path, calm_toy)
    assert not writers(tmp_path)

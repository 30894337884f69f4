"""What `sweep doctor` says of MLflow, the Hub, endpoints, job servers, and of who listens on this machine."""

from __future__ import annotations

import contextlib
import http.server
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import free_port

from orchestrator.doctor import listeners
from orchestrator.doctor.services import endpoint, endpoints, hub, job_server, mlflow


@contextlib.contextmanager
def serving(status: int, body: object) -> Iterator[str]:
    """A server that gives every GET one answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def nobody() -> str:
    """An address where nobody answers."""
    return f"http://127.0.0.1:{free_port()}"


def test_an_mlflow_server_that_is_down_is_a_warning_since_sweeps_run_all_the_same(nobody: str) -> None:
    found = mlflow(nobody)
    assert found.state == "warning"
    assert "MLflow gets its runs later" in found.seen
    with serving(200, "OK") as address:
        assert mlflow(address).state == "ok"


def test_mlflow_s_database_is_looked_at_and_stays_as_it_is(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("create table experiments (name)")
    before = (tmp_path / "mlflow.db").read_bytes()
    assert mlflow(uri).seen == f"the database {tmp_path / 'mlflow.db'} can be written"
    assert (tmp_path / "mlflow.db").read_bytes() == before
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as another:
        another.execute("begin exclusive")
        found = mlflow(uri)
    assert found.state == "warning"
    assert "is locked by somebody" in found.seen


def test_a_folder_garbage_or_another_database_in_the_place_of_mlflow_s_is_wrong(tmp_path: Path) -> None:
    assert "is not there yet" in mlflow(f"sqlite:///{tmp_path}/new/mlflow.db").seen
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "folder").mkdir()
    (tmp_path / "garbage").write_bytes(b"garbage" * 1000)
    with contextlib.closing(sqlite3.connect(tmp_path / "other")) as other:
        other.execute("create table things (name)")
    for name, reason in (("folder", "is a folder"), ("garbage", "not a database"), ("other", "something else")):
        found = mlflow(f"sqlite:///{tmp_path / name}")
        assert found.state == "wrong", name
        assert reason in found.seen


def test_a_password_in_a_tracking_uri_is_not_shown() -> None:
    found = mlflow(f"postgresql://me:open-sesame@127.0.0.1:{free_port()}/mlflow")
    assert found.state == "warning"
    assert "sesame" not in found.seen


def test_the_hub_may_be_away_on_purpose(monkeypatch: pytest.MonkeyPatch, nobody: str) -> None:
    assert "HF_HUB_OFFLINE is set" in hub().seen
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", nobody)
    assert hub().state == "warning"
    assert "HF_HUB_OFFLINE=1" in hub().remedy
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc")
    assert "no http address" in hub().seen
    with serving(200, []) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert hub().state == "ok"


def test_an_endpoint_is_found_in_a_sweep_and_asked_without_its_key(
    monkeypatch: pytest.MonkeyPatch, nobody: str
) -> None:
    stages = [{"judge": {"endpoint": nobody, "access": {"key_env": "MY_KEY"}}}, {"endpoint": "source"}]
    assert list(endpoints({"stages": stages})) == [(nobody, "MY_KEY")]
    assert endpoint(nobody, "MY_KEY").state == "wrong"
    with serving(401, {}) as address:
        found = endpoint(address, "MY_KEY")
        assert found.state == "warning"
        assert "export MY_KEY on every node" in found.remedy
        monkeypatch.setenv("MY_KEY", "open-sesame")
        assert endpoint(address, "MY_KEY").state == "ok"
        assert "sesame" not in endpoint(address, "MY_KEY").seen


def test_a_job_server_is_told_from_other_servers(nobody: str) -> None:
    assert job_server(nobody).state == "wrong"
    with serving(200, {"hello": "world"}) as address:
        assert "no job server of Ray" in job_server(address).seen
    with serving(200, {"ray_version": "2.60.0"}) as address:
        assert job_server(address).state == "ok"


def test_who_listens_beyond_loopback_is_named_and_who_does_not_is_not(tmp_path: Path) -> None:
    # The command line tells which program it is.
    (tmp_path / "dashboards.live.page.py").write_text(
        "import socket, sys\n"
        "opened = [socket.create_server((host, 0)) for host in ('0.0.0.0', '127.0.0.1')]\n"
        "print(*(each.getsockname()[1] for each in opened), flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, str(tmp_path / "dashboards.live.page.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        everybody, here = map(int, process.stdout.readline().split())
        found = {each.port: each.program for each in listeners.open_ports()}
        told = [each for each in listeners.ports() if str(everybody) in each.seen]
        process.communicate()
    assert found[everybody] == "the live page"
    assert here not in found
    assert [each.state for each in told] == ["warning"]
    assert "there is no password" in told[0].seen


def test_a_token_that_others_can_read_or_that_is_missing_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert "there is no token" in listeners.token().seen
    path.write_text("0" * 64)
    path.chmod(0o644)
    assert listeners.token().remedy == f"chmod 600 {path}"
    path.chmod(0o600)
    assert listeners.token().state == "ok"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert "lets everybody in" in listeners.token().seen

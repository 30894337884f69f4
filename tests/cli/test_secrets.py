"""Where passwords could leave: messages, logs, commands that are shown, files of a run, a page."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import toy
import toy_sweep
from command_server import sweep
from servers import free_port

from dashboards.live.mlflow_run import run_address
from dashboards.live.watch import Subject
from orchestrator.attempt.attempt import run_attempt
from orchestrator.attempt.outcome import failed_attempt
from orchestrator.attempt.request import Request
from orchestrator.cli.job.server import JobServerError, connect
from orchestrator.command import format_command
from orchestrator.session import open_session
from orchestrator.sweep.outputs import resolve_outputs
from orchestrator.sweep.problems import SweepError
from orchestrator.tracking.client import TrackingError, check_reachable, translate_errors
from orchestrator.tracking.experiment import Experiment
from orchestrator.types import Outcome, Runtime

SECRET = "Qs3cretZ"
TRACKED = toy_sweep.SWEEP.replace("tracking: false\n", "")


class _Server(BaseHTTPRequestHandler):
    """An MLflow that knows one run, or a job server, for those who say who they are."""

    def do_GET(self) -> None:
        known = f"Basic {base64.b64encode(f'me:{SECRET}'.encode()).decode()}"
        allowed = self.headers.get("Authorization") == known
        if self.command == "POST":
            self.rfile.read(int(self.headers["Content-Length"]))
        facts = {"experiment": {"experiment_id": "7"}, "runs": [{"info": {"run_id": "r"}}]}
        body = json.dumps(facts if allowed else {}).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[int]:
    """The port of one that asks for a password."""
    server = HTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_run_leaves_the_password_of_its_mlflow_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_sweep.write_sweep(tmp_path, TRACKED)
    uri = f"http://me:{SECRET}@127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    done = sweep(tmp_path, "run", "toy.yaml", "--inline")
    shown = uri.replace(SECRET, "***")
    assert f"MLflow: {shown}" in done.stdout
    assert f"the MLflow server {shown} does not answer" in done.stdout
    said = [done.stdout, done.stderr]
    said += [path.read_text(errors="replace") for path in (tmp_path / "outputs").rglob("*") if path.is_file()]
    assert not [text for text in said if SECRET in text]


def test_commands_name_the_variable_that_holds_a_password_or_leave_it_to_be_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"postgresql://me:{SECRET}@db/my mlflow"
    assert format_command(["sweep", "sync", "--tracking-uri", uri]) == (
        "sweep sync --tracking-uri 'postgresql://me:***@db/my mlflow'"
    )
    monkeypatch.setenv("MY_DATABASE", uri)
    shown = format_command(["mlflow", "ui", "--backend-store-uri", uri])
    assert shown == 'mlflow ui --backend-store-uri "$MY_DATABASE"'
    page = Subject(Path("toy.yaml"), tracking_uri=uri)
    assert page.command("sync", "--tracking-uri", uri) == 'sweep sync toy.yaml --tracking-uri "$MY_DATABASE"'
    session = open_session(toy_sweep.write_sweep(tmp_path), [f"data=https://me:{SECRET}@host/x"])
    assert session.command("why").endswith("-s 'data=https://me:***@host/x'")


def test_mistakes_in_a_sweep_do_not_show_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"postgresql://me:{SECRET}@db/mlflow"
    files = toy_sweep.write_sweep(tmp_path, TRACKED + "data: {path: $env.MINE/x}\n")
    monkeypatch.setenv("MINE", f"/{SECRET}")
    for arguments, message in (
        ([f"tracking.uri={uri}"], "a sweep file is shown to others, so it holds no password; export the URI as"),
        ([f"tracking={uri}"], "is neither a mapping"),
        ([f"limits.wall={uri}"], "is not a duration"),
        ([], r"data\.path: cannot read \$env\.MINE/x: No such file"),
    ):
        with pytest.raises(SweepError, match=message) as caught:
            open_session(files, arguments)
        assert SECRET not in str(caught.value)
        assert not [problem for problem in caught.value.problems if SECRET in str(problem)]


def test_a_store_with_a_password_in_its_uri_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sftp://me:{SECRET}@host/sweeps"
    remedy = r"sftp://me:\*\*\*@host/sweeps' has a password in it.*FSSPEC_SFTP_PASSWORD"
    for written, chosen, store in ((uri, None, None), (None, uri, None), (None, None, uri)):
        with pytest.raises(SweepError, match=remedy):
            resolve_outputs("s", written, chosen, store)
    monkeypatch.setenv("SWEEP_OUTPUTS", uri)
    with pytest.raises(SweepError, match="SWEEP_OUTPUTS: " + "'" + remedy):
        resolve_outputs("s", None, None, None)


def test_what_mlflow_and_databases_say_is_told_without_the_password() -> None:
    uri = f"postgresql://me:{SECRET}@db/mlflow"
    with pytest.raises(TrackingError) as caught, translate_errors(uri):
        raise OSError(f"no pg_hba.conf entry, password {SECRET} of {uri} does not match\nsecond line")
    assert str(caught.value) == (
        "MLflow at postgresql://me:***@db/mlflow failed: no pg_hba.conf entry, password *** of "
        "postgresql://me:***@db/mlflow does not match; nothing is lost, run `sweep sync` later"
    )


def test_a_server_is_knocked_at_without_the_password_in_its_name(server: int) -> None:
    # Otherwise it would be taken for a part of the port.
    uri = f"http://me:{SECRET}@127.0.0.1:{server}"
    check_reachable(uri)
    assert run_address(uri, "e", "cell") == f"http://127.0.0.1:{server}/#/experiments/7/runs/r"
    with pytest.raises(TrackingError, match=r"http://me:\*\*\*@127.0.0.1:1 does not answer"):
        check_reachable(f"http://me:{SECRET}@127.0.0.1:1")
    with pytest.raises(JobServerError, match=r"no job server answers at http://me:\*\*\*@127.0.0.1:1 "):
        connect(f"http://me:{SECRET}@127.0.0.1:1")


def test_what_mlflow_has_is_noted_under_a_name_that_no_password_is_part_of() -> None:
    one, other = (Experiment(f"http://me:{word}@mlflow", "name", "") for word in (SECRET, "another"))
    assert one.target == other.target == "http://me:***@mlflow name"


def test_the_record_and_the_log_of_a_failed_step_hide_passwords_before_anything_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = open_session(toy_sweep.write_sweep(tmp_path), outputs=str(tmp_path / "out"))
    session.store.prepare()
    request = Request(session.plan.step(0), 1, Runtime(), session.store.location, "abc", "driver")
    uri = f"https://me:{SECRET}@host/data"

    def fail(*_: object) -> dict[str, float]:
        # The cut at 2,000 characters goes through the password.
        raise ValueError("x" * (2000 - len("https://me:Qs3")) + " " + uri)

    monkeypatch.setattr(toy, "source", fail)
    attempt = run_attempt(request)
    assert attempt.outcome is Outcome.FAILED
    assert "Qs3" not in str(attempt.error)
    assert SECRET not in capsys.readouterr().err
    recorded = (path.read_text() for path in (tmp_path / "out").rglob("*.json"))
    assert not [text for text in recorded if "Qs3" in text]
    lost = failed_attempt(request, Outcome.CRASHED, OSError(), 0.0, 0.0, f"died at {uri}", None)
    assert lost.error == "died at https://me:***@host/data"

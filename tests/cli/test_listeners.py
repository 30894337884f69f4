"""Who can talk to a run on one machine; docs/security.md tells it to people."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import toy_sweep
from servers import free_port, wait_until_it_answers


@pytest.mark.ray
@pytest.mark.skipif(not os.access("/proc/net/tcp", os.R_OK), reason="nobody can see here who listens")
def test_a_local_ray_listens_on_loopback_only_and_tells_a_stranger_nothing_but_its_metrics() -> None:
    # As a person starts it: with neither a mode nor a token.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    script = Path(__file__).with_name("listeners.py")
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listeners = json.loads(done.stdout.splitlines()[-1])
    assert {"gcs_server", "raylet"} <= {each["process"] for each in listeners}
    elsewhere = [
        each for each in listeners if not ipaddress.ip_address(each["host"].removeprefix("::ffff:")).is_loopback
    ]
    assert elsewhere == []
    for each in listeners:
        if each["http"] and each["http"].startswith("200"):
            assert each["http"].startswith("200 # HELP "), each
        else:
            assert each["http"] == "401 Unauthorized: Missing authentication token" or set(each["grpc"]) == {
                "UNAUTHENTICATED"
            }, each


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The port of a live page, and its process."""
    folder, port = tmp_path_factory.mktemp("page"), free_port()
    toy_sweep.write_sweep(folder)
    command = [sys.executable, "-c", "import toy; from orchestrator.cli import main; main()", "dashboard", "toy.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(Path(toy_sweep.__file__).parent)}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--no-browser"], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/_stcore/health", server, log=folder / "log")
        yield port, server
    finally:
        server.kill()
        server.wait()


def asked(port: int, path: str, **headers: str) -> tuple[int, str]:
    """The status of the answer to a GET, or to the beginning of a web socket; and all else of it."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    client.putrequest("GET", path, skip_host=True)
    for name, value in headers.items():
        client.putheader(name.replace("_", "-"), value)
    client.endheaders()
    answer = client.getresponse()
    said = str(answer.headers) + ("" if answer.status == 101 else answer.read().decode())
    client.close()
    return answer.status, said


def test_the_live_page_listens_on_loopback_only(page: tuple[int, subprocess.Popen[bytes]]) -> None:
    port, server = page
    process = psutil.Process(server.pid)
    listening = {
        (each.laddr.ip, each.laddr.port)
        for some in (process, *process.children(recursive=True))
        for each in some.net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", port)}


def test_the_live_page_tells_a_page_of_somebody_else_nothing(page: tuple[int, subprocess.Popen[bytes]]) -> None:
    port, _ = page
    ours, foreign, socket = f"127.0.0.1:{port}", f"evil.example:{port}", "/_stcore/stream"
    upgrade = {
        "Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec_WebSocket_Version": "13",
    }  # fmt: skip
    for host in (ours, f"localhost:{port}"):
        assert asked(port, socket, Host=host, Origin=f"http://{host}", **upgrade)[0] == 101
    # A page of somebody else that asks for ours, and a name of somebody else that was bent to this machine.
    for host, origin in ((ours, "http://evil.example"), (ours, "null"), (foreign, f"http://{foreign}")):
        assert asked(port, socket, Host=host, Origin=origin, **upgrade)[0] == 403
    assert asked(port, socket, Host=foreign, **upgrade)[0] == 403
    # What is there without a web socket is Streamlit's own, and nothing of a sweep.
    for path in ("/", "/?cell=1", "/_stcore/health", "/_stcore/host-config", "/_stcore/agent/openapi.json"):
        status, said = asked(port, path, Host=foreign, Origin=f"http://{foreign}")
        assert "toy" not in said, path
        assert "access-control-allow-origin" not in said.lower()
        assert status == 200 or path.startswith("/_stcore/agent")

"""Real servers on loopback, as processes of the tests."""

from __future__ import annotations

import contextlib
import random
import socket
import time
import urllib.request
from pathlib import Path
from subprocess import Popen


def free_port() -> int:
    """A port of this machine where nobody listens now.

    It lies above those that Ray gives to its workers, and below those that the system gives to outgoing connections, so
    that nobody takes it before the server starts.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def wait_until_it_answers(url: str, server: Popen[bytes], seconds: float = 120, log: Path | None = None) -> None:
    """Return as soon as a server answers a GET; an error with its log if it ends or stays silent."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        said = log.read_text()[-2000:] if log else ""
        assert server.poll() is None, f"the server of {url} ended with {server.returncode}: {said}"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"{url} does not answer")


#: Of the Ray head of the tests: where drivers connect, and where its metrics are read.
HEAD_PORT, METRICS_PORT = free_port(), free_port()

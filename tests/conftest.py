"""Fixtures that all tests share."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))
# Nothing may be downloaded in a test; the surroundings of the person who runs them must not leak in.
os.environ.update(HF_HUB_OFFLINE="1", MLFLOW_DISABLE_TELEMETRY="true", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
# Keeps Ray from writing a token into the home folder of whoever runs the tests.
os.environ.setdefault("RAY_AUTH_TOKEN", "0" * 64)
for _name in ("SWEEP_OUTPUTS", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "HH_RLHF"):
    os.environ.pop(_name, None)

# The S3 server of the tests; named before Ray starts, so that its workers know it too.
with socket.create_server(("127.0.0.1", 0)) as _free:
    S3_PORT = _free.getsockname()[1]
os.environ.update(
    AWS_ENDPOINT_URL=f"http://127.0.0.1:{S3_PORT}",
    AWS_ACCESS_KEY_ID="test",
    AWS_SECRET_ACCESS_KEY="test",
    AWS_DEFAULT_REGION="us-east-1",
)

import toy  # noqa: E402

toy.install()


@pytest.fixture(autouse=True)
def _toy_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of a toy stage in this process, or in one it starts, is a line of `toy.calls(tmp_path)`."""
    monkeypatch.setenv("TOY_TRACE", str(tmp_path / "toy-trace"))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A real local Ray whose workers know the toy stages."""
    import ray

    toy.connect()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[None]:
    """A real S3 server on loopback."""
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(S3_PORT)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", S3_PORT), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, "the S3 server did not start"
                time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def s3(_s3_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of an empty place in a bucket; what is fetched from it is cached below the test's own folder."""
    import s3fs

    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem().mkdir(bucket)
    return f"s3://{bucket}/folder"

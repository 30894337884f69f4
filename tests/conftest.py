"""Fixtures that all tests share."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TESTS = Path(__file__).parent
# Tests of one room use what those of another define; the folders of `tests/stages` have helpers of their own.
sys.path[:0] = [str(TESTS), *(str(each) for each in TESTS.iterdir() if each.is_dir() and each.name != "stages")]
# Nothing may be downloaded in a test; the surroundings of the person who runs them must not leak in.
os.environ.update(HF_HUB_OFFLINE="1", MLFLOW_DISABLE_TELEMETRY="true", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
# Several test processes share the cores: threads that wait must not spin, and one per process is enough.
os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
# Keeps Ray from writing a token into the home folder of whoever runs the tests.
os.environ.setdefault("RAY_AUTH_TOKEN", "0" * 64)
for _name in ("SWEEP_OUTPUTS", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "HH_RLHF"):
    os.environ.pop(_name, None)

import servers  # noqa: E402
from servers import HEAD_PORT, METRICS_PORT, free_port, kill_group, wait_until_it_answers  # noqa: E402

# The S3 server of the tests; named before Ray starts, so that its workers know it too.
S3_PORT = free_port()
os.environ.update(
    AWS_ENDPOINT_URL=f"http://127.0.0.1:{S3_PORT}",
    AWS_ACCESS_KEY_ID="test",
    AWS_SECRET_ACCESS_KEY="test",
    AWS_DEFAULT_REGION="us-east-1",
)

# No test asserts a time: a busy machine takes longer over an example.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

import parts  # noqa: E402
import toy  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    parts.forbid_what_is_left_out(config.option.markexpr)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return parts.is_left_out(collection_path, config.option.markexpr) or None


def pytest_collection_finish() -> None:
    # What is imported by now stays: nobody looks for garbage in it again, which takes a second each time.
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    # Libraries complain of what is left when Python ends.
    gc.unfreeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    parts.mark(items)


@pytest.fixture(autouse=True)
def _toy_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of a toy stage in this process, or in one it starts, is a line of `toy-trace` in `tmp_path`."""
    monkeypatch.setenv("TOY_TRACE", str(tmp_path / "toy-trace"))


@pytest.fixture(scope="session")
def _ray_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the workers of the Ray that the tests share trace and cache; at the end that Ray is stopped."""
    yield tmp_path_factory.mktemp("ray")
    import ray

    ray.shutdown()


@pytest.fixture
def local_ray(_ray_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real local Ray whose workers know the toy stages; an executor that stops leaves it to the next test."""
    import ray

    # Its workers outlive this test, and trace where this name leads to.
    trace = _ray_folder / "toy-trace"
    trace.unlink(missing_ok=True)
    trace.symlink_to(tmp_path / "toy-trace")
    if not ray.is_initialized():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TOY_TRACE", str(trace))
            patch.setenv("SWEEP_CACHE", str(_ray_folder / "cache"))
            toy.connect()
    monkeypatch.setattr(ray, "shutdown", lambda: None)


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[None]:
    """A real S3 server on loopback."""
    server = subprocess.Popen(
        [sys.executable, str(TESTS / "s3_server.py"), str(S3_PORT)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_it_answers(f"http://127.0.0.1:{S3_PORT}/moto-api/data.json", server)
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


@pytest.fixture(scope="session")
def start_mlflow() -> Callable[[Path, int], AbstractContextManager[subprocess.Popen[bytes]]]:
    """Starts a real MLflow server that a test may kill."""
    return servers.start_mlflow


@pytest.fixture(scope="session")
def mlflow_server(
    start_mlflow: Callable[[Path, int], AbstractContextManager[subprocess.Popen[bytes]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The URI of a real MLflow server, which all tests share: each has experiments of its own names."""
    port = free_port()
    with start_mlflow(tmp_path_factory.mktemp("mlflow"), port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def chromium() -> Iterator[Browser]:
    """A real browser."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if not path:
        pytest.skip("there is no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium does not start as root with its sandbox.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def head_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Ray head and of those who submit jobs to it.

    Its workers outlive a test: they trace calls of toy stages at `TOY_TRACE`, which a test may make lead to its own.
    """
    # The interpreter line finds python on the PATH of the process that started the head.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    trace = tmp_path_factory.mktemp("head") / "toy-trace"
    more = {"RAY_AUTH_MODE": "disabled", "RAY_metrics_report_interval_ms": "500", "TOY_TRACE": str(trace)}
    return {**os.environ, "PATH": path, **more}


@pytest.fixture(scope="session")
def head(head_environment: dict[str, str]) -> Iterator[str]:
    """Address of the job server of a real Ray head on two cores."""
    # Not pytest's folder: the path of a Unix socket may have at most 107 characters.
    folder = tempfile.mkdtemp(prefix="ray-")
    log = Path(folder, "head.log")
    dashboard = free_port()
    command = [
        "ray", "start", "--head", "--block", "--num-cpus", "2", "--disable-usage-stats", "--temp-dir", folder,
        "--port", str(HEAD_PORT), "--metrics-export-port", str(METRICS_PORT), "--dashboard-port", str(dashboard),
        "--ray-client-server-port", str(free_port()),
        # Otherwise the agents of two Ray instances on one machine want the same port, and this one takes no jobs.
        "--dashboard-agent-listen-port", str(free_port()),
    ]  # fmt: skip
    address = f"http://127.0.0.1:{dashboard}"

    def start() -> subprocess.Popen[bytes]:
        with log.open("wb") as said:
            return subprocess.Popen(
                command, env=head_environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            )

    process = start()
    try:
        for last in (False, False, True):
            try:
                wait_until_it_answers(f"{address}/api/version", process, log=log)
                break
            except AssertionError:
                # Ray gives its own processes 30 s to start, which a machine that runs four test suites may not keep.
                if last or "timed out during startup" not in log.read_text():
                    raise
                kill_group(process)
                process = start()
        yield address
    finally:
        # Ray's processes are in one group; a head that blocks takes longer than its patience to stop by itself.
        kill_group(process)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def quick_collector() -> None:
    """For thousands of small tests of a family: statsmodels collects garbage in each, among all imported libraries."""
    import statsmodels.stats.anova
    import statsmodels.stats.multitest  # noqa: F401

    gc.collect()
    gc.freeze()

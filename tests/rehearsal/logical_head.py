"""A Ray head with more cores and GPUs than there are, jobs on it, and what its processes take of the memory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from servers import free_port, kill_group, wait_until_it_answers

REPOSITORY = Path(__file__).parents[2]
#: Makes stages that ask for a GPU compute on the CPU.
NO_CUDA = Path(__file__).parent / "no_cuda"
#: Of which there are none.
GPUS = 2


@dataclass(frozen=True)
class Head:
    """A Ray head that takes jobs."""

    process: psutil.Process
    environment: Mapping[str, str]
    session: Path
    """Folder that Ray keeps everything in."""

    def submit(self, name: str, outputs: Path, log: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
        """Give the command of docs/cluster.md, in the repository; what it prints goes to a file.

        Args:
            name: of the job, for `stop`.
            outputs: the output root.
            log: the file.
            arguments: the sweep file, and what follows it.
        """
        variables = json.dumps({"env_vars": {"SWEEP_OUTPUTS": str(outputs)}})
        options = ["--working-dir", ".", "--submission-id", name, "--runtime-env-json", variables]
        with log.open("wb") as said:
            return subprocess.Popen(
                ["ray", "job", "submit", *options, "--", *arguments],
                cwd=REPOSITORY, env=self.environment, stdout=said, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def stop(self, name: str) -> None:
        """Stop a job as its user would; returns when it has ended."""
        subprocess.run(["ray", "job", "stop", name], env=self.environment, check=True, capture_output=True)

    def package(self) -> tuple[int, int]:
        """Return how many files Ray has unpacked of the working directory, and their bytes."""
        places = self.session.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/**/*")
        sizes = [path.stat().st_size for path in places if path.is_file()]
        return len(sizes), sum(sizes)

    def memory(self) -> dict[str, tuple[int, int]]:
        """Return how many processes of each kind there are and how many bytes they have resident."""
        found: dict[str, tuple[int, int]] = {}
        for process in self.process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                command, parent = process.cmdline(), process.parent()
                kind = _kind(command)
                if kind == "driver" and parent and parent.cmdline() == command:
                    # Forked a moment ago, to run another program: it has the pages of the driver.
                    continue
                count, resident = found.get(kind, (0, 0))
                found[kind] = (count + 1, resident + process.memory_info().rss)
        return found


def _kind(command: list[str]) -> str:
    words = [Path(command[0]).name, *command[1:]] if command else [""]
    if words[0].startswith("python") and "orchestrator" in words and "run" in words:
        return "driver"
    if "orchestrator.tracking.writer" in words:
        return "MLflow writer"
    return "workers" if words[0].startswith("ray::") and "JobSupervisor" not in words[0] else "Ray"


@contextlib.contextmanager
def start_head(cache: Path, cores: int) -> Iterator[Head]:
    """Start a head on loopback ports of its own; in the end all its processes are killed.

    Args:
        cache: folder for what workers cache (SWEEP_CACHE).
        cores: how many Ray is told that there are.
    """
    # The interpreter line of a sweep file finds python on the PATH of the process that started the head.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SWEEP_"))}
    environment |= {"PATH": path, "PYTHONPATH": str(NO_CUDA), "SWEEP_CACHE": str(cache)}
    environment |= {"HF_HUB_OFFLINE": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "RAY_AUTH_MODE": "disabled"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    # The path of a Unix socket may have at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    log = folder / "head.log"
    dashboard = free_port()
    command = [
        "ray", "start", "--head", "--block", "--num-cpus", str(cores), "--num-gpus", str(GPUS),
        "--disable-usage-stats", "--temp-dir", str(folder), "--port", str(free_port()),
        "--dashboard-port", str(dashboard), "--metrics-export-port", str(free_port()),
        "--ray-client-server-port", str(free_port()), "--dashboard-agent-listen-port", str(free_port()),
    ]  # fmt: skip
    address = f"http://127.0.0.1:{dashboard}"
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_until_it_answers(f"{address}/api/version", process, log=log)
        yield Head(psutil.Process(process.pid), {**environment, "RAY_ADDRESS": address}, folder)
    finally:
        descendants = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        kill_group(process)
        # Jobs are in sessions of their own.
        for each in descendants:
            with contextlib.suppress(psutil.Error):
                each.kill()
        shutil.rmtree(folder, ignore_errors=True)

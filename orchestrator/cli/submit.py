"""`sweep submit`: the working directory as a Ray job that runs a sweep, and its log as progress.

Nothing of a sweep is kept in a job: it may be stopped, lost and submitted again, and only what is missing is run.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import re
import secrets
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.command import program, spell
from orchestrator.redact import bare, redact
from orchestrator.run.shutdown import INTERRUPTED
from orchestrator.session import Session
from orchestrator.sweep.document import Problem, SweepError
from orchestrator.sweep.outputs import ENVIRONMENT, lost_in_a_job

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

#: The files of a package may have so many bytes together. It goes through the head's memory, once to every node.
LIMIT = 5_000_000
#: Never part of a package, in the syntax of .gitignore: what is made here, what is only for whoever changes the code,
#: and what may hold secrets. What git, .gitignore or .rayignore ignore is left out too.
LEFT_OUT = (
    ".git", ".ci", ".github", ".venv", "venv", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info",
    "/tests", "/build", "/outputs", "/mlruns", "*.parquet", "*.safetensors", "*.db", ".env*",
)  # fmt: skip
#: What a job gets of the submitter's environment.
_PASSED_ON = (ENVIRONMENT, "MLFLOW_TRACKING_URI")
#: Seconds for the first answer of a job server; seconds of silence after which a job is no longer watched.
_KNOCK, _PATIENCE = 5.0, 300.0


class JobServerError(Exception):
    """There is no job server at the address, or it does not take the job."""


def submit(
    session: Session,
    options: Mapping[str, Sequence[str] | str | int | None],
    address: str | None,
    wait: bool,
    grace: int,
) -> int:
    """Run a sweep as a Ray job; returns the exit code.

    Args:
        session: the sweep, opened here so that its mistakes are found before anything is uploaded.
        options: options of `sweep run` for the job, by name; None is left out, a list is repeated.
        address: http://HEAD:8265; default: RAY_ADDRESS.
        wait: whether to print the job's log until it ends.
        grace: seconds that running steps have to end once the job is told to stop.

    Raises:
        SweepError: the job could not run here or there as asked; nothing was uploaded.
    """
    root = Path.cwd()
    passed_on = {name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)}
    words = list(_spell(options))
    _check_places(session, options, passed_on, words)
    file = _inside(root, session.file)
    if file is None:
        message = f"lies outside of {root}, which is uploaded for the job; copy it there, e.g. into sweeps/"
        raise SweepError([Problem(str(session.file), "", message)])
    files = package_files(root)
    _check_package(session, root, file, files)
    address = (address or os.environ.get("RAY_ADDRESS") or "").rstrip("/")
    moment = time.strftime("%Y%m%d-%H%M%S")
    job = _Job(
        address=address,
        id=f"{session.spec.name}-{moment}-{secrets.token_hex(2)}",
        grace=grace,
        again=spell(
            [
                *(["env", *(f"{name}={value}" for name, value in passed_on.items())] if passed_on else []),
                *program(), "submit", str(session.file), *words, "--address", address, "--grace", str(grace),
            ]
        ),
    )  # fmt: skip
    try:
        client = _connect(address)
        with tempfile.TemporaryDirectory(prefix="sweep-submit-") as folder:
            package = Path(folder) / "package.zip"
            write_package(root, files, package)
            client.submit_job(
                entrypoint=shlex.join(["python", "-m", "orchestrator", "run", file.as_posix(), *words]),
                submission_id=job.id,
                # The process that sends SIGTERM reads its patience from the environment of its job.
                runtime_env={
                    "working_dir": str(package),
                    "env_vars": {**passed_on, "RAY_JOB_STOP_WAIT_TIME_S": str(grace)},
                },
            )
    except JobServerError as error:
        print(error, file=sys.stderr)
        return 2
    except _trouble() as error:
        print(f"{redact(address)} does not take the job: {_first_line(error)}. Nothing was run.", file=sys.stderr)
        return 2
    megabytes = sum(files.values()) / 1e6
    print(f"submitted {job.id}: {len(files)} files, {megabytes:.1f} MB", flush=True)
    if not wait:
        print(job.advice())
        return 0
    try:
        return _follow(client, job)
    except KeyboardInterrupt:
        print(f"\nno longer watched; the job goes on\n{job.advice()}", flush=True)
        return INTERRUPTED


@dataclass(frozen=True)
class _Job:
    """A submitted job."""

    address: str
    id: str
    """Fresh for every attempt: Ray takes none twice."""
    grace: int
    again: str
    """The command that submits the sweep once more."""

    def advice(self) -> str:
        """How to watch, stop and resume it."""
        at = spell(["--address", self.address])
        return (
            f"watch:  ray job logs {at} --follow {self.id}\n"
            f"stop:   ray job stop {at} {self.id}    (running steps have {self.grace} s to end)\n"
            f"resume: {self.again}"
        )


def package_files(root: Path) -> dict[Path, int]:
    """The files of the package of a working directory, relative to it, and their sizes in bytes."""
    # What plain `ray job submit` would take, so that .gitignore and .rayignore mean the same in both.
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    found: dict[Path, int] = {}

    def note(path: Path) -> None:
        if path.is_file():
            found[path.relative_to(root)] = path.stat().st_size

    quiet = logging.getLogger(f"{__name__}.quiet")
    quiet.setLevel(logging.ERROR)
    excludes = _get_excludes(root, [*LEFT_OUT, *_ignored_by_git(root)])
    _dir_travel(root, [excludes], note, include_gitignore=True, logger=quiet)
    return dict(sorted(found.items()))


def write_package(root: Path, files: Mapping[Path, int], package: Path) -> None:
    """The files as an archive that Ray unpacks into the working directory of the job; run bits are kept."""
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for path in files:
            archive.write(root / path, path)


def _ignored_by_git(root: Path) -> list[str]:
    """What git ignores in a checkout, by whichever of its files, as patterns that match nothing else."""
    command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z"]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return ["/" + re.sub(r"([*?\[\]\\ ])", r"\\\1", path) for path in listed.split("\0") if path]


def _check_package(session: Session, root: Path, file: Path, files: Mapping[Path, int]) -> None:
    missing = [name for name in ("orchestrator/__main__.py", "workers/stages.py") if Path(name) not in files]
    if missing:
        message = f"is uploaded for the job but has no {missing[0]}; give the command in the root of the repository"
        raise SweepError([Problem(str(root), "", message)])
    needed = [
        file,
        *(path for path in (_inside(root, each) for each in _data(session.spec.document.value)) if path),
    ]
    left_out = {
        path: part
        for path in needed
        for part in ([each.relative_to(root) for each in (root / path).rglob("*") if each.is_file()] or [path])
        if part not in files
    }
    if left_out:
        message = (
            "is not uploaded: git, .gitignore or .rayignore ignores it, or it is of a kind that never is "
            f"({', '.join(LEFT_OUT)}); move it, or put it where all nodes see it and name it by an absolute path"
        )
        raise SweepError([Problem(str(part), "", message) for part in left_out.values()])
    total = sum(files.values())
    if total > LIMIT:
        sizes = Counter({str(path): size for path, size in files.items()})
        for path, size in files.items():
            for folder in path.parents[:-1]:
                sizes[f"{folder}/"] += size
        largest = ", ".join(f"{name} ({size / 1e6:.1f} MB)" for name, size in sizes.most_common(3))
        message = (
            f"would be a package of {total / 1e6:.1f} MB for every node, more than {LIMIT / 1e6:g} MB; "
            f"exclude what the job does not need in .rayignore; largest: {largest}"
        )
        raise SweepError([Problem(str(root), "", message)])


def _check_places(
    session: Session, options: Mapping[str, Any], passed_on: Mapping[str, str], words: Sequence[str]
) -> None:
    """A place that the job would lose, or a password that everybody at the job server could read."""
    problems = []
    roots = (("--outputs", options.get("--outputs")), ("store:", session.spec.store))
    root = next((each for each in (*roots, (ENVIRONMENT, passed_on.get(ENVIRONMENT))) if each[1]), None)
    for source, value in (root or ("", None), ("--store", options.get("--store"))):
        problems += lost_in_a_job(value, source)
    for source, value in [*passed_on.items(), *(("the options", word) for word in words)]:
        if redact(value) != value:
            message = (
                "a password in a URI would be shown to everybody who reaches the job server; leave it out, and give "
                "the credentials to the nodes, e.g. MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
            problems.append(Problem(source, "", message))
    if problems:
        raise SweepError(problems)


def _inside(root: Path, path: Path) -> Path | None:
    """A path relative to the working directory; None outside of it."""
    # Its folder is resolved, not itself: a link in the working directory is uploaded as what it points to.
    whole = path.absolute().parent.resolve() / path.name
    return whole.relative_to(root) if whole.is_relative_to(root) else None


def _data(value: Any) -> Iterator[Path]:
    """The local files and folders that a sweep names."""
    if isinstance(value, dict):
        if set(value) == {"path", "sha256"}:
            yield Path(value["path"])
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _data(each)


def _spell(options: Mapping[str, Sequence[str] | str | int | None]) -> Iterator[str]:
    for name, value in options.items():
        if value is not None:
            for each in [str(value)] if isinstance(value, str | int) else value:
                yield from (name, each)


def _connect(address: str) -> JobSubmissionClient:
    remedy = "pass --address http://HEAD:8265 (`ray start --head` prints it as the dashboard). Nothing was run."
    shown = redact(address)
    if not address:
        raise JobServerError(
            "No Ray job server given: pass --address http://HEAD:8265 or set RAY_ADDRESS. Nothing was run."
        )
    if not address.startswith(("http://", "https://")):
        raise JobServerError(f"{shown} is not the address of a job server; {remedy}")
    # Ray's client waits for ever for one who listens and stays silent.
    try:
        with urllib.request.urlopen(f"{bare(address)}/api/version", timeout=_KNOCK) as answer:
            found = json.load(answer)
        if not isinstance(found, dict) or "ray_version" not in found:
            raise JobServerError(f"{shown} answers, but it is not a Ray job server; {remedy}")
    except urllib.error.HTTPError as error:
        # One that wants a token is asked by Ray's client, which has it.
        if error.code not in (401, 403):
            message = f"{shown} answers, but it is not a Ray job server ({_first_line(error)}); {remedy}"
            raise JobServerError(message) from error
    except OSError as error:
        raise JobServerError(f"no job server answers at {shown} ({_first_line(error)}); {remedy}") from error
    except (ValueError, http.client.HTTPException) as error:
        raise JobServerError(f"{shown} answers, but it is not a Ray job server; {remedy}") from error
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    # In the eyes of Ray's client RAY_ADDRESS is more than what it is told.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    # It talks of its connections between the lines of the job.
    for name in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        remedy = "export RAY_AUTH_MODE=token, and the token of the head as RAY_AUTH_TOKEN. Nothing was run."
        raise JobServerError(f"{shown} wants a token ({_first_line(error)}); {remedy}") from error


def _trouble() -> tuple[type[Exception], ...]:
    """How requests to a job server fail."""
    import aiohttp
    from ray.exceptions import RayError

    return (OSError, RuntimeError, ValueError, RayError, aiohttp.ClientError)


def _first_line(error: Exception) -> str:
    return redact(str(error).strip() or type(error).__name__).splitlines()[0]


class _Log:
    """The log of a job, printed once however often the stream breaks."""

    def __init__(self, client: JobSubmissionClient, job: str) -> None:
        self._client = client
        self._job = job
        self._printed = 0

    async def tail(self) -> None:
        """Print what comes until the stream ends."""
        position = 0
        # Every stream begins at the beginning.
        async for text in self._client.tail_job_logs(self._job):
            self._print(text[max(0, self._printed - position) :])
            position += len(text)

    def rest(self) -> None:
        """Print what is left of the log of a job that ended."""
        self._print(self._client.get_job_logs(self._job)[self._printed :])

    def _print(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        self._printed += len(text)


def _follow(client: JobSubmissionClient, job: _Job) -> int:
    """Print a job's log until it ends; returns the exit code."""
    log = _Log(client, job.id)
    heard, trouble = time.monotonic(), ""
    while time.monotonic() - heard < _PATIENCE:
        try:
            asyncio.run(log.tail())
        except _trouble() as error:
            trouble = _first_line(error)
        try:
            details = client.get_job_info(job.id)
            heard = time.monotonic()
            if details.status.is_terminal():
                log.rest()
                return _conclude(job, details)
        except _trouble() as error:
            trouble = _first_line(error)
        time.sleep(1)
    print(
        f"{redact(job.address)} does not answer any more ({trouble}); the job may still run\n{job.advice()}", flush=True
    )
    return 1


def _conclude(job: _Job, details: JobDetails) -> int:
    status = details.status.value
    code = 0 if status == "SUCCEEDED" else details.driver_exit_code or 1
    # A shell's spelling of a process that died of a signal.
    code = 128 - code if code < 0 else code
    if details.driver_exit_code is None and details.message and status == "FAILED":
        # It never began, so the log does not tell why.
        print(details.message)
    print(f"{job.id} {status.lower()}, exit code {code}; resume, extend or confirm it: {job.again}", flush=True)
    return code

"""A Ray job server: start a job there, and print its log until it ends."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.command import format_command
from orchestrator.redact import bare, redact
from orchestrator.texts import plain_text

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

#: Seconds for the first answer of a job server.
_CONNECT_TIMEOUT = 5.0
#: Seconds without any answer after which a job is no longer watched.
_SILENCE_TIMEOUT = 300.0


class JobServerError(Exception):
    """There is no job server at the address, or it does not take the job."""


@dataclass(frozen=True)
class Job:
    """A submitted job."""

    address: str
    id: str
    """Fresh for every attempt: Ray takes none twice."""
    grace: int
    again: str
    """The command that submits the sweep once more."""

    def advice(self) -> str:
        """Format the commands that watch, stop and resume it."""
        at = format_command(["--address", self.address])
        return (
            f"watch:  ray job logs {at} --follow {self.id}\n"
            f"stop:   ray job stop {at} {self.id}    (running steps have {self.grace} s to end)\n"
            f"resume: {self.again}"
        )


def connect(address: str) -> JobSubmissionClient:
    """Connect to a job server.

    Raises:
        JobServerError: none answers at the address, or it wants a token; with the remedy.
    """
    remedy = "pass --address http://HEAD:8265 (`ray start --head` prints it as the dashboard). Nothing was run."
    shown = redact(address)
    if not address:
        raise JobServerError(
            "No Ray job server given: pass --address http://HEAD:8265 or set RAY_ADDRESS. Nothing was run."
        )
    if not address.startswith(("http://", "https://")):
        raise JobServerError(f"{shown} is not the address of a job server; {remedy}")
    # Ray's client has no timeout: it waits for ever for a server that accepts and never answers.
    try:
        with urllib.request.urlopen(f"{bare(address)}/api/version", timeout=_CONNECT_TIMEOUT) as answer:  # noqa: S310 (http)
            found = json.load(answer)
        if not isinstance(found, dict) or "ray_version" not in found:
            raise JobServerError(f"{shown} answers, but it is not a Ray job server; {remedy}")
    except urllib.error.HTTPError as error:
        # It wants a token, which Ray's client has.
        if error.code not in (401, 403):
            message = f"{shown} answers, but it is not a Ray job server ({_first_line(error)}); {remedy}"
            raise JobServerError(message) from error
    except OSError as error:
        raise JobServerError(f"no job server answers at {shown} ({_first_line(error)}); {remedy}") from error
    except (ValueError, http.client.HTTPException) as error:
        raise JobServerError(f"{shown} answers, but it is not a Ray job server; {remedy}") from error
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    # Ray's client prefers RAY_ADDRESS to its argument, and this variable to both.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    # It reports connections and ignored folders between the lines of the job.
    for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env"):
        logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        remedy = "export RAY_AUTH_MODE=token, and the token of the head as RAY_AUTH_TOKEN. Nothing was run."
        raise JobServerError(f"{shown} wants a token ({_first_line(error)}); {remedy}") from error


def start(job: Job, command: str, runtime_env: Mapping[str, Any]) -> JobSubmissionClient:
    """Start a job; returns the client that did.

    Args:
        job: the job.
        command: its entry point, for a shell.
        runtime_env: as Ray takes it; a local `working_dir` is packaged and uploaded by Ray.

    Raises:
        JobServerError: nothing was started, with the remedy.
    """
    try:
        client = connect(job.address)
        client.submit_job(entrypoint=command, submission_id=job.id, runtime_env=dict(runtime_env))
    except JobServerError:
        # Told without importing Ray.
        raise
    except _trouble() as error:
        message = f"{redact(job.address)} does not take the job: {_first_line(error)}. Nothing was run."
        raise JobServerError(message) from error
    return client


def _trouble() -> tuple[type[Exception], ...]:
    """List the errors with which requests to a job server fail."""
    import aiohttp
    from ray.exceptions import RayError

    return (OSError, RuntimeError, ValueError, RayError, aiohttp.ClientError)


def _first_line(error: Exception) -> str:
    return plain_text(redact(str(error).strip() or type(error).__name__)).splitlines()[0]


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
        # What the job printed, and Ray's words around it.
        sys.stdout.write(plain_text(text))
        sys.stdout.flush()
        self._printed += len(text)


def follow(client: JobSubmissionClient, job: Job) -> int:
    """Print a job's log until it ends; returns the exit code."""
    log = _Log(client, job.id)
    heard, trouble = time.monotonic(), ""
    while time.monotonic() - heard < _SILENCE_TIMEOUT:
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
    print(f"{redact(job.address)} no longer answers ({trouble}); the job may still run\n{job.advice()}", flush=True)
    return 1


def _conclude(job: Job, details: JobDetails) -> int:
    status = details.status.value
    code = 0 if status == "SUCCEEDED" else details.driver_exit_code or 1
    # As a shell reports a process that died of a signal.
    code = 128 - code if code < 0 else code
    if details.driver_exit_code is None and details.message and status == "FAILED":
        # It never began, so the log does not say why.
        print(plain_text(redact(details.message)))
    print(f"{job.id} {status.lower()}, exit code {code}; resume, extend or confirm it: {job.again}", flush=True)
    return code

"""`sweep submit`: run a sweep as a Ray job with a copy of the working directory, and print its log.

Nothing of a sweep is kept in a job: it may be stopped, lost and submitted again, and only what is missing is run.
"""

from __future__ import annotations

import os
import secrets
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.sweep_command import ErrorClass, MaxCells, TrackingUri, sweep_command
from orchestrator.command import format_command, program, repeat_options
from orchestrator.redact import redact_uris
from orchestrator.sweep.outputs import ENVIRONMENT, lost_in_a_job
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.texts import plain_text

if TYPE_CHECKING:
    from orchestrator.session import Session

app = typer.Typer()

#: What a job gets of the submitter's environment.
_PASSED_ON = (ENVIRONMENT, "MLFLOW_TRACKING_URI")


@sweep_command(
    app,
    up_to=True,
    rich_help_panel="Run",
    epilog="Example:\nsweep submit sweeps/full.yaml --address http://HEAD:8265 --outputs /shared/sweeps",
)
def submit(
    session: Session,
    error: ErrorClass = None,
    max_cells: MaxCells = None,
    tracking_uri: TrackingUri = None,
    address: Annotated[
        str | None, typer.Option("--address", metavar="URL", help="Ray's job server; default: RAY_ADDRESS.")
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return once the job is submitted.")] = False,
    grace: Annotated[
        int,
        typer.Option("--grace", metavar="SECONDS", min=1, help="Time for running steps to end if the job is stopped."),
    ] = 60,
) -> None:
    """Run on a cluster: upload the working directory, run the sweep there as a Ray job, and print the job's log.

    Files that git or .rayignore ignores are not uploaded.

    Exit code: 0 the job succeeded, else that of `sweep run` in the job, 1 if Ray reports none (e.g. the job was
    stopped), 2 nothing was run, 130 no longer watching (Ctrl-C; the job goes on).
    """
    chosen = {"--stage": session.entry, "--error": error, "--max-cells": max_cells}
    words = [*session.places, *session.selection, *repeat_options({"--tracking-uri": tracking_uri, **chosen})]
    raise typer.Exit(submit_job(session, words, address, not no_wait, grace))


def submit_job(session: Session, words: Sequence[str], address: str | None, wait: bool, grace: int) -> int:
    """Run a sweep as a Ray job; returns the exit code.

    Args:
        session: the sweep, opened here so that its mistakes are found before anything is uploaded.
        words: options of `sweep run` for the job.
        address: http://HEAD:8265; default: RAY_ADDRESS.
        wait: whether to print the job's log until it ends.
        grace: seconds that running steps have to end once the job is stopped.

    Raises:
        SweepError: the job could not run here or there as asked; nothing was uploaded.
    """
    from orchestrator.cli.job.package import check_package, inside, package_files
    from orchestrator.cli.job.server import Job, JobServerError, follow, start
    from orchestrator.run.shutdown import INTERRUPTED
    from orchestrator.study.copy import excludes

    root = Path.cwd()
    passed_on = {name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)}
    _check_places(session, passed_on, words)
    file = inside(root, session.file)
    if file is None:
        message = f"lies outside of {root}, which is uploaded for the job; copy it there, e.g. into sweeps/"
        raise SweepError([Problem(str(session.file), "", message)])
    patterns = excludes(root)
    files = package_files(root, patterns)
    check_package(session, root, file, files)
    address = (address or os.environ.get("RAY_ADDRESS") or "").rstrip("/")
    moment = time.strftime("%Y%m%d-%H%M%S")
    job = Job(
        address=address,
        id=f"{session.spec.name}-{moment}-{secrets.token_hex(2)}",
        grace=grace,
        again=format_command(
            [
                *(["env", *(f"{name}={value}" for name, value in passed_on.items())] if passed_on else []),
                *program(), "submit", str(session.file), *words, "--address", address, "--grace", str(grace),
            ]
        ),
    )  # fmt: skip
    command = shlex.join(["python", "-m", "orchestrator", "run", file.as_posix(), *words])
    # The process that sends SIGTERM reads its patience from the environment of its job.
    variables = {**passed_on, "RAY_JOB_STOP_WAIT_TIME_S": str(grace)}
    try:
        client = start(job, command, {"working_dir": str(root), "excludes": patterns, "env_vars": variables})
    except JobServerError as error:
        print(plain_text(str(error)), file=sys.stderr)
        return 2
    megabytes = sum(files.values()) / 1e6
    print(f"submitted {job.id}: {len(files)} files, {megabytes:.1f} MB", flush=True)
    if not wait:
        print(job.advice())
        return 0
    try:
        return follow(client, job)
    except KeyboardInterrupt:
        print(f"\nno longer watched; the job goes on\n{job.advice()}", flush=True)
        return INTERRUPTED


def _check_places(session: Session, passed_on: Mapping[str, str], words: Sequence[str]) -> None:
    """Refuse a place that the job would lose, and a password that everybody at the job server could read."""
    problems = []
    given = dict(zip(session.places[::2], session.places[1::2], strict=True))
    roots = (("--outputs", given.get("--outputs")), ("store:", session.spec.store))
    root = next((each for each in (*roots, (ENVIRONMENT, passed_on.get(ENVIRONMENT))) if each[1]), None)
    for source, value in (root or ("", None), ("--store", given.get("--store"))):
        problems += lost_in_a_job(value, source)
    for source, value in [*passed_on.items(), *(("the options", word) for word in words)]:
        if redact_uris(value) != value:
            message = (
                "a password in a URI would be shown to everybody who reaches the job server; leave it out, and give "
                "the credentials to the nodes, e.g. MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
            problems.append(Problem(source, "", message))
    if problems:
        raise SweepError(problems)

"""Where the results of a sweep go."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.extras import lacking
from orchestrator.redact import redact_uris
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.sweep.written_path import expand_home
from orchestrator.texts import plain_text

if TYPE_CHECKING:
    from upath import UPath

ENVIRONMENT = "SWEEP_OUTPUTS"


@dataclass(frozen=True)
class Outputs:
    """The places where one sweep keeps its results."""

    root: Path | UPath
    """A folder, or a place in an object store."""
    reason: str
    """Why it is this root, for the first lines of a run."""
    sweep: str
    store_override: str | None = None

    @property
    def store(self) -> str:
        """The store of artifacts and attempts, which all sweeps of this root share."""
        return self.store_override or str(self.root / "store")

    @property
    def folder(self) -> Path | UPath:
        """The folder of what belongs to this sweep alone."""
        return self.root / "sweeps" / self.sweep

    @property
    def results(self) -> Path | UPath:
        """The results table."""
        return self.folder / "results.parquet"

    @property
    def local(self) -> Path:
        """The folder for databases and locks: the root, or one on the driver's machine if the root is no folder."""
        return self.root if isinstance(self.root, Path) else _HOME.expanduser()

    @property
    def tracking_uri(self) -> str:
        """The default MLflow store: one SQLite file for all sweeps of this root; a projection, so it may be lost."""
        return f"sqlite:///{self.local / 'mlflow.db'}"

    @property
    def outbox(self) -> Path:
        """The folder of what MLflow is to show of this sweep."""
        return self.local / "sweeps" / self.sweep / "outbox"

    @property
    def figures(self) -> Path:
        """The folder of the figures of this sweep's studies, for MLflow."""
        return self.outbox / "figures"

    @property
    def prompts(self) -> Path:
        """The folder of what was read of single prompts; a cache, so it may be lost."""
        return self.local / "sweeps" / self.sweep / "prompts"

    @property
    def journal(self) -> Path:
        """Optuna's own copy of the studies of this sweep, by default; a projection, so it may be lost."""
        return self.local / "sweeps" / self.sweep / "optuna.journal"


#: The default root of a Ray job, and the folder of the MLflow database where the root is an object store.
_HOME = Path("~/sweep-outputs")


def in_ray_job() -> bool:
    """Tell whether this process is the entry point of a Ray job, which runs in a copy of the working directory."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def resolve_outputs(sweep: str, written: str | None, chosen: str | None, store: str | None) -> Outputs:
    """Choose the output root: `--outputs`, else the sweep's `store`, else SWEEP_OUTPUTS, else `outputs/` here.

    In a Ray job the working directory is thrown away, so there a relative root is refused, and the last resort is
    `~/sweep-outputs` on the head node.

    Raises:
        SweepError: a relative root in a Ray job; a URI of a kind that cannot be opened here.
    """
    job = in_ray_job()
    environment = os.environ.get(ENVIRONMENT)
    problems = lost_in_a_job(store, "--store") if job else []
    problems += _secret(store, "--store")
    places = ((chosen, "--outputs"), (written, "store:"), (environment, ENVIRONMENT))
    value, source = next((each for each in places if each[0]), (None, ""))
    problems += _secret(value, source)
    if job:
        problems += lost_in_a_job(value, source)
    problems += _unfit(store, "--store")
    problems += _unfit(value, source)
    if problems:
        raise SweepError(problems)
    if value and "://" in value:
        return Outputs(_remote(value, source), f"from {source}", sweep, store)
    if value:
        return Outputs(expand_home(value).absolute(), f"from {source}", sweep, store)
    if job:
        return Outputs(_HOME.expanduser(), f"the default of a Ray job; set {ENVIRONMENT}", sweep, store)
    return Outputs(Path("outputs").absolute(), "the default", sweep, store)


def lost_in_a_job(value: str | None, source: str) -> list[Problem]:
    """Refuse a place in the copy of the working directory that a Ray job runs in, which is deleted afterwards."""
    if not value or "://" in value or value.startswith(("/", "~")):
        return []
    message = (
        f"{value!r} is relative, and a Ray job runs in a copy of the working directory that is thrown away; "
        f"give an absolute path, or leave it out and set {ENVIRONMENT}"
    )
    return [Problem(source, "", message)]


def _unfit(value: str | None, source: str) -> list[Problem]:
    """Refuse what is no path, and what no terminal shows as it is: the path stands in messages and commands."""
    if not value:
        return []
    if plain_text(value) != value or "\n" in value or "\t" in value:
        return [Problem(source, "", f"{value!r} has control characters; give a plain path")]
    scheme, colon, rest = value.partition("://")
    if colon:
        return (
            [] if scheme and rest.strip("/") else [Problem(source, "", f"{value!r} names no place; s3://bucket/folder")]
        )
    try:
        expand_home(value)
    except OSError as error:
        return [Problem(source, "", f"{value!r} cannot be used: {error.strerror}")]
    return []


def _secret(value: str | None, source: str) -> list[Problem]:
    """Refuse a place with a password in it, which would be written into records, tables and MLflow."""
    if not value or redact_uris(value) == value:
        return []
    message = (
        f"{redact_uris(value)!r} has a password in it, which everyone who sees the results could read; leave it out, "
        "and give the credentials to every node: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or for other file "
        "systems FSSPEC_<PROTOCOL>_<OPTION>, e.g. FSSPEC_SFTP_PASSWORD"
    )
    return [Problem(source, "", message)]


def _remote(uri: str, source: str) -> UPath:
    # Only now: fsspec and its friends would cost every command a tenth of a second.
    from upath import UPath

    from orchestrator.store.object_medium import open_file_system

    try:
        # Opening the file system tells of a missing package.
        _, _, options = open_file_system(uri.rstrip("/"))
        root: UPath = UPath(uri.rstrip("/"), **options)
    except (ImportError, ValueError) as error:
        reason = lacking("s3") if uri.startswith("s3") else None
        raise SweepError([Problem(source, "", f"{uri!r} cannot be opened: {reason or error}")]) from error
    return root

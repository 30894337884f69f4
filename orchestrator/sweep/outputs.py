"""Where the results of a sweep go, and from which code they came."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import orchestrator
import workers
from orchestrator.redact import redact
from orchestrator.store import StoreError, remedy
from orchestrator.sweep.document import Problem, SweepError

if TYPE_CHECKING:
    from upath import UPath

ENVIRONMENT = "SWEEP_OUTPUTS"


@dataclass(frozen=True)
class Outputs:
    """The places of one sweep."""

    root: Path | UPath
    """A folder, or a place in an object store."""
    reason: str
    """Why this root, in words for the first lines of a run."""
    sweep: str
    store_override: str | None = None

    @property
    def store(self) -> str:
        """Artifacts and attempts; shared by all sweeps of this root."""
        return self.store_override or str(self.root / "store")

    @property
    def folder(self) -> Path | UPath:
        """What belongs to this sweep alone."""
        return self.root / "sweeps" / self.sweep

    @property
    def results(self) -> Path | UPath:
        """The results table."""
        return self.folder / "results.parquet"

    @property
    def local(self) -> Path:
        """Where a file system is needed, for databases and locks: the root, else a folder on the driver's machine."""
        return self.root if isinstance(self.root, Path) else _HOME.expanduser()

    @property
    def tracking_uri(self) -> str:
        """The default MLflow store: one SQLite file for all sweeps of this root; a projection, so it may be lost."""
        return f"sqlite:///{self.local / 'mlflow.db'}"

    @property
    def outbox(self) -> Path:
        """What MLflow is to be told of this sweep."""
        return self.local / "sweeps" / self.sweep / "outbox"


#: The root of a Ray job that was told none, and of the MLflow database where the root is an object store.
_HOME = Path("~/sweep-outputs")


def in_ray_job() -> bool:
    """Whether this process is the entry point of a submitted Ray job, in a throw-away copy of the working directory."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def resolve_outputs(sweep: str, written: str | None, chosen: str | None, store: str | None) -> Outputs:
    """The output root: `--outputs`, else the sweep's `store`, else SWEEP_OUTPUTS, else `outputs/` here.

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
    if problems:
        raise SweepError(problems)
    if value and "://" in value:
        return Outputs(_remote(value, source), f"from {source}", sweep, store)
    if value:
        return Outputs(Path(value).expanduser().absolute(), f"from {source}", sweep, store)
    if job:
        return Outputs(_HOME.expanduser(), f"the default of a Ray job; set {ENVIRONMENT}", sweep, store)
    return Outputs(Path("outputs").absolute(), "the default", sweep, store)


def lost_in_a_job(value: str | None, source: str) -> list[Problem]:
    """The mistake of a place that would lie in the throw-away copy of a Ray job; none if there is no such place."""
    if not value or "://" in value or value.startswith(("/", "~")):
        return []
    message = (
        f"{value!r} is relative, and a Ray job runs in a copy of the working directory that is thrown away; "
        f"give an absolute path, or leave it out and set {ENVIRONMENT}"
    )
    return [Problem(source, "", message)]


def _secret(value: str | None, source: str) -> list[Problem]:
    """The mistake of a place with a password in it, which would be written into records, tables and MLflow."""
    if not value or redact(value) == value:
        return []
    message = (
        f"{redact(value)!r} has a password in it, which everybody would read who sees the results; leave it out, and "
        "give the credentials to every node: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or for other file systems "
        "FSSPEC_<PROTOCOL>_<OPTION>, e.g. FSSPEC_SFTP_PASSWORD"
    )
    return [Problem(source, "", message)]


def _remote(uri: str, source: str) -> UPath:
    # Only now: fsspec and its friends would cost every command a tenth of a second.
    from upath import UPath

    try:
        # Listings must show what other processes wrote a moment ago.
        root = UPath(uri.rstrip("/"), use_listings_cache=False)
        root.fs.protocol  # noqa: B018 (opening the file system tells of a missing package)
    except (ImportError, ValueError) as error:
        raise SweepError([Problem(source, "", f"{uri!r} cannot be opened: {error}")]) from error
    return root


def replace_file(path: Path | UPath, content: bytes) -> None:
    """Write a file at once, so that a reader sees the old one or the new one.

    Raises:
        StoreError: it cannot be written.
    """
    with explained(path):
        if not isinstance(path, Path):
            path.write_bytes(content)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as part:
            try:
                part.write(content)
                part.flush()
                os.chmod(part.name, 0o644)  # noqa: PTH101
                os.replace(part.name, path)  # noqa: PTH105
            except BaseException:
                Path(part.name).unlink(missing_ok=True)
                raise


@contextlib.contextmanager
def explained(path: Path | UPath) -> Iterator[None]:
    """Whatever is said of a place that cannot be written becomes one kind of error, with a remedy."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        # Each service has exceptions of its own; none is an OSError for sure.
        if isinstance(path, Path) and not isinstance(error, OSError):
            raise
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise StoreError(f"{path} cannot be written: {reason}; {remedy(error)}") from error


@cache
def code_commit() -> str:
    """The git commit of this checkout (`+dirty` with uncommitted changes), else a digest of the source files.

    A Ray job's copy of the working directory has no git history, hence the digest.
    """
    root = Path(__file__).parents[2]
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "orchestrator", "workers")
        return commit[:12] + ("+dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return f"source-{code_digest()[:12]}"


def code_digest() -> str:
    """sha256 over the source files as they are now."""
    whole = hashlib.sha256()
    # On a worker the two packages may lie in different places.
    for package in (orchestrator, workers):
        for path in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            whole.update(path.read_bytes())
    return whole.hexdigest()


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()

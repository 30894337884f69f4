"""Where the results of a sweep go, and from which code they came."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from orchestrator.document import Problem, SweepError

ENVIRONMENT = "SWEEP_OUTPUTS"


@dataclass(frozen=True)
class Outputs:
    """The places of one sweep."""

    root: Path
    reason: str
    """Why this root, in words for the first lines of a run."""
    sweep: str
    store_override: str | None = None

    @property
    def store(self) -> str:
        """Artifacts and attempts; shared by all sweeps of this root."""
        return self.store_override or str(self.root / "store")

    @property
    def folder(self) -> Path:
        """What belongs to this sweep alone."""
        return self.root / "sweeps" / self.sweep

    @property
    def results(self) -> Path:
        """The results table."""
        return self.folder / "results.parquet"

    @property
    def tracking_uri(self) -> str:
        """The default MLflow store: one SQLite file for all sweeps of this root."""
        return f"sqlite:///{self.root / 'mlflow.db'}"


def in_ray_job() -> bool:
    """Whether this process is the entry point of a submitted Ray job, in a throw-away copy of the working directory."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def resolve_outputs(sweep: str, written: str | None, chosen: str | None, store: str | None) -> Outputs:
    """The output root: `--outputs`, else the sweep's `store`, else SWEEP_OUTPUTS, else `outputs/` here.

    In a Ray job the working directory is thrown away, so there a relative root is refused, and the last resort is
    `~/sweep-outputs` on the head node.

    Raises:
        SweepError: a relative root in a Ray job.
    """
    job = in_ray_job()
    environment = os.environ.get(ENVIRONMENT)
    for value, source in ((chosen, "--outputs"), (written, "store:"), (environment, ENVIRONMENT)):
        if not value:
            continue
        if "://" in value:
            message = f"{value!r}: object stores are not supported yet; give a folder that all nodes share"
            raise SweepError([Problem(source, "", message)])
        root = Path(value).expanduser()
        if job and not root.is_absolute():
            message = (
                f"{value!r} is relative, and a Ray job runs in a copy of the working directory that is thrown away; "
                f"give an absolute path, or leave it out and set {ENVIRONMENT}"
            )
            raise SweepError([Problem(source, "", message)])
        return Outputs(root.absolute(), f"from {source}", sweep, store)
    if job:
        return Outputs(Path.home() / "sweep-outputs", f"the default of a Ray job; set {ENVIRONMENT}", sweep, store)
    return Outputs(Path("outputs").absolute(), "the default", sweep, store)


@cache
def code_commit() -> str:
    """The git commit of this checkout (`+dirty` with uncommitted changes), else a digest of the source files.

    A Ray job's copy of the working directory has no git history, hence the digest.
    """
    root = Path(__file__).parents[1]
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "orchestrator", "workers")
        return commit[:12] + ("+dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        whole = hashlib.sha256()
        for folder in ("orchestrator", "workers"):
            for path in sorted((root / folder).rglob("*.py")):
                whole.update(path.read_bytes())
        return f"source-{whole.hexdigest()[:12]}"


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()

"""Identifies the code that makes a result: the git commit, and a digest of the source files."""

from __future__ import annotations

import hashlib
import socket
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import workers

#: On a Ray worker the two packages may lie in different folders.
PACKAGES = (Path(__file__).parent, Path(str(workers.__file__)).parent)


def keep_to_these_packages() -> None:
    """Do nothing: a worker of Ray that can call this has imported both packages, from the copies that it was given.

    It does so before Ray puts the driver's folder, which is often a checkout, first in the worker's path.
    """


@cache
def code_commit() -> str:
    """Return the git commit of this checkout (`+dirty` with uncommitted changes), else a digest of the source files.

    A Ray job's copy of the working directory has no git history, hence the digest.
    """
    try:
        # An installed package may lie in the checkout of something else.
        _git("ls-files", "--error-unmatch", "orchestrator/code.py")
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "orchestrator", "workers")
        return commit[:12] + ("+dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return f"source-{code_digest()[:12]}"


def code_digest() -> str:
    """Return the sha256 (64 hex digits) over the source files of the two packages as they are now."""
    whole = hashlib.sha256()
    for place in PACKAGES:
        for path in sorted(place.rglob("*.py")):
            whole.update(path.read_bytes())
    return whole.hexdigest()


@cache
def loaded_code() -> str:
    """Return the digest of the two packages as they were when this was first asked for, before they could be edited."""
    return code_digest()


class Code(NamedTuple):
    """The code of this package that a process runs."""

    digest: str
    version: str
    host: str
    place: str
    """Folder of the package `orchestrator`."""


def this_code() -> Code:
    """Return the code of this process, as its files are now."""
    try:
        version = metadata.version("alignment-sweeps")
    except metadata.PackageNotFoundError:
        version = "of a checkout"
    return Code(code_digest(), version, socket.gethostname(), str(PACKAGES[0]))


def difference(driver: Code) -> str | None:
    """Return how the code of this process differs from the driver's, with the remedy; None if it does not."""
    if code_digest() == driver.digest:
        return None
    mine = this_code()
    # Ray's copies of the driver's code lie elsewhere, but were the same when they were made.
    if mine.place == driver.place or "runtime_resources" in mine.place:
        return (
            "the code changed since the driver started: a file of orchestrator or workers was edited; give the same "
            "command again, which runs today's code"
        )
    return (
        f"{mine.host} has alignment-sweeps {mine.version} at {mine.place}, and the driver on {driver.host} has "
        f"{driver.version} at {driver.place}, which is not the same code: install one version on every node"
    )


def _git(*arguments: str) -> str:
    checkout = Path(__file__).parents[1]
    return subprocess.run(
        ["git", "-C", str(checkout), *arguments],  # noqa: S607 (the person's own git)
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout.strip()

"""Identifies the code that makes a result: the git commit, and a digest of the source files."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from pathlib import Path

import workers

#: On a Ray worker the two packages may lie in different folders.
_PACKAGES = (Path(__file__).parent, Path(str(workers.__file__)).parent)


@cache
def code_commit() -> str:
    """Return the git commit of this checkout (`+dirty` with uncommitted changes), else a digest of the source files.

    A Ray job's copy of the working directory has no git history, hence the digest.
    """
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "orchestrator", "workers")
        return commit[:12] + ("+dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return f"source-{code_digest()[:12]}"


def code_digest() -> str:
    """Return the sha256 (64 hex digits) over the source files as they are now."""
    whole = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted(package.rglob("*.py")):
            whole.update(path.read_bytes())
    return whole.hexdigest()


def _git(*arguments: str) -> str:
    checkout = Path(__file__).parents[1]
    return subprocess.run(
        ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()

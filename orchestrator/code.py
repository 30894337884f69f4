"""Identifies the code that makes a result: the git commit, and a digest of the source files."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import workers

#: On a Ray worker the two packages may lie in different folders.
_PACKAGES = (Path(__file__).parent, Path(str(workers.__file__)).parent)


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


def code_digest(modules: Iterable[str] = ()) -> str:
    """Return the sha256 (64 hex digits) over the source files as they are now.

    Args:
        modules: top-level modules and packages of stages that are not this package's.
    """
    whole = hashlib.sha256()
    for place in (*_PACKAGES, *map(place_of, modules)):
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            whole.update(path.read_bytes())
    return whole.hexdigest()


def place_of(module: str) -> Path:
    """Return the folder of a top-level package, or the file of a top-level module.

    Raises:
        ModuleNotFoundError: it cannot be imported.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module named {module!r}")
    folders = list(spec.submodule_search_locations or ())
    return Path(folders[0] if folders else spec.origin)


def _git(*arguments: str) -> str:
    checkout = Path(__file__).parents[1]
    return subprocess.run(
        ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()

"""The package of a job: the files of the working directory that Ray uploads, and what must be true of them."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pathspec import PathSpec

from orchestrator.session import Session
from orchestrator.sweep.problems import Problem, SweepError

#: Bytes that the files of a package may have together. It goes through the head's memory, once to every node.
LIMIT = 5_000_000
#: Never part of a package, in the syntax of .gitignore: what is made here, what is only for whoever changes the code,
#: and what may hold secrets. What git, .gitignore or .rayignore ignores is left out too.
LEFT_OUT = (
    ".git", ".ci", ".github", ".venv", "venv", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info",
    "/tests", "/build", "/outputs", "/mlruns", "*.parquet", "*.safetensors", "*.db", ".env*",
)  # fmt: skip

#: Patterns, and the folder that they are relative to.
_Ignored = tuple[Path, PathSpec[Any]]


def excludes(root: Path) -> list[str]:
    """List the patterns that keep files out of a package beside .gitignore and .rayignore, which Ray reads itself."""
    return [*LEFT_OUT, *_ignored_by_git(root)]


def package_files(root: Path, patterns: Sequence[str]) -> dict[Path, int]:
    """Map the files that Ray packages of a working directory, relative to it, to their bytes.

    Args:
        root: the working directory.
        patterns: what is left out of it (`excludes`).
    """
    files = _walk(root, [(root, PathSpec.from_lines("gitignore", patterns))])
    return {path.relative_to(root): path.stat().st_size for path in sorted(files)}


def _walk(folder: Path, ignored: Sequence[_Ignored]) -> Iterator[Path]:
    """Walk as Ray does: the ignore files of a folder hold for all below it."""
    for path in (folder / ".gitignore", folder / ".rayignore"):
        if path.is_file():
            ignored = [*ignored, (folder, PathSpec.from_lines("gitignore", path.read_text().splitlines()))]
    for path in folder.iterdir():
        if any(patterns.match_file(path.relative_to(base)) for base, patterns in ignored):
            continue
        if path.is_dir():
            yield from _walk(path, ignored)
        elif path.is_file():
            yield path


def _ignored_by_git(root: Path) -> list[str]:
    """List what git ignores in a checkout, by whichever of its files, as patterns that match nothing else."""
    command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z"]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return ["/" + re.sub(r"([*?\[\]\\ ])", r"\\\1", path) for path in listed.split("\0") if path]


def check_package(session: Session, root: Path, file: Path, files: Mapping[Path, int]) -> None:
    """Check that a package has all that the job needs, and is not too large.

    Raises:
        SweepError: it lacks the code, the sweep file or data, or is too large; says which files, and the remedy.
    """
    missing = [name for name in ("orchestrator/__main__.py", "workers/stages.py") if Path(name) not in files]
    if missing:
        message = f"is uploaded for the job but has no {missing[0]}; give the command in the root of the repository"
        raise SweepError([Problem(str(root), "", message)])
    data = (inside(root, each) for each in _data(session.spec.document.value))
    needed = [file, *(path for path in data if path)]
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


def inside(root: Path, path: Path) -> Path | None:
    """Make a path relative to the working directory; None outside of it."""
    # Its folder is resolved, not itself: a link in the working directory is uploaded as what it points to.
    whole = path.absolute().parent.resolve() / path.name
    return whole.relative_to(root) if whole.is_relative_to(root) else None


def _data(value: Any) -> Iterator[Path]:
    """Find the local files and folders that a sweep names."""
    if isinstance(value, dict):
        if set(value) == {"path", "sha256"}:
            yield Path(value["path"])
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _data(each)

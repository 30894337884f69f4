"""The package of a job: the files of the working directory that Ray uploads, and what must be true of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.code import PACKAGES
from orchestrator.session import Session
from orchestrator.study.copy import LEFT_OUT, walk
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.sweep.tuned import other_sweeps

#: Bytes that the files of a package may have together. It goes through the head's memory, once to every node.
LIMIT = 5_000_000


def package_files(root: Path, patterns: Sequence[str]) -> dict[Path, int]:
    """Map the files that Ray packages of a working directory, relative to it, to their bytes.

    Args:
        root: the working directory.
        patterns: what is left out of it (`excludes`).
    """
    return {path.relative_to(root): path.stat().st_size for path in walk(root, patterns)}


def check_package(session: Session, root: Path, file: Path, files: Mapping[Path, int]) -> None:
    """Check that a package has all that the job needs, and is not too large.

    Raises:
        SweepError: it lacks the code, the sweep file or data, or is too large; says which files, and the remedy.
    """
    # A folder without this package runs with what is installed on the cluster.
    ours = [each.relative_to(root) / "__init__.py" for each in PACKAGES if each.is_relative_to(root)]
    missing = [name for name in ours if name not in files]
    if missing:
        message = f"is uploaded for the job without {missing[0].parent}, which git, .gitignore or .rayignore ignores"
        raise SweepError([Problem(str(root), "", message)])
    data = (inside(root, each) for each in _data(session.spec.document.value))
    others = (inside(root, each) for each in other_sweeps(session.spec))
    needed = [file, *(path for path in (*data, *others) if path)]
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

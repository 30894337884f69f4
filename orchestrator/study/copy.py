"""A copy of the code of a study for workers: its folder, and packages that somebody works on elsewhere.

Workers import from a copy that was made when the driver started, so an edit changes nothing while a sweep runs, and no
node needs the folder. Data are no code: a large file is left out, and is named `{path: …}` in the sweep where a step
reads it.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathspec import PathSpec

from orchestrator.namesakes import OUR_NAMES
from orchestrator.study import StageError
from orchestrator.study.table import StageTable

#: A file of more bytes that is no Python is taken for data.
FILE_LIMIT = 1_000_000
#: What all files of a copy may have together, and how many there may be.
LIMIT, FILES = 20_000_000, 5_000
#: Never part of a copy, in the syntax of .gitignore: what is made here, what is only for whoever changes the code,
#: and what may hold secrets, as hidden files do (.git, .env, .netrc, .aws, .ray). What git, .gitignore or .rayignore
#: ignores is left out too.
LEFT_OUT = (
    ".?*", "!.gitignore", "!.rayignore", "venv", "__pycache__", "*.egg-info", "/tests", "/build", "/outputs", "/mlruns",
    "*.parquet", "*.safetensors", "*.db", "*.pem",
)  # fmt: skip

#: Patterns, and the folder that they are relative to.
_Ignored = tuple[Path, PathSpec[Any]]


@dataclass(frozen=True)
class CodeCopy:
    """The code of a study as bytes."""

    folder: str
    """The folder that it is a copy of."""
    digest: str
    content: bytes
    """A zip file."""


def make_copy(stages: StageTable, without: Sequence[Path] = ()) -> CodeCopy | None:
    """Copy the code of the stages of a sweep that are not this package's; None if it has none.

    Args:
        stages: the stages, of which those count that were looked up.
        without: folders that are no part of it, e.g. where outputs go.

    Raises:
        StageError: it would be too large, or a file cannot be read.
    """
    if not stages.foreign:
        return None
    try:
        return _made_copy(stages, without)
    except OSError as error:
        raise StageError(
            f"{error.filename} is copied to the workers with the stages of its folder, but cannot be read: "
            f"{error.strerror}; exclude it in .rayignore"
        ) from error


def _made_copy(stages: StageTable, without: Sequence[Path]) -> CodeCopy:
    folder = stages.study.folder
    files: dict[str, Path] = {}
    modules = stages.foreign_modules()
    if any(each.root == folder for each in modules):
        # In the root of this repository its packages are no part of the study.
        for path in _small(walk(folder, [*excludes(folder), *(f"/{name}" for name in OUR_NAMES)], without), folder):
            files[path.relative_to(folder).as_posix()] = path
    for module in modules:
        top = module.name.partition(".")[0]
        # What is installed is installed on every node.
        if module.root == folder or module.installed or top in OUR_NAMES:
            continue
        package = module.root / top
        found = walk(package, LEFT_OUT) if package.is_dir() else [module.root / f"{top}.py"]
        for path in _small(found, package):
            files[path.relative_to(module.root).as_posix()] = path
    content = _packed(files)
    return CodeCopy(str(folder), hashlib.sha256(content).hexdigest(), content)


def unpack(content: bytes, digest: str, below: Path) -> Path:
    """Unpack a copy into a folder of its own, unless it is there as it should be; return the folder.

    Args:
        content: a zip file.
        digest: its sha256.
        below: the folder for all such folders.
    """
    folder = below / digest[:32]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if _is_whole(folder, archive):
            return folder
        below.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=below, prefix="."))
        archive.extractall(scratch / "new")
        # Another process of this node may have been quicker; what somebody edited or cleaned away is replaced.
        with suppress(OSError):
            if folder.exists() and not _is_whole(folder, archive):
                folder.rename(scratch / "old")
            (scratch / "new").rename(folder)
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _is_whole(folder: Path, archive: zipfile.ZipFile) -> bool:
    """Tell whether a folder has all files of an archive as they are there."""
    try:
        return all((folder / each.filename).read_bytes() == archive.read(each) for each in archive.infolist())
    except OSError:
        return False


def excludes(root: Path) -> list[str]:
    """List the patterns that keep files out of a copy beside .gitignore and .rayignore, which `walk` reads itself."""
    return [*LEFT_OUT, *_ignored_by_git(root)]


def walk(root: Path, patterns: Sequence[str], without: Sequence[Path] = ()) -> Iterator[Path]:
    """Yield the files of a folder as Ray packages them: the ignore files of a folder hold for all below it.

    Args:
        root: the folder.
        patterns: what is left out of it, in the syntax of .gitignore.
        without: folders that are left out.
    """
    yield from _walk(root, [(root, PathSpec.from_lines("gitignore", patterns))], {each.resolve() for each in without})


def _walk(folder: Path, ignored: Sequence[_Ignored], without: set[Path]) -> Iterator[Path]:
    for path in (folder / ".gitignore", folder / ".rayignore"):
        if path.is_file():
            ignored = [*ignored, (folder, PathSpec.from_lines("gitignore", path.read_text().splitlines()))]
    for path in sorted(folder.iterdir()):
        if any(patterns.match_file(path.relative_to(base)) for base, patterns in ignored):
            continue
        if path.is_dir():
            # A link may lead back up; and a virtual environment may have any name.
            circle = path.is_symlink() and folder.resolve().is_relative_to(path.resolve())
            if not (circle or path.resolve() in without or (path / "pyvenv.cfg").exists()):
                yield from _walk(path, ignored, without)
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


def _small(paths: Iterable[Path], root: Path) -> Iterator[Path]:
    """Yield the files that are code.

    Raises:
        StageError: they are too many, or too large together.
    """
    sizes: Counter[str] = Counter()
    total = count = 0
    for path in paths:
        size = path.stat().st_size
        # No module has a name that is not UTF-8.
        if (size > FILE_LIMIT and path.suffix != ".py") or not path.name.isprintable():
            continue
        total, count = total + size, count + 1
        sizes[path.relative_to(root).parts[0] if root.is_dir() else path.name] += size
        if total > LIMIT or count > FILES:
            largest = ", ".join(f"{name} ({size / 1e6:.1f} MB)" for name, size in sizes.most_common(3))
            raise StageError(
                f"{root} is copied to the workers because it has stages, but its code is more than {FILES:,} files or "
                f"{LIMIT / 1e6:g} MB; exclude what steps do not import in {root}/.rayignore; largest: {largest}"
            )
        yield path


def _packed(files: dict[str, Path]) -> bytes:
    """Return a zip file of some files that depends on their names and contents only."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name)
            try:
                entry.external_attr = (files[name].stat().st_mode & 0o777) << 16
                archive.writestr(entry, files[name].read_bytes(), zipfile.ZIP_DEFLATED)
            except FileNotFoundError:
                # An editor's, that came and went.
                continue
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(files[name])) from error
    return stream.getvalue()

"""Where artifacts and attempt records live. Files first, manifest last, published at once; presence is completion.

```
artifacts/<stage>/<key>/{files…, manifest.json}      committed: never changed again
attempts/<stage>/<key>/<number>.{json,log}           append-only history
damaged/<stage>-<key>-<n>/                            torn or altered artifacts, set aside
scratch/                                             unfinished work; what dead processes left is swept away
```
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import psutil

from orchestrator.canonical import digest
from orchestrator.types import Artifact, Attempt, Manifest, Outcome

MANIFEST = "manifest.json"


class StoreError(Exception):
    """The store cannot be read or written: full, read-only, or gone. The message names the place and the remedy."""


class DamagedArtifactError(Exception):
    """A committed artifact is torn or was altered."""

    def __init__(self, address: Artifact, reason: str) -> None:
        super().__init__(f"artifact {address.stage}/{address.key} is damaged: {reason}")
        self.address = address


class Store(Protocol):
    """What the scheduler and the attempt runner need of a store; one contract suite holds every implementation."""

    location: str
    """Folder or URI, enough to open the store in another process (`open_store`)."""

    def prepare(self) -> None:
        """Make ready for writing. Raises StoreError when that is impossible."""

    def committed(self, stages: Iterable[str]) -> set[Artifact]:
        """All finished artifacts of some stages, by one listing per stage."""

    def manifest(self, address: Artifact) -> Manifest:
        """The record of an artifact. Raises DamagedArtifactError when it is missing, torn or altered."""

    def fetch(self, address: Artifact) -> Path:
        """A local folder with the verified files of an artifact. Raises DamagedArtifactError."""

    def scratch(self, address: Artifact) -> Path:
        """A fresh local folder to write an artifact into."""

    def commit(self, scratch: Path, manifest: Manifest) -> None:
        """Publish a scratch folder. An artifact that is already there stays, and the scratch folder is dropped."""

    def discard(self, address: Artifact) -> None:
        """Set a damaged artifact aside, so that it is made again."""

    def record(self, attempt: Attempt) -> None:
        """Append an attempt to the history."""

    def attempted(self, stages: Iterable[str]) -> set[Artifact]:
        """All steps of some stages that have a history, by one listing per stage."""

    def attempts(self, address: Artifact) -> list[Attempt]:
        """The history of a step, oldest first."""

    def log_path(self, address: Artifact, number: int) -> Path:
        """A local file for the output of an attempt."""


def open_store(location: str) -> Store:
    """The store at a folder, which need not exist yet."""
    return PosixStore(Path(location))


class PosixStore:
    """A store in a folder of a POSIX file system, local or shared between the nodes."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.location = str(self.root)
        self._verified: set[tuple[str, int, int]] = set()

    def prepare(self) -> None:
        """Create the folders, prove that they can be written, and drop unfinished work of processes that are gone."""
        try:
            for name in ("artifacts", "attempts", "scratch"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root / "scratch") as probe:
                probe.write(b"\0" * 4096)
        except OSError as error:
            raise _store_error(self.root, error) from error
        self._sweep_scratch()

    def committed(self, stages: Iterable[str]) -> set[Artifact]:
        """All finished artifacts of some stages."""
        found = set()
        for stage in stages:
            with contextlib.suppress(FileNotFoundError), os.scandir(self.root / "artifacts" / stage) as listing:
                found |= {Artifact(stage, item.name) for item in listing}
        return found

    def manifest(self, address: Artifact) -> Manifest:
        """The record of an artifact, checked against its own digest."""
        return parse_manifest(address, _read(self.folder(address) / MANIFEST, address))

    def fetch(self, address: Artifact) -> Path:
        """The artifact's own folder, after its files were checked against the manifest."""
        folder = self.folder(address)
        for name, (size, sha256) in self.manifest(address).files.items():
            verify_file(folder / name, address, size, sha256, self._verified)
        return folder

    def scratch(self, address: Artifact) -> Path:
        """A fresh folder on the store's own file system, so that publishing is one rename."""
        owner = f"{address.stage}-{address.key}-{socket.gethostname()}-{os.getpid()}-"
        try:
            return Path(tempfile.mkdtemp(prefix=owner, dir=self.root / "scratch"))
        except OSError as error:
            raise _store_error(self.root, error) from error

    def commit(self, scratch: Path, manifest: Manifest) -> None:
        """Write the manifest last, flush everything, and rename the folder into place."""
        target = self.folder(manifest.address)
        try:
            (scratch / MANIFEST).write_text(spell_manifest(manifest))
            for name in (*manifest.files, MANIFEST):
                _flush(scratch / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch.chmod(0o755)
            try:
                scratch.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
                # Another driver published the same key first; both are the same work, so ours is dropped.
                shutil.rmtree(scratch, ignore_errors=True)
            _flush(target.parent)
        except OSError as error:
            raise _store_error(self.root, error) from error

    def discard(self, address: Artifact) -> None:
        """Move a damaged artifact out of the way; nothing is deleted."""
        (self.root / "damaged").mkdir(exist_ok=True)
        aside = tempfile.mkdtemp(prefix=f"{address.stage}-{address.key}-", dir=self.root / "damaged")
        with contextlib.suppress(FileNotFoundError):
            self.folder(address).rename(Path(aside) / "artifact")

    def record(self, attempt: Attempt) -> None:
        """Append an attempt; a number that is taken moves to the next free one."""
        folder = self._history(attempt.address)
        text = json.dumps(asdict(attempt))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            number = attempt.number
            while True:
                try:
                    with (folder / f"{number}.json").open("x") as stream:
                        stream.write(text)
                    return
                except FileExistsError:
                    number += 1
        except OSError as error:
            raise _store_error(self.root, error) from error

    def attempted(self, stages: Iterable[str]) -> set[Artifact]:
        """All steps of some stages that have a history."""
        found = set()
        for stage in stages:
            with contextlib.suppress(FileNotFoundError), os.scandir(self.root / "attempts" / stage) as listing:
                found |= {Artifact(stage, item.name) for item in listing}
        return found

    def attempts(self, address: Artifact) -> list[Attempt]:
        """The history of a step, oldest first; a record torn by a crash is left out."""
        try:
            paths = list(self._history(address).glob("*.json"))
        except FileNotFoundError:
            return []
        history = []
        for path in sorted(paths, key=lambda path: int(path.stem)):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                history.append(parse_attempt(json.loads(path.read_text())))
        return history

    def log_path(self, address: Artifact, number: int) -> Path:
        """The log beside the attempt's record."""
        folder = self._history(address)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _store_error(self.root, error) from error
        return folder / f"{number}.log"

    def _sweep_scratch(self) -> None:
        """Drop scratch folders of this host's dead processes; other hosts sweep their own."""
        host = socket.gethostname()
        for path in (self.root / "scratch").iterdir():
            owner, _, pid = path.name.rpartition("-")[0].rpartition("-")
            if owner.endswith(f"-{host}") and pid.isdigit() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(path, ignore_errors=True)

    def folder(self, address: Artifact) -> Path:
        """The place of an artifact, committed or not."""
        return self.root / "artifacts" / address.stage / address.key

    def _history(self, address: Artifact) -> Path:
        return self.root / "attempts" / address.stage / address.key


def list_files(folder: Path) -> dict[str, tuple[int, str]]:
    """Relative path -> (bytes, sha256) of every file below a folder."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as stream:
            files[path.relative_to(folder).as_posix()] = (
                path.stat().st_size,
                hashlib.file_digest(stream, "sha256").hexdigest(),
            )
    return files


def spell_manifest(manifest: Manifest) -> str:
    """The manifest as JSON that carries its own digest, so that an altered number is noticed."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(manifest)))
    return json.dumps({**content, "sha256": digest(content)})


def parse_manifest(address: Artifact, text: str) -> Manifest:
    """Read a manifest back.

    Raises:
        DamagedArtifactError: it is torn, altered, or of another artifact.
    """
    try:
        content = json.loads(text)
        found = content.pop("sha256")
        if found != digest(content) or Artifact(*content["address"]) != address:
            raise ValueError("its digest does not fit")
        files = {name: (int(size), str(sha256)) for name, (size, sha256) in content.pop("files").items()}
        return Manifest(**{**content, "address": address, "files": files})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedArtifactError(address, f"{MANIFEST} was altered or torn ({error})") from error


def parse_attempt(content: dict[str, Any]) -> Attempt:
    """An attempt from its JSON record."""
    return Attempt(
        **{
            **content,
            "address": Artifact(*content["address"]),
            "outcome": Outcome(content["outcome"]),
            "damaged": tuple(Artifact(*each) for each in content["damaged"]),
        }
    )


def verify_file(path: Path, address: Artifact, size: int, sha256: str, verified: set[tuple[str, int, int]]) -> None:
    """Check a file against its manifest; `verified` remembers what this process has already read whole.

    Raises:
        DamagedArtifactError: the file is missing, or its size or bytes differ.
    """
    try:
        stat = path.stat()
        if stat.st_size != size:
            raise DamagedArtifactError(address, f"{path} has {stat.st_size} bytes, its manifest says {size}")
        signature = (str(path), stat.st_size, stat.st_mtime_ns)
        if signature in verified:
            return
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise DamagedArtifactError(address, f"{path} is missing") from error
    if found != sha256:
        raise DamagedArtifactError(address, f"the bytes of {path} differ from its manifest")
    verified.add(signature)


def _read(path: Path, address: Artifact) -> str:
    try:
        return path.read_text()
    except FileNotFoundError as error:
        raise DamagedArtifactError(address, f"{path.name} is missing") from error
    except UnicodeDecodeError as error:
        raise DamagedArtifactError(address, f"{path.name} is not text") from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _store_error(root: Path, error: OSError) -> StoreError:
    reason = error.strerror or str(error)
    remedy = "free some space or choose another place with --outputs, then give the same command again; nothing is lost"
    return StoreError(f"the store {root} cannot be written: {reason}; {remedy}")

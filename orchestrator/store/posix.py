"""A store in a folder of a POSIX file system, local or shared between the nodes.

```
artifacts/<stage>/<key>/{files…, manifest.json}      committed: never changed again
attempts/<stage>/<key>/<number>.{json,log}           append-only history
damaged/<stage>-<key>-<n>/                            torn or altered artifacts, set aside
scratch/                                             unfinished work; what dead processes left is swept away
```
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

import psutil

from orchestrator.store.records import (
    MANIFEST,
    DamagedArtifactError,
    StoreError,
    parse_attempt,
    parse_manifest,
    spell_attempt,
    spell_manifest,
    verify_file,
)
from orchestrator.types import Artifact, Attempt, Manifest


class PosixStore:
    """A store in a folder."""

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
        return self._listed("artifacts", stages)

    def manifests(self, addresses: Collection[Artifact]) -> dict[Artifact, Manifest | DamagedArtifactError]:
        """The records of artifacts, each checked against its own digest."""
        found: dict[Artifact, Manifest | DamagedArtifactError] = {}
        for address in addresses:
            try:
                found[address] = self._manifest(address)
            except DamagedArtifactError as error:
                found[address] = error
        return found

    def fetch(self, address: Artifact) -> Path:
        """The artifact's own folder, after its files were checked against the manifest."""
        folder = self.folder(address)
        for name, (size, sha256) in self._manifest(address).files.items():
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
        text = spell_attempt(attempt)
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

    def histories(self, addresses: Collection[Artifact]) -> dict[Artifact, list[Attempt]]:
        """The attempts at some steps, oldest first; a record torn by a crash is left out."""
        tried = self._listed("attempts", {address.stage for address in addresses})
        return {address: self._read_history(address) for address in addresses if address in tried}

    def log_path(self, address: Artifact, number: int) -> Path:
        """The log beside the attempt's record."""
        folder = self._history(address)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _store_error(self.root, error) from error
        return folder / f"{number}.log"

    def keep_log(self, address: Artifact, number: int) -> str | None:
        """The log stays where it was written, unless it is empty."""
        path = self._history(address) / f"{number}.log"
        try:
            if path.stat().st_size:
                return str(path)
            path.unlink()
        except OSError:
            pass
        return None

    def _listed(self, kind: str, stages: Iterable[str]) -> set[Artifact]:
        found = set()
        for stage in stages:
            with contextlib.suppress(FileNotFoundError), os.scandir(self.root / kind / stage) as listing:
                found |= {Artifact(stage, item.name) for item in listing}
        return found

    def _manifest(self, address: Artifact) -> Manifest:
        path = self.folder(address) / MANIFEST
        try:
            return parse_manifest(address, path.read_bytes())
        except FileNotFoundError as error:
            raise DamagedArtifactError(address, f"{path.name} is missing") from error

    def _read_history(self, address: Artifact) -> list[Attempt]:
        history = []
        for path in sorted(self._history(address).glob("*.json"), key=lambda path: int(path.stem)):
            attempt = parse_attempt(path.read_bytes())
            if attempt:
                history.append(attempt)
        return history

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

"""A store in a folder of a POSIX file system, local or shared between the nodes.

```
artifacts/<stage>/<key>/{files…, manifest.json}      committed: never changed again
attempts/<stage>/<key>.<number>.{json,log}           append-only history of what failed, and what was printed
damaged/<stage>-<key>-<n>/                            torn or altered artifacts, set aside
claims/<stage>/<key>                                 who works on a step, as a link that leads nowhere
scratch/                                             unfinished work; what dead processes left is swept away
```
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
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
    Signature,
    StoreError,
    name_of_record,
    parse_attempt,
    parse_manifest,
    spell_attempt,
    spell_manifest,
    unchanged,
    verify_files,
)
from orchestrator.types import Artifact, Attempt, Manifest

#: From so many artifacts on the whole file system is flushed at once: that takes a third of the time of flushing files.
_MANY = 16
#: Tells the scratch folders of this process apart.
_COUNTER = itertools.count()


class PosixStore:
    """A store in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.location = str(self.root)
        self._verified: set[Signature] = set()
        self._fetched: dict[Artifact, tuple[Path, list[Signature]]] = {}

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
        self._sweep_claims()

    def committed(self, stages: Iterable[str]) -> set[Artifact]:
        """All finished artifacts of some stages."""
        folders = {stage: self.root / "artifacts" / stage for stage in stages}
        return {Artifact(stage, name) for stage, folder in folders.items() for name in _names(folder)}

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
        known = self._fetched.get(address)
        if known and unchanged(known[1]):
            return known[0]
        folder = self.folder(address)
        manifest = self._manifest(address)
        stat = (folder / MANIFEST).stat()
        signature = (str(folder / MANIFEST), stat.st_size, stat.st_mtime_ns)
        self._fetched[address] = (folder, [signature, *verify_files(str(folder), manifest, self._verified)])
        return folder

    def scratch(self, address: Artifact) -> Path:
        """A fresh folder on the store's own file system, so that publishing is one rename."""
        owner = f"{address.stage}-{address.key}-{socket.gethostname()}-{os.getpid()}"
        try:
            folder = f"{self.location}/scratch/{owner}-{next(_COUNTER)}"
            os.mkdir(folder)  # noqa: PTH102 (thousands of times a second)
            return Path(folder)
        except OSError as error:
            raise _store_error(self.root, error) from error

    def commit(self, scratch: Path, manifest: Manifest) -> None:
        """Write the manifest last and rename the folder into place; `flush` makes it safe against a power failure."""
        target = self.folder(manifest.address)
        try:
            with open(f"{scratch}/{MANIFEST}", "xb") as stream:  # noqa: PTH123
                stream.write(spell_manifest(manifest))
            try:
                self._folder("artifacts", manifest.address.stage)
                scratch.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
                # Another driver published the same key first; both are the same work, so ours is dropped.
                shutil.rmtree(scratch, ignore_errors=True)
        except OSError as error:
            raise _store_error(self.root, error) from error

    def flush(self, addresses: Collection[Artifact]) -> None:
        """Wait until the bytes of artifacts, and their names, are on the disk."""
        try:
            if len(addresses) >= _MANY and _flush_file_system(self.location):
                return
            for address in addresses:
                for folder, _, names in os.walk(f"{self.location}/artifacts/{address.stage}/{address.key}"):
                    for name in names:
                        _flush(f"{folder}/{name}")
            # A name that is lost all the same makes a torn artifact, which is noticed; so not every folder is flushed.
            for stage in {address.stage for address in addresses}:
                _flush(f"{self.location}/artifacts/{stage}")
        except OSError as error:
            raise _store_error(self.root, error) from error

    def discard(self, address: Artifact) -> None:
        """Move a damaged artifact out of the way; nothing is deleted."""
        (self.root / "damaged").mkdir(exist_ok=True)
        aside = tempfile.mkdtemp(prefix=f"{address.stage}-{address.key}-", dir=self.root / "damaged")
        with contextlib.suppress(FileNotFoundError):
            self.folder(address).rename(Path(aside) / "artifact")

    def claim(self, address: Artifact, holder: str) -> str | None:
        """A claim is a dangling symbolic link: made with its text in one atomic operation, on every file system."""
        path = f"{self.location}/claims/{address.stage}/{address.key}"
        while True:
            try:
                os.symlink(holder, path)  # noqa: PTH211
                return None
            except FileExistsError:
                with contextlib.suppress(FileNotFoundError):
                    return os.readlink(path)  # noqa: PTH115
            except FileNotFoundError:
                self._folder("claims", address.stage)
            except OSError as error:
                raise _store_error(self.root, error) from error

    def renew(self, address: Artifact, holder: str) -> None:
        """Replace the link at once."""
        path = f"{self.location}/claims/{address.stage}/{address.key}"
        part = f"{path}.{os.getpid()}-{next(_COUNTER)}"
        try:
            self._folder("claims", address.stage)
            os.symlink(holder, part)  # noqa: PTH211
            os.replace(part, path)  # noqa: PTH105
        except OSError as error:
            raise _store_error(self.root, error) from error

    def release(self, address: Artifact) -> None:
        """Remove the link."""
        try:
            os.unlink(f"{self.location}/claims/{address.stage}/{address.key}")  # noqa: PTH108
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _store_error(self.root, error) from error

    def record(self, attempt: Attempt) -> None:
        """Append an attempt; a number that is taken moves to the next free one."""
        text = spell_attempt(attempt)
        number = attempt.number
        try:
            while True:
                try:
                    with self._history(attempt.address, number, "json").open("x") as stream:
                        stream.write(text)
                    return
                except FileExistsError:
                    number += 1
        except OSError as error:
            raise _store_error(self.root, error) from error

    def histories(self, addresses: Collection[Artifact]) -> dict[Artifact, list[Attempt]]:
        """The attempts at some steps, oldest first; a record torn by a crash is left out."""
        wanted = set(addresses)
        records: dict[Artifact, list[tuple[int, Path]]] = {}
        for stage in {address.stage for address in wanted}:
            folder = self.root / "attempts" / stage
            for name in _names(folder):
                key, number = name_of_record(name, "json") or ("", 0)
                if Artifact(stage, key) in wanted:
                    records.setdefault(Artifact(stage, key), []).append((number, folder / name))
        return {
            address: [attempt for _, path in sorted(found) if (attempt := parse_attempt(path.read_bytes()))]
            for address, found in records.items()
        }

    def log_path(self, address: Artifact, number: int) -> Path:
        """The log beside the attempt's record."""
        try:
            return self._history(address, number, "log")
        except OSError as error:
            raise _store_error(self.root, error) from error

    def keep_log(self, address: Artifact, number: int) -> str | None:
        """The log stays where it was written, unless it is empty."""
        try:
            path = self._history(address, number, "log")
            if path.stat().st_size:
                return str(path)
            path.unlink()
        except OSError:
            pass
        return None

    def _manifest(self, address: Artifact) -> Manifest:
        try:
            with open(f"{self.location}/artifacts/{address.stage}/{address.key}/{MANIFEST}", "rb") as stream:  # noqa: PTH123
                return parse_manifest(address, stream.read())
        except FileNotFoundError as error:
            raise DamagedArtifactError(address, f"{MANIFEST} is missing") from error

    def _sweep_scratch(self) -> None:
        """Drop scratch folders of this host's dead processes; other hosts sweep their own."""
        host = socket.gethostname()
        for path in (self.root / "scratch").iterdir():
            owner, _, pid = path.name.rpartition("-")[0].rpartition("-")
            if owner.endswith(f"-{host}") and pid.isdigit() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(path, ignore_errors=True)

    def _sweep_claims(self) -> None:
        """Drop claims on what is committed: their holders died between publishing a step and giving it back."""
        for path in (self.root / "claims").glob("*/*"):
            if self.folder(Artifact(path.parent.name, path.name)).is_dir():
                path.unlink(missing_ok=True)

    def folder(self, address: Artifact) -> Path:
        """The place of an artifact, committed or not."""
        return Path(f"{self.location}/artifacts/{address.stage}/{address.key}")

    def _history(self, address: Artifact, number: int, kind: str) -> Path:
        folder = self._folder("attempts", address.stage)
        return folder / f"{address.key}.{number}.{kind}"

    def _folder(self, kind: str, stage: str) -> Path:
        folder = Path(f"{self.location}/{kind}/{stage}")
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as listing:
            return [item.name for item in listing]
    except FileNotFoundError:
        return []


def _flush(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_file_system(folder: str) -> bool:
    """Wait until everything written to a file system is on its disk; False where the platform cannot do that."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if library.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), folder)
    finally:
        os.close(descriptor)
    return True


def _store_error(root: Path, error: OSError) -> StoreError:
    reason = error.strerror or str(error)
    remedy = "free some space or choose another place with --outputs, then give the same command again; nothing is lost"
    return StoreError(f"the store {root} cannot be written: {reason}; {remedy}")

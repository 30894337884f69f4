"""A store in a folder of a POSIX file system, local or shared between the nodes.

```
artifacts/<stage>/<key>/{files…, manifest.json}      committed: never changed again
attempts/<stage>/<key>.<number>.{json,log}           append-only history of what failed, and what was printed
damaged/<stage>-<key>-<n>/                            torn or altered artifacts, set aside
claims/<stage>/<key>/<claim>/                         unfinished work, and whose it is; see `posix_lease`
pins/<name>                                          artifacts that must not be deleted
trash/                                               what is being deleted
```
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from orchestrator.store.artifacts import Store
from orchestrator.store.errors import ClaimedError, DamagedArtifactError, LostOutputError, StoreError
from orchestrator.store.files import MANIFEST, Signature, unchanged, verify_files
from orchestrator.store.posix_lease import PosixClaims
from orchestrator.store.posix_medium import PosixMedium, flush, flush_file_system
from orchestrator.store.trash import Trash
from orchestrator.types import Artifact, Manifest

#: From so many artifacts on the whole file system is flushed at once: that takes a third of the time of flushing files.
_MANY = 16


class PosixStore(Store):
    """A store in a folder."""

    _medium: PosixMedium

    def __init__(self, root: Path) -> None:
        """Address the store; nothing is read or written yet."""
        self.root = root.absolute()
        self._trash = Trash(f"{self.root}/trash")
        medium = PosixMedium(self.root)
        super().__init__(str(self.root), medium, PosixClaims(medium))
        self._verified: set[Signature] = set()
        self._fetched: dict[Artifact, tuple[Path, list[Signature]]] = {}

    def prepare(self) -> None:
        """Make the folders, prove that they can be written, and drop unfinished work that is certainly nobody's."""
        with self._medium.translate_errors():
            for name in ("artifacts", "attempts", "claims"):
                self._medium.make_folder(name)
            with tempfile.TemporaryFile(dir=self.root / "claims") as probe:
                probe.write(b"\0" * 4096)
        self.sweep(everywhere=True)

    _folders = ("artifacts", "attempts")

    def _manifest_path(self, address: Artifact) -> str:
        return f"artifacts/{address.stage}/{address.key}/{MANIFEST}"

    def _files_path(self, manifest: Manifest) -> str:
        return f"artifacts/{manifest.address.stage}/{manifest.address.key}"

    def _committed(self, stage: str) -> Iterable[str]:
        return self._medium.names(f"artifacts/{stage}")

    def folder(self, address: Artifact) -> Path:
        """The place of an artifact, committed or not."""
        return Path(f"{self.location}/artifacts/{address.stage}/{address.key}")

    # --- artifacts

    def fetch(self, address: Artifact) -> Path:
        """Name the artifact's own folder, after its files were checked against the manifest."""
        known = self._fetched.get(address)
        if known and unchanged(known[1]):
            return known[0]
        folder = self.folder(address)
        manifest = self._manifest(address)
        try:
            stat = (folder / MANIFEST).stat()
        except FileNotFoundError as error:
            raise DamagedArtifactError(address, f"{MANIFEST} is missing") from error
        signature = (str(folder / MANIFEST), stat.st_size, stat.st_mtime_ns)
        self._fetched[address] = (folder, [signature, *verify_files(str(folder), manifest, self._verified)])
        return folder

    def inspect(self, manifest: Manifest) -> DamagedArtifactError | None:
        """Read all files, also those that this process has read before."""
        try:
            verify_files(str(self.folder(manifest.address)), manifest, set())
        except DamagedArtifactError as error:
            return error
        except OSError as error:
            return DamagedArtifactError(manifest.address, f"it cannot be read ({error})")
        return None

    def _set_aside(self, address: Artifact) -> None:
        """Move the artifact out of the way; nothing is deleted."""
        with self._medium.translate_errors():
            place = self._medium.make_folder("damaged")
            aside = Path(tempfile.mkdtemp(prefix=f"{address.stage}-{address.key}-", dir=place))
            try:
                self.folder(address).rename(aside / "artifact")
            except FileNotFoundError:
                aside.rmdir()

    # --- making artifacts

    def flush(self, addresses: Collection[Artifact]) -> None:
        """Wait until the bytes of artifacts, and their names, are on the disk."""
        with self._medium.translate_errors():
            if len(addresses) >= _MANY and flush_file_system(self.location):
                return
            for address in addresses:
                for folder, _, names in os.walk(self.folder(address)):
                    for name in names:
                        # Gone if another process has found the artifact damaged, and set it aside.
                        with contextlib.suppress(FileNotFoundError):
                            flush(f"{folder}/{name}")
            # A name that is lost all the same makes a torn artifact, which is noticed; so not every folder is flushed.
            for stage in {address.stage for address in addresses}:
                flush(f"{self.location}/artifacts/{stage}")

    def adopt(self, old: Artifact, manifest: Manifest) -> None:
        """Publish hard links to the files; copies where the file system has no links."""
        folder = self.folder(old)
        try:
            with self.lease(manifest.address, secrets.token_hex(8)) as lease:
                for name in manifest.files:
                    (lease.folder / name).parent.mkdir(parents=True, exist_ok=True)
                    try:
                        os.link(folder / name, lease.folder / name)
                    except FileNotFoundError as error:
                        raise DamagedArtifactError(old, f"{folder / name} is missing") from error
                    except OSError:
                        shutil.copy2(folder / name, lease.folder / name)
                lease.commit(manifest)
        except (ClaimedError, LostOutputError) as error:
            raise StoreError(f"{old.stage}/{old.key}: {error}; give the same command again") from error

    # --- attempts

    def log_path(self, address: Artifact, number: int) -> Path:
        """Name the log beside the attempt's record."""
        with self._medium.translate_errors():
            return self._medium.make_folder(f"attempts/{address.stage}") / f"{address.key}.{number}.log"

    def keep_log(self, address: Artifact, number: int) -> str | None:
        """Leave the log where it was written, unless it is empty."""
        path = self.root / "attempts" / address.stage / f"{address.key}.{number}.log"
        with contextlib.suppress(OSError):
            if path.stat().st_size:
                return str(path)
            path.unlink()
        return None

    # --- garbage

    def remove(self, addresses: Collection[Artifact]) -> None:
        """Move each folder away, then delete it; what a crash leaves of that is deleted by whoever comes next."""
        for address in addresses:
            self._fetched.pop(address, None)
            with self._medium.translate_errors():
                self._trash.throw_away(self.folder(address))

    def remains(self) -> Mapping[str, int]:
        """List what was set aside as damaged."""
        folders = [self.root / "damaged" / name for name in sorted(self._medium.names("damaged"))]
        return {
            str(folder): sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
            for folder in folders
        }

    def clear(self, places: Collection[str]) -> None:
        """Delete some of what `remains` named."""
        with self._medium.translate_errors():
            for place in places:
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(place)

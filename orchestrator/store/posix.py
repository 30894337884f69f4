"""A store in a folder of a POSIX file system, local or shared between the nodes.

```
artifacts/<stage>/<key>/{files…, manifest.json}      committed: never changed again
attempts/<stage>/<key>.<number>.{json,log}           append-only history of what failed, and what was printed
damaged/<stage>-<key>-<n>/                            torn or altered artifacts, set aside
claims/<stage>/<key>                                 who works on a step, as a link that leads nowhere
pins/<name>                                          artifacts that must not be deleted
scratch/                                             unfinished work; see `scratch`
trash/                                               what is being deleted
```
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from orchestrator.store.artifacts import Store
from orchestrator.store.errors import DamagedArtifactError, LostOutputError, StoreError
from orchestrator.store.files import MANIFEST, Signature, check_name, unchanged, verify_content, verify_files
from orchestrator.store.posix_medium import PosixMedium, create_file, flush, flush_file_system, read_file
from orchestrator.store.records import manifest_to_json, parse_manifest, pin_to_json
from orchestrator.store.scratch import Scratch
from orchestrator.types import Artifact, Manifest

#: From so many artifacts on the whole file system is flushed at once: that takes a third of the time of flushing files.
_MANY = 16


class PosixStore(Store):
    """A store in a folder."""

    _medium: PosixMedium

    def __init__(self, root: Path) -> None:
        """Address the store; nothing is read or written yet."""
        self.root = root.absolute()
        super().__init__(str(self.root), PosixMedium(self.root), Scratch(self.root))
        self._verified: set[Signature] = set()
        self._fetched: dict[Artifact, tuple[Path, list[Signature]]] = {}

    def prepare(self) -> None:
        """Make the folders, prove that they can be written, and drop unfinished work that is certainly nobody's."""
        with self._medium.translate_errors():
            for name in ("artifacts", "attempts", "scratch"):
                self._medium.make_folder(name)
            with tempfile.TemporaryFile(dir=self.root / "scratch") as probe:
                probe.write(b"\0" * 4096)
        self.sweep(math.inf)
        self._sweep_claims()

    def stages(self) -> set[str]:
        """List all stages that have a folder."""
        return {*self._medium.names("artifacts"), *self._medium.names("attempts")}

    def folder(self, address: Artifact) -> Path:
        """The place of an artifact, committed or not."""
        return Path(f"{self.location}/artifacts/{address.stage}/{address.key}")

    # --- artifacts

    def committed(self, stages: Iterable[str]) -> set[Artifact]:
        """List the folders of some stages."""
        return {Artifact(stage, name) for stage in stages for name in self._medium.names(f"artifacts/{stage}")}

    def manifests(self, addresses: Collection[Artifact]) -> dict[Artifact, Manifest | DamagedArtifactError]:
        """Read manifests, and check each against its own digest."""
        found: dict[Artifact, Manifest | DamagedArtifactError] = {}
        with self._medium.translate_errors("read"):
            for address in addresses:
                try:
                    found[address] = self._manifest(address)
                except DamagedArtifactError as error:
                    found[address] = error
        return found

    def _manifest(self, address: Artifact) -> Manifest:
        try:
            content = read_file(f"{self.location}/artifacts/{address.stage}/{address.key}/{MANIFEST}")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise DamagedArtifactError(address, f"{MANIFEST} is missing") from error
        return parse_manifest(address, content)

    def fetch(self, address: Artifact) -> Path:
        """Name the artifact's own folder, after its files were checked against the manifest."""
        known = self._fetched.get(address)
        if known and unchanged(known[1]):
            return known[0]
        folder = self.folder(address)
        manifest = self._manifest(address)
        stat = (folder / MANIFEST).stat()
        signature = (str(folder / MANIFEST), stat.st_size, stat.st_mtime_ns)
        self._fetched[address] = (folder, [signature, *verify_files(str(folder), manifest, self._verified)])
        return folder

    def read(self, manifest: Manifest, name: str) -> bytes:
        """Read one small file of an artifact, and verify it."""
        try:
            content = (self.folder(manifest.address) / name).read_bytes()
        except OSError as error:
            raise DamagedArtifactError(manifest.address, f"{name} cannot be read ({error.strerror})") from error
        return verify_content(content, manifest, name)

    def inspect(self, manifest: Manifest) -> DamagedArtifactError | None:
        """Read all files, also those that this process has read before."""
        try:
            verify_files(str(self.folder(manifest.address)), manifest, set())
        except DamagedArtifactError as error:
            return error
        except OSError as error:
            return DamagedArtifactError(manifest.address, f"it cannot be read ({error})")
        return None

    def discard(self, address: Artifact) -> None:
        """Move a damaged artifact out of the way; nothing is deleted."""
        with self._medium.translate_errors():
            place = self._medium.make_folder("damaged")
            aside = tempfile.mkdtemp(prefix=f"{address.stage}-{address.key}-", dir=place)
            with contextlib.suppress(FileNotFoundError):
                self.folder(address).rename(Path(aside) / "artifact")

    # --- making artifacts

    def scratch(self, address: Artifact, driver: str) -> Path:
        """Make a folder on the store's own file system, so that publishing is one rename."""
        with self._medium.translate_errors():
            return self._scratch.make(f"{address.stage}-{address.key}", driver)

    def commit(self, scratch: Path, manifest: Manifest) -> bool:
        """Write the manifest last and rename the folder into place; `flush` makes it safe against a power failure."""
        for name in manifest.files:
            check_name(name)
        stage, key = manifest.address
        target = f"{self.location}/artifacts/{stage}/{key}"
        folder = self._scratch.descriptor(scratch)
        with self._medium.translate_errors():
            try:
                self._scratch.confirm(scratch)
                # Through the descriptor: a folder that takes this one's place from here on has no manifest.
                create_file(MANIFEST, manifest_to_json(manifest), folder)
                try:
                    try:
                        os.rename(scratch, target)  # noqa: PTH104
                    except FileNotFoundError:
                        self._medium.make_folder(f"artifacts/{stage}")
                        os.rename(scratch, target)  # noqa: PTH104
                    self._scratch.forget(scratch)
                    return True
                except OSError:
                    if not os.path.isdir(target):  # noqa: PTH112
                        raise
                    # Another driver published the same key first; both are the same work, so ours is dropped.
                    self._scratch.drop(scratch)
                    return False
            except OSError:
                # Where the folder is lost, that is the reason.
                self._scratch.confirm(scratch)
                raise

    def flush(self, addresses: Collection[Artifact]) -> None:
        """Wait until the bytes of artifacts, and their names, are on the disk."""
        with self._medium.translate_errors():
            if len(addresses) >= _MANY and flush_file_system(self.location):
                return
            for address in addresses:
                for folder, _, names in os.walk(self.folder(address)):
                    for name in names:
                        flush(f"{folder}/{name}")
            # A name that is lost all the same makes a torn artifact, which is noticed; so not every folder is flushed.
            for stage in {address.stage for address in addresses}:
                flush(f"{self.location}/artifacts/{stage}")

    def adopt(self, old: Artifact, manifest: Manifest) -> None:
        """Publish hard links to the files; copies where the file system has no links."""
        scratch, folder = self.scratch(manifest.address, "adopt"), self.folder(old)
        try:
            with self._medium.translate_errors():
                for name in manifest.files:
                    (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                    try:
                        os.link(folder / name, scratch / name)
                    except FileNotFoundError as error:
                        raise DamagedArtifactError(old, f"{folder / name} is missing") from error
                    except OSError:
                        shutil.copy2(folder / name, scratch / name)
                self.commit(scratch, manifest)
        except LostOutputError as error:
            raise StoreError(f"{error}; give the same command again") from error
        finally:
            self.drop(scratch)

    # --- claims

    def claim(self, address: Artifact, holder: str) -> str | None:
        """Make a dangling symbolic link: with its text, in one atomic operation, on every file system."""
        path = f"{self.location}/claims/{address.stage}/{address.key}"
        with self._medium.translate_errors():
            while True:
                try:
                    os.symlink(holder, path)  # noqa: PTH211
                    return None
                except FileExistsError:
                    with contextlib.suppress(FileNotFoundError):
                        return os.readlink(path)  # noqa: PTH115
                except FileNotFoundError:
                    self._medium.make_folder(f"claims/{address.stage}")

    def renew(self, address: Artifact, holder: str) -> None:
        """Replace the link at once."""
        path = f"{self.location}/claims/{address.stage}/{address.key}"
        part = f"{path}.{secrets.token_hex(8)}"
        with self._medium.translate_errors():
            self._medium.make_folder(f"claims/{address.stage}")
            os.symlink(holder, part)  # noqa: PTH211
            os.replace(part, path)  # noqa: PTH105

    def release(self, address: Artifact, holder: str | None = None) -> None:
        """Remove the link."""
        path = f"{self.location}/claims/{address.stage}/{address.key}"
        with self._medium.translate_errors(), contextlib.suppress(FileNotFoundError):
            if holder is None or os.readlink(path) == holder:  # noqa: PTH115
                os.unlink(path)  # noqa: PTH108

    def claims(self) -> Mapping[Artifact, str]:
        """Read all links."""
        found: dict[Artifact, str] = {}
        for stage in self._medium.names("claims"):
            for key in self._medium.names(f"claims/{stage}"):
                # A claim may be given back at any moment; one with a dot is half renewed.
                with contextlib.suppress(FileNotFoundError):
                    if "." not in key:
                        found[Artifact(stage, key)] = os.readlink(f"{self.location}/claims/{stage}/{key}")  # noqa: PTH115
        return found

    def _sweep_claims(self) -> None:
        """Drop claims on what is committed: their holders died between publishing a step and giving it back."""
        for path in (self.root / "claims").glob("*/*"):
            if self.folder(Artifact(path.parent.name, path.name)).is_dir():
                path.unlink(missing_ok=True)

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
                self._scratch.throw_away(self.folder(address))

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

    def pin(self, name: str, addresses: Collection[Artifact]) -> None:
        """Replace the file at once."""
        part = Path(self._scratch.name(f"pin-{name}", "pin"))
        with self._medium.translate_errors():
            folder = self._medium.make_folder("pins")
            with part.open("wb") as stream:
                stream.write(pin_to_json(addresses))
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(folder / name)
            flush(str(folder))

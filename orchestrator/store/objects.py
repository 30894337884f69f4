"""A store in an object store (`s3://bucket/folder`, or whatever else fsspec knows).

```
manifests/<stage>/<key>.json                    uploaded last; presence is completion, one listing per stage finds all
artifacts/<stage>/<key>/<upload>/files…         each upload has a folder of its own, which its manifest names
attempts/<stage>/<key>.<number>.{json,log}      append-only history of what failed, and what was printed
claims/<stage>/<key>                            who works on a step; empty if nobody does; see `object_lease`
pins/<name>                                     artifacts that must not be deleted
damaged/<stage>-<key>-<upload>.json             manifests of torn or altered artifacts, set aside
```

Two drivers that publish one key at once cannot mix their files, and the first manifest stays. Files are read through a
copy on the node's own disk (`SWEEP_CACHE`), checked against the manifest.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from orchestrator.keys import digest
from orchestrator.store.artifacts import Store
from orchestrator.store.cache import cache_folder
from orchestrator.store.errors import DamagedArtifactError, StoreError
from orchestrator.store.files import Signature, verify_files
from orchestrator.store.object_lease import ObjectClaims, claim_path, files_path, manifest_path
from orchestrator.store.object_medium import ObjectMedium
from orchestrator.store.records import manifest_to_json
from orchestrator.types import Artifact, Manifest

#: Bytes that are read at once from a file that is only looked at.
_BLOCK = 8 * 2**20


class ObjectStore(Store):
    """A store at a URI."""

    _medium: ObjectMedium
    _claims: ObjectClaims

    def __init__(self, location: str) -> None:
        """Address the store; nothing is read or written yet.

        Raises:
            StoreError: fsspec does not know this kind of URI, or its package is not installed.
        """
        location = location.rstrip("/")
        self._cache = cache_folder() / "stores" / digest(location)
        medium = ObjectMedium(location)
        super().__init__(location, medium, ObjectClaims(medium, self._cache))
        self._verified: set[Signature] = set()

    def prepare(self) -> str | None:
        """Prove that the place can be written, listed and read, and find out whether it keeps leases."""
        probe = f"scratch/probe-{secrets.token_hex(8)}"
        self._medium.replace(probe, b"probe")
        with self._medium.translate_errors():
            if self._medium.read({probe: probe})[probe] != b"probe":
                raise OSError("what was written does not read back")
        self._medium.delete([probe])
        self.sweep(everywhere=True)
        if self._medium.conditional():
            return None
        for address, claim in self.claims().items():
            raise StoreError(
                f"the store {self.location} ignores conditions on writes, so only one driver may use it at a time, and "
                f"{claim} works on {address.stage}/{address.key}: wait for it; if it is dead, delete all of "
                f"{self._medium.path('claims')} and give the same command again"
            )
        return (
            f"the store {self.location} ignores conditions on writes, so nothing keeps two drivers from doing the same "
            "work: start no second one before this one has ended"
        )

    _folders = ("manifests", "attempts", "artifacts")

    def _manifest_path(self, address: Artifact) -> str:
        return manifest_path(address)

    def _files_path(self, manifest: Manifest) -> str:
        return files_path(manifest.address, manifest.upload or "")

    def _committed(self, stage: str) -> Iterable[str]:
        return (name.removesuffix(".json") for name in self._medium.names(f"manifests/{stage}"))

    def _parse(self, address: Artifact, content: bytes | None) -> Manifest:
        manifest = super()._parse(address, content)
        if manifest.upload is None:
            raise DamagedArtifactError(address, "its manifest does not say where its files are")
        return manifest

    # --- artifacts

    def fetch(self, address: Artifact) -> Path:
        """Copy the artifact to this node; a copy that was altered here is replaced."""
        manifest = self._manifest(address)
        upload = manifest.upload or ""
        copy = self._cache / "artifacts" / address.stage / address.key / upload
        if copy.is_dir():
            with contextlib.suppress(DamagedArtifactError):
                verify_files(str(copy), manifest, self._verified)
                return copy
            shutil.rmtree(copy, ignore_errors=True)
        copy.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{upload}-", dir=copy.parent))
        try:
            for name in manifest.files:
                (part / name).parent.mkdir(parents=True, exist_ok=True)
            with self._medium.translate_errors():
                try:
                    self._medium.download(files_path(address, upload), part, list(manifest.files))
                except FileNotFoundError as error:
                    raise DamagedArtifactError(address, f"a file is missing ({error})", manifest) from error
            verify_files(str(part), manifest, self._verified)
            part.chmod(0o755)
            # Another process of this node may have been faster; its copy is as good.
            with contextlib.suppress(OSError):
                part.rename(copy)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        verify_files(str(copy), manifest, self._verified)
        return copy

    def inspect(self, manifest: Manifest) -> DamagedArtifactError | None:
        """Read all files in the object store, and keep none of them."""
        folder = self._medium.path(files_path(manifest.address, manifest.upload or ""))
        with self._medium.translate_errors():
            for name, (size, sha256) in manifest.files.items():
                path = f"{folder}/{name}"
                found, seen = hashlib.sha256(), 0
                try:
                    with self._medium.fs.open(path, "rb", cache_type="none") as stream:
                        while block := stream.read(_BLOCK):
                            found.update(block)
                            seen += len(block)
                except FileNotFoundError:
                    return DamagedArtifactError(manifest.address, f"{path} is missing")
                if seen != size:
                    message = f"{path} has {seen} bytes, its manifest says {size}"
                    return DamagedArtifactError(manifest.address, message)
                if found.hexdigest() != sha256:
                    return DamagedArtifactError(manifest.address, f"the bytes of {path} differ from its manifest")
        return None

    def _set_aside(self, address: Artifact) -> None:
        """Move the manifest out of the way; no file is deleted."""
        path, aside = manifest_path(address), f"{address.stage}-{address.key}-{secrets.token_hex(4)}.json"
        with self._medium.translate_errors(), contextlib.suppress(FileNotFoundError):
            self._medium.fs.copy(self._medium.path(path), self._medium.path(f"damaged/{aside}"))
            self._medium.delete([path])

    # --- making artifacts

    def flush(self, addresses: Collection[Artifact]) -> None:
        """Do nothing: an object store answers when it has stored."""

    def adopt(self, old: Artifact, manifest: Manifest) -> None:
        """Have the object store copy the files into a new upload, then publish its manifest."""
        known, upload = self._manifest(old), secrets.token_hex(8)
        if manifest.files:
            source, target = files_path(old, known.upload or ""), files_path(manifest.address, upload)
            with self._medium.translate_errors():
                try:
                    self._medium.copy(source, target, list(manifest.files))
                except FileNotFoundError as error:
                    raise DamagedArtifactError(old, f"a file is missing ({error})") from error
        manifest = replace(manifest, upload=upload)
        self._claims.publish(manifest.address, manifest_to_json(manifest), manifest)

    # --- attempts

    def log_path(self, address: Artifact, number: int) -> Path:
        """Name a file on this node."""
        with self._medium.translate_errors():
            folder = self._cache / "logs" / address.stage
            folder.mkdir(parents=True, exist_ok=True)
            return folder / f"{address.key}.{number}.log"

    def keep_log(self, address: Artifact, number: int) -> str | None:
        """Upload the log; one that was written on another node is out of reach if that node died."""
        path = self.log_path(address, number)
        if not path.exists() or not path.stat().st_size:
            path.unlink(missing_ok=True)
            return None
        with self._medium.translate_errors():
            self._medium.upload(path.parent, f"attempts/{address.stage}", [path.name])
        path.unlink()
        return str(self._medium.fs.unstrip_protocol(self._medium.path(f"attempts/{address.stage}/{path.name}")))

    # --- garbage

    def remove(self, addresses: Collection[Artifact]) -> None:
        """Delete the manifests, then the files; files that a crash leaves behind are among the `remains`."""
        self._medium.delete([manifest_path(address) for address in addresses])
        # Empty objects: nobody makes what is removed.
        self._medium.delete([claim_path(address) for address in addresses])
        self._medium.delete_trees([f"artifacts/{stage}/{key}" for stage, key in addresses])
        for stage, key in addresses:
            shutil.rmtree(self._cache / "artifacts" / stage / key, ignore_errors=True)

    def remains(self) -> Mapping[str, int]:
        """List manifests that were set aside, and uploads that no manifest names."""
        # Files first: an upload whose manifest comes while we look is then named by it.
        damaged, files = self._medium.sizes("damaged"), self._medium.sizes("artifacts")
        uploads: dict[tuple[Artifact, str], int] = {}
        for path, size in files.items():
            _, stage, key, upload = path.split("/")[:4]
            where = (Artifact(stage, key), upload)
            uploads[where] = uploads.get(where, 0) + size
        known = self.manifests(self.committed({address.stage for address, _ in uploads}))
        found = {self._medium.path(path): size for path, size in damaged.items()}
        for (address, upload), size in uploads.items():
            manifest = known.get(address)
            # What belongs to a damaged manifest that still lies in its place is not known.
            if manifest is None or (isinstance(manifest, Manifest) and manifest.upload != upload):
                found[self._medium.path(files_path(address, upload))] = size
        return found

    def clear(self, places: Collection[str]) -> None:
        """Delete some of what `remains` named."""
        self._medium.delete_trees([place.removeprefix(self._medium.path("")) for place in places])

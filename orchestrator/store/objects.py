"""A store in an object store (`s3://bucket/folder`, or whatever else fsspec knows).

```
manifests/<stage>/<key>.json                    uploaded last; presence is completion, one listing per stage finds all
artifacts/<stage>/<key>/<upload>/files…         each upload has a folder of its own, which its manifest names
attempts/<stage>/<key>.<number>.{json,log}      append-only history of what failed, and what was printed
claims/<stage>/<key>                            who works on a step
pins/<name>                                     artifacts that must not be deleted
damaged/<stage>-<key>-<upload>.json             manifests of torn or altered artifacts, set aside
```

Two drivers that publish one key at once cannot mix their files, and the first manifest stays. Files are read through a
copy on the node's own disk (`SWEEP_CACHE`), checked against the manifest.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import random
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec

from orchestrator.keys import digest
from orchestrator.redact import redact
from orchestrator.store.cache import cache_folder
from orchestrator.store.pins import parse_pin, spell_pin
from orchestrator.store.records import (
    DamagedArtifactError,
    LostOutputError,
    Signature,
    StoreError,
    check_name,
    name_of_record,
    parse_attempt,
    parse_manifest,
    spell_attempt,
    spell_manifest,
    verify_content,
    verify_files,
)
from orchestrator.store.scratch import Scratch
from orchestrator.types import Artifact, Attempt, Manifest

#: Requests that are under way at once when many small objects are read.
_AT_ONCE = 64
#: Deletions that are under way at once.
_THREADS = 16
#: How S3 and its likes refuse a conditional write: there is an object already (not all of them name the condition that
#: failed, without which s3fs takes it for an unknown error), or another write of the same one is under way.
_REFUSED = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "OperationAborted", "409"})
#: How S3 says that an object has no first byte.
_EMPTY = frozenset({"InvalidRange", "416"})
#: Seconds before each further try at a write that was refused where nothing is to be seen.
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
#: Bytes that are read at once from a file that is only looked at.
_BLOCK = 8 * 2**20


class ObjectStore:
    """A store at a URI."""

    def __init__(self, location: str) -> None:
        """Address the store; nothing is read or written yet.

        Raises:
            StoreError: fsspec does not know this kind of URI, or its package is not installed.
        """
        self.location = location.rstrip("/")
        try:
            # Listings must show what other processes wrote a moment ago.
            self._fs, self._root = fsspec.core.url_to_fs(self.location, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise StoreError(f"the store {location} cannot be opened: {error}") from error
        self._cache = cache_folder() / "stores" / digest(self.location)
        self._verified: set[Signature] = set()
        self._scratch = Scratch(self._cache)
        self._swept = False

    def prepare(self) -> None:
        """Prove that the place can be written, listed and read."""
        probe = f"{self._root}/scratch/probe-{secrets.token_hex(8)}"
        with self._explained():
            self._fs.pipe_file(probe, b"probe")
            if self._fs.cat_file(probe) != b"probe":
                raise OSError("what was written does not read back")
            self._fs.rm_file(probe)
            self._sweep_claims()
        self.sweep(math.inf)

    def committed(self, stages: Iterable[str]) -> set[Artifact]:
        """All finished artifacts of some stages."""
        return {
            Artifact(stage, name.removesuffix(".json"))
            for stage in stages
            for name in self._names(f"manifests/{stage}")
        }

    def manifests(self, addresses: Collection[Artifact]) -> dict[Artifact, Manifest | DamagedArtifactError]:
        """The records of artifacts, each checked against its own digest; many at once."""
        found: dict[Artifact, Manifest | DamagedArtifactError] = {}
        for address, text in self._read_all({address: self._manifest_path(address) for address in addresses}).items():
            try:
                found[address] = self._parse(address, text)
            except DamagedArtifactError as error:
                found[address] = error
        return found

    def fetch(self, address: Artifact) -> Path:
        """A copy of the artifact on this node; one that was altered here is fetched again."""
        path = self._manifest_path(address)
        manifest = self._parse(address, self._read_all({address: path})[address])
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
            remote = self._files_path(address, upload)
            with self._explained():
                try:
                    names = list(manifest.files)
                    self._fs.get([f"{remote}/{name}" for name in names], [str(part / name) for name in names])
                except FileNotFoundError as error:
                    raise DamagedArtifactError(address, f"a file is missing ({error})") from error
            verify_files(str(part), manifest, self._verified)
            part.chmod(0o755)
            # Another process of this node may have been faster; its copy is as good.
            with contextlib.suppress(OSError):
                part.rename(copy)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        verify_files(str(copy), manifest, self._verified)
        return copy

    def read(self, manifest: Manifest, name: str) -> bytes:
        """One small file of an artifact, checked; the others stay where they are."""
        with self._explained():
            try:
                content = self._fs.cat_file(f"{self._files_path(manifest.address, manifest.upload or '')}/{name}")
            except FileNotFoundError as error:
                raise DamagedArtifactError(manifest.address, f"{name} is missing") from error
        return verify_content(content, manifest, name)

    def scratch(self, address: Artifact, driver: str) -> Path:
        """A fresh folder on this node."""
        if not self._swept:
            # No driver may ever have been prepared on this node.
            self._swept = True
            self.sweep(math.inf)
        with self._explained():
            (self._cache / "scratch").mkdir(parents=True, exist_ok=True)
            return self._scratch.make(f"{address.stage}-{address.key}", driver)

    def confirm(self, scratch: Path) -> None:
        """By the number of the folder in its file system."""
        with self._explained():
            self._scratch.confirm(scratch)

    def drop(self, scratch: Path) -> None:
        """Delete the folder."""
        self._scratch.drop(scratch)

    def sweep(self, patience: float, ended: str | None = None) -> None:
        """Those of this node."""
        with self._explained():
            self._scratch.sweep(patience, ended)

    def commit(self, scratch: Path, manifest: Manifest) -> bool:
        """Upload the files into a folder of their own, then the manifest, unless there is one already."""
        for name in manifest.files:
            check_name(name)
        self._scratch.descriptor(scratch)
        self.confirm(scratch)
        upload = secrets.token_hex(8)
        remote = self._files_path(manifest.address, upload)
        with self._explained():
            if manifest.files:
                names = list(manifest.files)
                self._fs.put([str(scratch / name) for name in names], [f"{remote}/{name}" for name in names])
            # It never comes back once it was moved away, so it was there all the time.
            self._scratch.confirm(scratch)
            published = self._publish(manifest, upload)
        self._scratch.drop(scratch)
        return published

    def flush(self, addresses: Collection[Artifact]) -> None:
        """Nothing to do: an object store answers when it has stored."""

    def discard(self, address: Artifact) -> None:
        """Move the manifest of a damaged artifact out of the way; no file is deleted."""
        path = self._manifest_path(address)
        with self._explained(), contextlib.suppress(FileNotFoundError):
            aside = f"{self._root}/damaged/{address.stage}-{address.key}-{secrets.token_hex(4)}.json"
            self._fs.copy(path, aside)
            self._fs.rm_file(path)

    def claim(self, address: Artifact, holder: str) -> str | None:
        """Create the claim unless there is one."""
        with self._explained():
            held = self._create(self._claim_path(address), holder.encode())
            return None if held is None else held.decode(errors="replace")

    def renew(self, address: Artifact, holder: str) -> None:
        """Overwrite the claim."""
        with self._explained():
            self._fs.pipe_file(self._claim_path(address), holder.encode())

    def release(self, address: Artifact, holder: str | None = None) -> None:
        """Delete the claim."""
        path = self._claim_path(address)
        with self._explained(), contextlib.suppress(FileNotFoundError):
            if holder is None or self._fs.cat_file(path, start=0) == holder.encode():
                self._fs.rm_file(path)

    def record(self, attempt: Attempt) -> None:
        """Append an attempt; a number that is taken moves to the next free one."""
        number = attempt.number
        with self._explained():
            text = spell_attempt(attempt).encode()
            while self._create(f"{self._history(attempt.address)}.{number}.json", text) is not None:
                number += 1

    def histories(self, addresses: Collection[Artifact]) -> dict[Artifact, list[Attempt]]:
        """The attempts at some steps, oldest first; many are read at once."""
        paths: dict[tuple[Artifact, int], str] = {}
        wanted = set(addresses)
        for stage in {address.stage for address in wanted}:
            for name in self._names(f"attempts/{stage}"):
                key, number = name_of_record(name, "json") or ("", 0)
                if Artifact(stage, key) in wanted:
                    paths[Artifact(stage, key), number] = f"{self._root}/attempts/{stage}/{name}"
        found: dict[Artifact, list[Attempt]] = {}
        for (address, _), text in sorted(self._read_all(paths).items()):
            attempt = parse_attempt(text or b"")
            if attempt:
                found.setdefault(address, []).append(attempt)
        return found

    def log_path(self, address: Artifact, number: int) -> Path:
        """A file on this node."""
        with self._explained():
            folder = self._cache / "logs" / address.stage
            folder.mkdir(parents=True, exist_ok=True)
            return folder / f"{address.key}.{number}.log"

    def keep_log(self, address: Artifact, number: int) -> str | None:
        """Upload the log; one that was written on another node is out of reach if that node died."""
        path = self.log_path(address, number)
        if not path.exists() or not path.stat().st_size:
            path.unlink(missing_ok=True)
            return None
        target = f"{self._history(address)}.{number}.log"
        with self._explained():
            self._fs.put_file(str(path), target)
        path.unlink()
        return str(self._fs.unstrip_protocol(target))

    def stages(self) -> set[str]:
        """All stages that manifests, attempts or uploads speak of."""
        return {*self._names("manifests"), *self._names("attempts"), *self._names("artifacts")}

    def inspect(self, manifest: Manifest) -> DamagedArtifactError | None:
        """Read all files in the object store, and keep none of them."""
        folder = self._files_path(manifest.address, manifest.upload or "")
        with self._explained():
            for name, (size, sha256) in manifest.files.items():
                path = f"{folder}/{name}"
                found, seen = hashlib.sha256(), 0
                try:
                    with self._fs.open(path, "rb", cache_type="none") as stream:
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

    def adopt(self, old: Artifact, manifest: Manifest) -> None:
        """Have the object store copy the files into a new upload, then publish its manifest."""
        known = self._parse(old, self._read_all({old: self._manifest_path(old)})[old])
        upload = secrets.token_hex(8)
        source, target = self._files_path(old, known.upload or ""), self._files_path(manifest.address, upload)
        with self._explained():
            if manifest.files:
                try:
                    names = list(manifest.files)
                    self._fs.copy([f"{source}/{name}" for name in names], [f"{target}/{name}" for name in names])
                except FileNotFoundError as error:
                    raise DamagedArtifactError(old, f"a file is missing ({error})") from error
            self._publish(manifest, upload)

    def remove(self, addresses: Collection[Artifact]) -> None:
        """Delete the manifests, then the files; files that a crash leaves behind are among the `remains`."""
        self._each(self._delete, [self._manifest_path(address) for address in addresses])
        self._each(self._delete_tree, [f"{self._root}/artifacts/{stage}/{key}" for stage, key in addresses])
        for stage, key in addresses:
            shutil.rmtree(self._cache / "artifacts" / stage / key, ignore_errors=True)

    def tried(self, stages: Iterable[str]) -> set[Artifact]:
        """All steps of some stages that have attempt records or logs."""
        return {Artifact(stage, name.split(".")[0]) for stage in stages for name in self._names(f"attempts/{stage}")}

    def forget(self, addresses: Collection[Artifact]) -> None:
        """Delete the attempt records and logs of some steps."""
        unwanted = set(addresses)
        folders = {stage: f"attempts/{stage}" for stage in {address.stage for address in unwanted}}
        found = [(stage, name) for stage, folder in folders.items() for name in self._names(folder)]
        paths = [f"{folders[stage]}/{name}" for stage, name in found if Artifact(stage, name.split(".")[0]) in unwanted]
        self._each(self._delete, [f"{self._root}/{path}" for path in paths])

    def remains(self) -> Mapping[str, int]:
        """Manifests that were set aside, and uploads that no manifest names."""
        with self._explained():
            # Files first: an upload whose manifest comes while we look is then named by it.
            damaged = self._fs.find(f"{self._root}/damaged", detail=True)
            files = self._fs.find(f"{self._root}/artifacts", detail=True)
        start = len(f"{self._root}/artifacts/")
        uploads: dict[tuple[Artifact, str], int] = {}
        for path, info in files.items():
            stage, key, upload = path[start:].split("/")[:3]
            where = (Artifact(stage, key), upload)
            uploads[where] = uploads.get(where, 0) + int(info["size"])
        known = self.manifests(self.committed({address.stage for address, _ in uploads}))
        found = {str(path): int(info["size"]) for path, info in damaged.items()}
        for (address, upload), size in uploads.items():
            manifest = known.get(address)
            # What belongs to a damaged manifest that still lies in its place is not known.
            if manifest is None or (isinstance(manifest, Manifest) and manifest.upload != upload):
                found[self._files_path(address, upload)] = size
        return found

    def clear(self, places: Collection[str]) -> None:
        """Delete some of what `remains` named."""
        self._each(self._delete_tree, places)

    def claims(self) -> Mapping[Artifact, str]:
        """Who works on which step now."""
        with self._explained():
            paths = {Artifact(*path.split("/")[-2:]): path for path in self._fs.find(f"{self._root}/claims")}
        found = self._read_all(paths)
        return {address: text.decode(errors="replace") for address, text in found.items() if text is not None}

    def pin(self, name: str, addresses: Collection[Artifact]) -> None:
        """Overwrite the object."""
        with self._explained():
            self._fs.pipe_file(f"{self._root}/pins/{name}", spell_pin(addresses))

    def pins(self) -> Mapping[str, frozenset[Artifact]]:
        """What each name stands for."""
        found = self._read_all({name: f"{self._root}/pins/{name}" for name in sorted(self._names("pins"))})
        return {
            name: parse_pin(f"{self.location}/pins/{name}", text) for name, text in found.items() if text is not None
        }

    def unpin(self, name: str) -> bool:
        """Delete the object."""
        there = name in self._names("pins")
        self._delete(f"{self._root}/pins/{name}")
        return there

    def _delete(self, path: str) -> None:
        with self._explained(), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(path)

    def _delete_tree(self, path: str) -> None:
        with self._explained(), contextlib.suppress(FileNotFoundError):
            self._fs.rm(path, recursive=True)

    def _each(self, action: Callable[[str], None], paths: Collection[str]) -> None:
        """Do something to many objects, several at once."""
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(action, paths))

    def _sweep_claims(self) -> None:
        """Drop claims on what is committed: their holders died between publishing a step and giving it back."""
        claims = {Artifact(*path.split("/")[-2:]): path for path in self._fs.find(f"{self._root}/claims")}
        paths = {address: self._manifest_path(address) for address in claims}
        for address, manifest in self._read_all(paths).items():
            if manifest is not None:
                with contextlib.suppress(FileNotFoundError):
                    self._fs.rm_file(claims[address])

    def _parse(self, address: Artifact, text: bytes | None) -> Manifest:
        if text is None:
            raise DamagedArtifactError(address, "its manifest is missing")
        manifest = parse_manifest(address, text)
        if manifest.upload is None:
            raise DamagedArtifactError(address, "its manifest does not say where its files are")
        return manifest

    def _names(self, folder: str) -> list[str]:
        with self._explained():
            try:
                listing = self._fs.ls(f"{self._root}/{folder}", detail=False)
            except FileNotFoundError:
                return []
        names = [path.rsplit("/", 1)[-1] for path in listing]
        # Whatever starts with a dot is not ours, and `..` would lead out of the cache.
        return [name for name in names if not name.startswith(".")]

    def _read_all(self, paths: dict[Any, str]) -> dict[Any, bytes | None]:
        """The bytes of many objects; None for one that is missing."""
        if not paths:
            return {}
        with self._explained():
            # From the start on: a file that is read as a whole costs s3fs another request, for its size.
            found = self._fs.cat(list(paths.values()), on_error="return", batch_size=_AT_ONCE, start=0)
            texts: dict[Any, bytes | None] = {}
            for name, path in paths.items():
                text = found[path]
                if isinstance(text, Exception) and _code(text) in _EMPTY:
                    text = b""
                if isinstance(text, BaseException) and not isinstance(text, FileNotFoundError):
                    raise text
                texts[name] = None if isinstance(text, BaseException) else text
        return texts

    def _publish(self, manifest: Manifest, upload: str) -> bool:
        """Write the manifest of an upload; where there is one, both are the same work, and ours is dropped."""
        path = self._manifest_path(manifest.address)
        if self._create(path, spell_manifest(replace(manifest, upload=upload))) is None:
            return True
        if manifest.files:
            self._fs.rm(self._files_path(manifest.address, upload), recursive=True)
        return False

    def _create(self, path: str, data: bytes) -> bytes | None:
        """Write an object unless there is one; returns what somebody else wrote there, None if it is ours."""
        pauses = iter(_PAUSES)
        while True:
            try:
                self._fs.pipe_file(path, data, mode="create")
                return None
            except Exception as error:
                if not isinstance(error, FileExistsError) and _code(error) not in _REFUSED:
                    raise
                # The answer to a write may be lost on its way; the library then asks again, and finds what it wrote.
                there = self._read_all({path: path})[path]
                if there is not None:
                    return None if there == data else there
                # It met another write that is not to be seen yet, or what it met is gone by now.
                pause = next(pauses, None)
                if pause is None:
                    raise
                time.sleep(random.uniform(0.5, 1.5) * pause)

    def _manifest_path(self, address: Artifact) -> str:
        return f"{self._root}/manifests/{address.stage}/{address.key}.json"

    def _claim_path(self, address: Artifact) -> str:
        return f"{self._root}/claims/{address.stage}/{address.key}"

    def _files_path(self, address: Artifact, upload: str) -> str:
        return f"{self._root}/artifacts/{address.stage}/{address.key}/{upload}"

    def _history(self, address: Artifact) -> str:
        return f"{self._root}/attempts/{address.stage}/{address.key}"

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever the network or the service says becomes one kind of error, with a remedy."""
        try:
            yield
        except (DamagedArtifactError, LostOutputError, StoreError):
            raise
        except Exception as error:  # Each service has exceptions of its own; none is an OSError for sure.
            reason = redact(str(error).strip()) or type(error).__name__
            remedy = "check address and credentials, then give the same command again; nothing is lost"
            raise StoreError(f"the store {self.location} cannot be reached or written: {reason}; {remedy}") from error


def _code(error: Exception) -> str | None:
    """What an S3 service called an error."""
    response: dict[str, dict[str, str]] = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code")

"""An artifact and an attempt for tests of a store, and the files of a store as an outsider sees them."""

from __future__ import annotations

from dataclasses import replace

import fsspec

from orchestrator.store import (
    DamagedArtifactError,
    Store,
    list_files,
)
from orchestrator.store.posix import PosixStore
from orchestrator.types import Artifact, Attempt, Manifest, Outcome

ADDRESS = Artifact("toy_source", "0" * 32)
OTHER = Artifact("toy_source", "1" * 32)


class Inside:
    """The files of a store as an outsider sees them."""

    def __init__(self, store: Store) -> None:
        self.fs, self.root = fsspec.core.url_to_fs(store.location, use_listings_cache=False)
        self.posix = isinstance(store, PosixStore)

    def all(self, folder: str) -> list[str]:
        return [str(path) for path in self.fs.find(f"{self.root}/{folder}")]

    def file(self, address: Artifact) -> str:
        (found,) = (path for path in self.all(f"artifacts/{address.stage}/{address.key}") if path.endswith("file.txt"))
        return found

    def manifest(self, address: Artifact) -> str:
        stage, key = address
        tail = f"artifacts/{stage}/{key}/manifest.json" if self.posix else f"manifests/{stage}/{key}.json"
        return f"{self.root}/{tail}"

    def read(self, path: str) -> str:
        return bytes(self.fs.cat_file(path)).decode()

    def write(self, path: str, text: str) -> None:
        self.fs.pipe_file(path, text.encode())


def manifest_of(store: Store, address: Artifact = ADDRESS) -> Manifest | DamagedArtifactError:
    found = store.manifests([address])[address]
    return replace(found, upload=None) if isinstance(found, Manifest) else found


def commit(store: Store, address: Artifact = ADDRESS, text: str = "hello", metric: float = 1.5) -> Manifest:
    with store.lease(address, "driver") as lease:
        (lease.folder / "sub").mkdir()
        (lease.folder / "sub" / "file.txt").write_text(text)
        manifest = Manifest(
            address, "{}", list_files(lease.folder), {"m": metric}, 1, 0.5, 100.0, "host", "abc", None, {"numpy": "2"}
        )
        lease.commit(manifest)
    return manifest


def set_aside(store: Store) -> Manifest:
    """Do what a reader does who finds bytes altered; return the manifest of what was there."""
    manifest = store.manifests([ADDRESS])[ADDRESS]
    assert isinstance(manifest, Manifest)
    store.discard(ADDRESS, manifest)
    assert ADDRESS not in store.committed([ADDRESS.stage])
    return manifest


def attempt(number: int, outcome: Outcome = Outcome.FAILED) -> Attempt:
    return Attempt(ADDRESS, "source", number, outcome, 0.1, 1.0, "here", "abc", "ValueError", "no", None, (ADDRESS,))

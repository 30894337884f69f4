"""The files of a committed artifact, for somebody who only looks: nothing is read that is not shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.store import DamagedArtifactError, Store
from orchestrator.store.posix import PosixStore
from orchestrator.types import Manifest

#: Files of up to so many bytes are read whole and verified; of larger ones in a folder only what is shown is read, and
#: from an object store nothing is.
SMALL = 50 * 2**20


class ArtifactFiles:
    """The files of one artifact, wherever its store keeps them."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        """Read nothing yet."""
        self._store = store
        self.manifest = manifest
        self.sizes: Mapping[str, int] = {name: size for name, (size, _) in manifest.files.items()}
        """Relative path -> bytes."""

    @property
    def location(self) -> str:
        """The folder or URI that the files are in."""
        stage, key = self.manifest.address
        upload = f"/{self.manifest.upload}" if self.manifest.upload else ""
        return f"{self._store.location}/artifacts/{stage}/{key}{upload}"

    def open(self, name: str) -> bytes | Path | None:
        """Return the verified bytes of a small file, the path of a large one, None for a large one that is far away.

        Raises:
            DamagedArtifactError: the file is missing, a small one was altered, a large one has another size.
            StoreError: the store cannot be read.
        """
        size = self.sizes[name]
        if size <= SMALL:
            return self._store.read(self.manifest, name)
        if not isinstance(self._store, PosixStore):
            return None
        path = Path(self.location, name)
        try:
            found = path.stat().st_size
        except OSError as error:
            raise DamagedArtifactError(self.manifest.address, f"{path} cannot be read ({error.strerror})") from error
        if found != size:
            raise DamagedArtifactError(self.manifest.address, f"{path} has {found} bytes, its manifest says {size}")
        return path

    def folder(self) -> Path | None:
        """Return a local folder with all files, None where they are large and far away.

        Raises:
            DamagedArtifactError: a file of a small artifact is missing or altered.
            StoreError: the store cannot be read.
        """
        if sum(self.sizes.values()) <= SMALL:
            return self._store.fetch(self.manifest.address)
        return Path(self.location) if isinstance(self._store, PosixStore) else None

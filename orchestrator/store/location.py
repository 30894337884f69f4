"""Opens the store at a location."""

from __future__ import annotations

from pathlib import Path

from orchestrator.store.artifacts import Store


def open_store(location: str) -> Store:
    """Open the store at a folder or object-store URI, which need not exist yet.

    Raises:
        StoreError: the package for this kind of URI is not installed.
    """
    if "://" in location:
        # Only where it is used: fsspec and what it needs would cost every command a tenth of a second.
        from orchestrator.store.objects import ObjectStore

        return ObjectStore(location)
    from orchestrator.store.posix import PosixStore

    return PosixStore(Path(location))

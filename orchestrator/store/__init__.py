"""Keeps artifacts, attempts, claims and pins, in a folder or an object store."""

from orchestrator.store.artifacts import Store
from orchestrator.store.errors import (
    FULL,
    ClaimedError,
    DamagedArtifactError,
    LostOutputError,
    StoreError,
    UnfitError,
    remedy,
)
from orchestrator.store.files import list_files
from orchestrator.store.lease import Claim, Lease
from orchestrator.store.location import open_store
from orchestrator.store.records import legible

__all__ = [
    "FULL",
    "Claim",
    "ClaimedError",
    "DamagedArtifactError",
    "Lease",
    "LostOutputError",
    "Store",
    "StoreError",
    "UnfitError",
    "legible",
    "list_files",
    "open_store",
    "remedy",
]

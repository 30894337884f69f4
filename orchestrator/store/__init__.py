"""Keeps artifacts, attempts, claims and pins, in a folder or an object store."""

from orchestrator.store.artifacts import Store, output_folder
from orchestrator.store.errors import FULL, DamagedArtifactError, LostOutputError, StoreError, UnfitError, remedy
from orchestrator.store.files import list_files
from orchestrator.store.location import open_store
from orchestrator.store.records import legible

__all__ = [
    "FULL",
    "DamagedArtifactError",
    "LostOutputError",
    "Store",
    "StoreError",
    "UnfitError",
    "legible",
    "list_files",
    "open_store",
    "output_folder",
    "remedy",
]

"""What a store needs of the place where it keeps small files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

K = TypeVar("K")


class Medium(Protocol):
    """A tree of small files. Paths are relative to it, with `/`; whatever goes wrong is a StoreError."""

    def translate_errors(self) -> AbstractContextManager[None]:
        """Turn whatever the medium raises while something is written into StoreError."""

    def names(self, folder: str) -> list[str]:
        """List the names in a folder, none if there is no such folder. Names that begin with a dot are not ours."""

    def read(self, paths: Mapping[K, str]) -> dict[K, bytes | None]:
        """Read files; None for one that is missing."""

    def create(self, path: str, content: bytes) -> bool:
        """Write a file unless there is one; returns whether this wrote it. A reader finds all of it, or none."""

    def replace(self, path: str, content: bytes) -> None:
        """Write a file, in place of what is there: a reader finds the old content or the new one."""

    def delete(self, paths: Collection[str]) -> None:
        """Delete files; those that are missing are skipped."""

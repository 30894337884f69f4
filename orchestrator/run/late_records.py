"""Records of attempts that their workers could not write, because the store was away or full."""

from __future__ import annotations

from orchestrator.attempt.attempt import record_once
from orchestrator.store import Store
from orchestrator.types import Attempt


class LateRecords:
    """The attempts that ended and have no record yet."""

    def __init__(self, store: Store) -> None:
        """Start with none."""
        self._store = store
        self._kept: list[Attempt] = []

    def keep(self, attempt: Attempt) -> None:
        """Remember an attempt, if it has no record."""
        if attempt.unrecorded:
            self._kept.append(attempt)

    def write(self) -> None:
        """Record what was kept, oldest first.

        Raises:
            StoreError: the store still cannot be written; the rest is kept.
        """
        while self._kept:
            record_once(self._kept[0], self._store)
            del self._kept[0]

"""The circuit breaker stops an entry that can only fail: a missing package need not fail a hundred steps one by one."""

from __future__ import annotations

import re

from orchestrator.types import Attempt


class Breaker:
    """A circuit breaker; it counts similar failures of each entry of a sweep."""

    def __init__(self, steps: int) -> None:
        """Start with no failures.

        Args:
            steps: number of similar failures, before any success, that break an entry.
        """
        self._steps = steps
        self._works: set[str] = set()
        self._failed: dict[tuple[str, str], int] = {}

    def succeeded(self, entry: str) -> None:
        """Note that a step of an entry succeeded: from then on the entry is never broken."""
        self._works.add(entry)

    def failed(self, attempt: Attempt) -> str | None:
        """Count a step that failed for good; return the reason if its entry is broken now, else None."""
        if attempt.entry in self._works:
            return None
        group = (attempt.entry, signature(attempt.error_class, attempt.error))
        self._failed[group] = self._failed.get(group, 0) + 1
        if self._failed[group] < self._steps:
            return None
        first = (attempt.error or "").partition("\n")[0][:200]
        return (
            f"the first {self._steps} steps of {attempt.entry!r} all ended with {attempt.error_class}: {first}; "
            "its other steps were not started (limits.breaker)"
        )


def signature(error_class: str | None, error: str | None) -> str:
    """Return the text that groups failures of one cause: class and message without numbers, paths and quoted names."""
    text = error or ""
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", text)
    text = re.sub(r"(/[^\s:;,]+)+", "/…", text)
    text = re.sub(r"0x[0-9a-f]+|[-+]?\d+(\.\d+)?([eE][-+]?\d+)?", "#", text)
    return f"{error_class}: {text[:200]}"

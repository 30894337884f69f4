"""Where steps run: `inline` in this process, `ray_cluster` on Ray. One contract suite holds both."""

from __future__ import annotations

from typing import Protocol

from orchestrator.attempt import Request
from orchestrator.types import Attempt


class Executor(Protocol):
    """Runs attempts; keeps no truth."""

    cpus: float
    """CPU cores there are, for estimates."""

    def has_room(self, request: Request) -> bool:
        """Whether submitting this one now would keep the machines busy without piling up work."""

    def submit(self, request: Request) -> None:
        """Start an attempt, or queue it."""

    def wait(self, seconds: float) -> list[Attempt]:
        """Attempts that ended, after waiting up to `seconds` for the first. Never raises for what a step did."""

    def stop(self) -> None:
        """Abandon what is running; the steps stay uncommitted and the same command runs them again."""

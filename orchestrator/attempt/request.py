"""What travels to the machine that tries a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.types import Runtime, Step


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that a worker must know to try a step."""

    step: Step
    number: int
    runtime: Runtime
    store: str
    code_commit: str
    driver: str
    """Names the run of the driver that asks."""
    stale: str | None = None
    """A claim on the step that may be taken over."""
    code: str = ""
    """Digest of the driver's code; not compared if empty."""
    modules: tuple[str, ...] = ()
    """Top-level modules of stages that are not this package's, which the digest covers."""
    account: str = ""
    """Sweep and entry: for whom a stage spends, where it spends money."""


def shares_work(requests: Sequence[Request]) -> bool:
    """Tell whether the steps of a bundle are done together, so that nobody knows which of them ended the process."""
    return len(requests) > 1 and bool(requests[0].step.definition.together)

"""The request that is sent to the machine that tries a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.code import Code
from orchestrator.types import Runtime, Step


@dataclass(frozen=True, slots=True)
class Request:
    """One attempt to make: everything that a worker must know to try a step."""

    step: Step
    number: int
    """Number of the attempt, from 1."""
    runtime: Runtime
    store: str
    """Location of the store."""
    code_commit: str
    driver: str
    """Id of the driver's run."""
    stale_claim: str | None = None
    """Text of an expired claim of another driver, which may be taken over."""
    code: Code | None = None
    """The driver's code; None skips the comparison."""
    account: str = ""
    """`<sweep>/<entry>`, to which a stage books the money that it spends."""


def shares_work(requests: Sequence[Request]) -> bool:
    """Tell whether the steps of a bundle are done together; then it is unknown which of them ended the process."""
    return len(requests) > 1 and bool(requests[0].step.definition.together)

"""Claims of other processes."""

from __future__ import annotations

import secrets
import subprocess
from dataclasses import replace

from orchestrator.store import Claim, Store
from orchestrator.store.process import this_process
from orchestrator.types import Artifact


def hold(
    store: Store,
    address: Artifact,
    driver: str = "another",
    host: str = "a-host",
    **other: object,
) -> Claim:
    """Make a claim of a process that differs from this one in something, and that shows no life."""
    process = replace(this_process(), **other)  # type: ignore[arg-type]
    lease = store._claims.create(address, Claim(1, secrets.token_hex(8), driver, 1, process, host))
    assert lease, "it was free"
    lease.close()
    (claim,) = store._claims.look(address)
    return claim


def dead_pid() -> int:
    """Return the number of a process that exists no more."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    return dead.pid

"""What all histories of a real process share: the sweep, with the limits that it may have, and a folder in memory."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import arithmetic
from disk import Disk

from orchestrator.code import code_commit, this_code
from orchestrator.session import open_session

#: The limits that a sweep may have.
LIMITS: tuple[Mapping[str, Any], ...] = ({}, {"running": 2}, {"failures": 1}, {"breaker": 1})


class Setting:
    """What all histories of a real process share: the plans, and a folder in memory."""

    def __init__(self) -> None:
        self.root = f"/dev/shm/simulation-{os.getpid()}"
        shutil.rmtree(self.root, ignore_errors=True)
        file = Path(self.root, "sweep", "simulated.yaml")
        file.parent.mkdir(parents=True)
        file.write_text(arithmetic.SWEEP)
        session = open_session(file, outputs=f"{self.root}/outputs", store=f"{self.root}/store")
        self.sessions = []
        for limits in LIMITS:
            spec = session.spec.model_copy(update={"limits": session.spec.limits.model_copy(update=dict(limits))})
            self.sessions.append(replace(session, spec=spec, plan=_with_spec(session.plan, spec)))
        self.disk = Disk(self.root)
        # Found out once per process, by way of other processes.
        self.code, self.commit = this_code(), code_commit()


def _with_spec(plan: Any, spec: Any) -> Any:
    changed = copy.copy(plan)
    changed.spec = spec
    return changed

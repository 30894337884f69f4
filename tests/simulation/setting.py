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
from orchestrator.sweep.outputs import resolve_outputs

#: The limits that a sweep may have.
LIMITS: tuple[Mapping[str, Any], ...] = ({}, {"running": 2}, {"failures": 1}, {"breaker": 1})


class Setting:
    """The plans of the sweep, and a folder in memory for this process."""

    def __init__(self) -> None:
        """Plan the sweep; that is done once, before processes are forked."""
        self._make_folder()
        file = Path(self.root, "sweep", "simulated.yaml")
        file.parent.mkdir(parents=True)
        file.write_text(arithmetic.SWEEP)
        session = open_session(file)
        self.sessions = []
        for limits in LIMITS:
            changed = session.spec.limits.model_copy(update=dict(limits))
            spec = session.spec.model_copy(update={"limits": changed})
            plan = copy.copy(session.plan)
            plan.spec = spec
            self.sessions.append(replace(session, spec=spec, plan=plan))
        # Found out once, by way of other processes.
        self.code, self.commit = this_code(), code_commit()
        self.settle()

    def settle(self) -> None:
        """Have a folder of its own in this process."""
        self._make_folder()
        outputs = resolve_outputs("simulated", None, f"{self.root}/outputs", f"{self.root}/store")
        self.sessions = [replace(session, outputs=outputs) for session in self.sessions]
        self.disk = Disk(self.root)

    def _make_folder(self) -> None:
        self.root = f"/dev/shm/simulation-{os.getpid()}"
        Path(self.root).mkdir(exist_ok=True)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.root, ignore_errors=True)

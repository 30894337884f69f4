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
from orchestrator.plan.build import build_plan
from orchestrator.search.sampling import Sampling
from orchestrator.search.studies import Studies
from orchestrator.session import Session, open_session
from orchestrator.sweep.outputs import resolve_outputs

#: The limits that a sweep may have.
LIMITS: tuple[Mapping[str, Any], ...] = ({}, {"running": 2}, {"failures": 1}, {"breaker": 1})


class Setting:
    """The plans of the sweep, and a folder in memory for this process."""

    def __init__(self) -> None:
        """Plan the sweep; that is done once, before processes are forked."""
        self._make_folder()
        self.sessions = self._plan("simulated.yaml", arithmetic.SWEEP)
        self.searches = self._plan("searched.yaml", arithmetic.SEARCH)
        self.suggested = _suggested(self.searches[0])
        """What each study of the search is to try: its sampler looks at nothing but the number of a trial."""
        # Found out once, by way of other processes.
        self.code, self.commit = this_code(), code_commit()
        self.settle()

    def settle(self) -> None:
        """Have a folder of its own in this process."""
        self._make_folder()
        outputs = resolve_outputs("simulated", None, f"{self.root}/outputs", f"{self.root}/store")
        self.sessions = [replace(session, outputs=outputs) for session in self.sessions]
        self.searches = [replace(session, outputs=outputs) for session in self.searches]
        self.disk = Disk(self.root)

    def session(self, limits: Mapping[str, Any], searches: bool) -> Session:
        """Open the sweep, or the search, as a driver does; the plan of a search grows, so each driver has its own."""
        if not searches:
            return replace(self.sessions[LIMITS.index(limits)])
        session = self.searches[LIMITS.index(limits)]
        return replace(session, plan=build_plan(session.spec))

    def _plan(self, name: str, text: str) -> list[Session]:
        file = Path(self.root, "sweep", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        session = open_session(file)
        sessions = []
        for limits in LIMITS:
            changed = session.spec.limits.model_copy(update=dict(limits))
            spec = session.spec.model_copy(update={"limits": changed})
            plan = copy.copy(session.plan)
            plan.spec = spec
            sessions.append(replace(session, spec=spec, plan=plan))
        return sessions

    def _make_folder(self) -> None:
        self.root = f"/dev/shm/simulation-{os.getpid()}"
        Path(self.root).mkdir(exist_ok=True)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.root, ignore_errors=True)


def _suggested(session: Session) -> list[int]:
    study = Studies(session.plan).all[0]
    sampling = Sampling(study.search, study.coords, study.id)
    return [int(sampling.suggest(number)[0]["add"]) for number in range(study.budget)]

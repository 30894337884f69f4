"""Where every step of a sweep stands, derived from one listing of the store."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from orchestrator.plan.columns import Plan
from orchestrator.plan.grid import Mask
from orchestrator.plan.needed import needed_steps
from orchestrator.store import Store


class State(IntEnum):
    """Where a step stands."""

    COMMITTED = 0
    PENDING = 1
    RUNNING = 2
    """Handed to the executor."""
    FAILED = 3
    BLOCKED = 4
    """A step that it waits for has failed, or its stage was stopped by the breaker."""
    ELSEWHERE = 5
    """Another driver computes it."""
    UNNEEDED = 6
    """Not committed, but nothing that is wanted asks for it: it lies above finished work."""

    def __str__(self) -> str:
        return self.name.lower()


#: What has yet to end.
_AHEAD = (State.PENDING, State.RUNNING, State.ELSEWHERE)


class Schedule:
    """The state of every step of a plan; steps are numbers, as in the plan."""

    def __init__(self, plan: Plan, store: Store, cells: Mask | None = None, entry: str | None = None) -> None:
        """Derive the states.

        Args:
            plan: the whole sweep.
            store: where to look, once per stage.
            cells: which cells are to be run; all of them when left out.
            entry: the entry that is to be reached; the whole of the cells when left out.
        """
        self.plan = plan
        self.cells = cells
        self.entry = entry
        self.states = bytearray(len(plan))
        """The `State` of each step."""
        self.codes: npt.NDArray[np.uint8] = np.frombuffer(self.states, np.uint8)
        """The same memory, for questions about many steps."""
        self.needed: Mask = np.zeros(len(plan), np.bool_)
        """The steps that the chosen cells lack."""
        self.stopped: str | None = None
        """Why no further steps were started, if so."""
        self.broken: dict[str, str] = {}
        """Entries that are not run any further, and why."""
        self._of_cells = plan.steps_of(cells) if cells is not None else np.ones(len(plan), np.bool_)
        self._chosen = self._of_cells
        self.derive(plan.committed(store.committed(plan.stages)))

    def derive(self, committed: Mask) -> None:
        """(Re)compute what is needed from what is committed."""
        missing = needed_steps(self.plan, committed)
        self.codes[:] = State.UNNEEDED
        self.codes[missing] = State.PENDING
        self.codes[committed] = State.COMMITTED
        whole = self.cells is None and self.entry is None
        self.needed = missing if whole else needed_steps(self.plan, committed, self.cells, self.entry)
        if self.entry is not None:
            # What lies below the entry is missing, but nobody asked for it now.
            self._chosen = self._of_cells & (self.needed | committed)

    @property
    def committed(self) -> Mask:
        """Which steps are committed."""
        committed: Mask = self.codes == State.COMMITTED
        return committed

    @property
    def done(self) -> bool:
        """Nothing that was asked for is left to do."""
        return not (self.needed & ~self.committed).any()

    def counts(self) -> dict[str, Mapping[State, int]]:
        """Per entry, how many of the chosen steps are in each state; what is not needed counts as committed."""
        kinds = len(State)
        joint = self.plan.home[self._chosen].astype(np.int64) * kinds + self.codes[self._chosen]
        table = np.bincount(joint, minlength=len(self.plan.entries) * kinds).reshape(-1, kinds)
        table[:, State.COMMITTED] += table[:, State.UNNEEDED]
        return {
            name: {state: int(row[state]) for state in State if state is not State.UNNEEDED}
            for name, row in zip(self.plan.entries, table, strict=True)
        }

    @property
    def ahead(self) -> Mask:
        """The chosen steps that have yet to end."""
        ahead: Mask = self._chosen & np.isin(self.codes, _AHEAD)
        return ahead

    def totals(self) -> dict[str, dict[str, int]]:
        """Per entry: chosen steps in total, committed, to run."""
        size = len(self.plan.entries)
        columns = {
            "total": self._chosen,
            "committed": self._chosen & self.committed,
            "to_run": self._chosen & self.needed,
        }
        counted = {name: np.bincount(self.plan.home[mask], minlength=size) for name, mask in columns.items()}
        return {
            entry: {name: int(counts[position]) for name, counts in counted.items()}
            for position, entry in enumerate(self.plan.entries)
        }

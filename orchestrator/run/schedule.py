"""The schedule: the state of every step of a sweep, derived from one listing of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from orchestrator.plan.columns import Plan
from orchestrator.plan.grid import Mask
from orchestrator.plan.needed import needed_steps
from orchestrator.store import Store
from orchestrator.types import Manifest


class State(IntEnum):
    """The state of a step."""

    COMMITTED = 0
    PENDING = 1
    RUNNING = 2
    """Handed to the executor."""
    FAILED = 3
    BLOCKED = 4
    """An input's step has failed, or the breaker has stopped its entry."""
    ELSEWHERE = 5
    """Computed by another driver."""
    UNNEEDED = 6
    """Not committed and not needed, because the steps that read it are committed."""
    UNDECIDED = 7
    """Of a trial that is not suggested yet."""

    def __str__(self) -> str:
        return self.name.lower()


#: States that are not told: what is not needed counts as committed, what is not decided is no step yet.
_UNCOUNTED = (State.UNNEEDED, State.UNDECIDED)
#: States of steps that have yet to end.
_UNFINISHED = (State.PENDING, State.RUNNING, State.ELSEWHERE)


class Schedule:
    """The state of every step of a plan; steps are numbers, as in the plan."""

    def __init__(self, plan: Plan, store: Store, cells: Mask | None = None, entry: str | None = None) -> None:
        """Derive the states from the store, which is listed once per stage.

        Args:
            plan: the whole sweep.
            store: the store of its artifacts.
            cells: mask of the cells to run; None for all.
            entry: the entry to reach; None for whole cells.
        """
        self.plan = plan
        self.cells = cells
        self.entry = entry
        self.states = bytearray(len(plan))
        """The `State` of each step."""
        self.codes: npt.NDArray[np.uint8] = np.frombuffer(self.states, np.uint8)
        """View of the same memory, for vectorised access."""
        self.needed: Mask = np.zeros(len(plan), np.bool_)
        """Mask of the steps that must run for the chosen cells."""
        self.stopped: str | None = None
        """Reason why no further steps are started; None if they are."""
        self.broken: dict[str, str] = {}
        """Entry that the breaker has stopped -> the reason."""
        self._store = store
        whole = cells is None and not plan.spec.searched
        self._of_cells = np.ones(len(plan), np.bool_) if whole else plan.steps_of(cells)
        self._chosen = self._of_cells
        self.derive(plan.committed(store.committed(plan.stages)))

    def derive(self, committed: Mask) -> None:
        """(Re)compute the states and `needed` from the mask of the committed steps."""
        missing = needed_steps(self.plan, committed)
        self.codes[:] = State.UNNEEDED
        if self.plan.spec.searched:
            self.codes[[not key for key in self.plan.keys]] = State.UNDECIDED
        self.codes[missing] = State.PENDING
        self.codes[committed] = State.COMMITTED
        whole = self.cells is None and self.entry is None
        self.needed = missing if whole else needed_steps(self.plan, committed, self.cells, self.entry)
        if self.entry is not None:
            # Steps that depend on the entry are missing, but not requested now.
            self._chosen = self._of_cells & (self.needed | committed)

    def join(self, cells: Sequence[int], made: Sequence[int]) -> list[int]:
        """Take in cells that were decided now, and return the steps that must be run for them.

        Args:
            cells: positions in the plan.
            made: the steps that are new in the plan (`orchestrator.plan.join`).

        Raises:
            StoreError: the store cannot be read; nothing was taken in.
        """
        plan, states = self.plan, self.states
        addresses = {plan.address(number): number for number in made}
        there = {each for each, found in self._store.manifests(addresses).items() if isinstance(found, Manifest)}
        for address, number in addresses.items():
            states[number] = State.COMMITTED if address in there else State.UNNEEDED
        for name in plan.entries:
            plan.mark(self._of_cells, plan.groups(name)[list(cells)])
        frontier = [
            number
            for name in plan.wanted
            for first in dict.fromkeys(plan.groups(name)[list(cells)].tolist())
            if first >= 0
            for number in range(first, first + int(plan.size[first]))
        ]
        joined: list[int] = []
        while frontier:
            number = frontier.pop()
            if states[number] == State.UNNEEDED:
                states[number] = State.PENDING
                self.needed[number] = True
                joined.append(number)
                frontier += plan.parents(number)
        return joined

    @property
    def committed(self) -> Mask:
        """Mask of the committed steps."""
        committed: Mask = self.codes == State.COMMITTED
        return committed

    @property
    def done(self) -> bool:
        """Whether all requested steps are committed."""
        return not (self.needed & ~self.committed).any()

    def counts(self) -> dict[str, Mapping[State, int]]:
        """Count the chosen steps of each entry by state; steps that are not needed count as committed."""
        kinds = len(State)
        joint = self.plan.home[self._chosen].astype(np.int64) * kinds + self.codes[self._chosen]
        table = np.bincount(joint, minlength=len(self.plan.entries) * kinds).reshape(-1, kinds)
        table[:, State.COMMITTED] += table[:, State.UNNEEDED]
        return {
            name: {state: int(row[state]) for state in State if state not in _UNCOUNTED}
            for name, row in zip(self.plan.entries, table, strict=True)
        }

    @property
    def unfinished(self) -> Mask:
        """Mask of the chosen steps that have yet to end."""
        unfinished: Mask = self._chosen & np.isin(self.codes, _UNFINISHED)
        return unfinished

    def totals(self) -> dict[str, dict[str, int]]:
        """Count the chosen steps of each entry: `total`, `committed`, `to_run`."""
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

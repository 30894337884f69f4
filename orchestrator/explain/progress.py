"""How far a run is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.explain.eta import Eta, format_left
from orchestrator.run.schedule import Schedule, State


@dataclass(frozen=True, slots=True)
class SweepProgress:
    """How far a run is, in steps of the chosen cells; as a text it is one line for people."""

    done: int
    """Steps that are committed, those of earlier runs included."""
    total: int
    failed: int
    """Steps whose last attempt failed; what waits for them is not counted here."""
    running: Mapping[str, int]
    """Entry -> its running steps; entries without any are left out."""
    elsewhere: int
    """Steps that another driver computes."""
    left: Eta
    """The time that the rest takes."""
    may_come: int = 0
    """Cells that the studies of a search may still add at most; nothing else here speaks of them."""

    @property
    def seconds_left(self) -> float | None:
        """The most seconds that the rest will probably take; None while too little is known to tell."""
        return self.left.ends()[1]

    def __str__(self) -> str:
        busy = [f"{name} {count}" for name, count in self.running.items()]
        busy += [f"{self.elsewhere} by another driver"] if self.elsewhere else []
        counts = f"{self.done}/{self.total} steps done, {self.failed} failed"
        return f"{counts}, running: {', '.join(busy) or 'nothing'}, {format_left(self.left, self.may_come)}"


def progress_of(schedule: Schedule, left: Eta, may_come: int = 0) -> SweepProgress:
    """Count the steps of a schedule by what became of them.

    Args:
        schedule: the steps.
        left: the time that the rest takes.
        may_come: how many cells the studies of a search may still add.
    """
    counts = schedule.counts()

    def sum_of(state: State) -> int:
        return sum(each[state] for each in counts.values())

    return SweepProgress(
        done=sum_of(State.COMMITTED),
        total=sum(sum(each.values()) for each in counts.values()),
        failed=sum_of(State.FAILED),
        running={name: each[State.RUNNING] for name, each in counts.items() if each[State.RUNNING]},
        elsewhere=sum_of(State.ELSEWHERE),
        left=left,
        may_come=may_come,
    )

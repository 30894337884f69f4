"""What became of a cell: one rule, for all cells at once or for some of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from orchestrator.plan.grid import Mask, Numbers
from orchestrator.run.schedule import Schedule, State
from orchestrator.types import Attempt

#: What may have become of a cell.
STATUSES = ("succeeded", "running", "pending", "blocked", "failed", "undecided")


def status_codes(schedule: Schedule, stopped: Collection[str], cells: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Derive the status of cells from the states of their steps.

    A cell that may come, but of whose trial nothing is known yet, is undecided. Else a cell is succeeded (its targets
    are committed); else failed (a step of its own failed); else blocked (a shared step failed, or a stage that it needs
    was stopped by the breaker); else running; else pending.

    Args:
        schedule: with the states of all steps.
        stopped: entries that the breaker stopped.
        cells: (cells,), positions in the plan.

    Returns:
        (cells,), positions in STATUSES.
    """
    plan, states = schedule.plan, schedule.codes
    missing = _Ranges(states != State.COMMITTED)
    failed, blocked = _Ranges(states == State.FAILED), _Ranges(states == State.BLOCKED)
    failed_alone = _Ranges((states == State.FAILED) & (plan.users == 1))
    under_way = _Ranges(np.isin(states, (State.RUNNING, State.ELSEWHERE)))
    marks = {name: np.zeros(len(cells), np.bool_) for name in ("missing", "own", "blocked", "under_way")}
    for name in plan.entries:
        firsts = plan.groups(name)[cells]
        there = np.flatnonzero(firsts >= 0)
        first = firsts[there]
        last = first + plan.size[first]
        if name in plan.wanted:
            marks["missing"][there] |= missing.marked(first, last)
        marks["own"][there] |= failed_alone.marked(first, last)
        marks["blocked"][there] |= failed.marked(first, last)
        if name in stopped:
            marks["blocked"][there] |= blocked.marked(first, last)
        marks["under_way"][there] |= under_way.marked(first, last)
    codes = np.full(len(cells), STATUSES.index("pending"), np.uint8)
    # Each outweighs those before it.
    codes[marks["under_way"]] = STATUSES.index("running")
    codes[marks["blocked"]] = STATUSES.index("blocked")
    codes[marks["own"]] = STATUSES.index("failed")
    codes[~marks["missing"]] = STATUSES.index("succeeded")
    codes[~plan.decided[cells]] = STATUSES.index("undecided")
    return codes


def failure_of(
    schedule: Schedule, failures: Mapping[int, Attempt], stopped: Mapping[str, Attempt], cell: int, status: str
) -> Attempt | None:
    """Find the attempt that made a cell failed or blocked.

    Args:
        schedule: with the states of all steps.
        failures: step -> its last attempt, which failed.
        stopped: entries that the breaker stopped -> one of their failures.
        cell: position in the plan.
        status: of the cell, by `status_codes`.

    Returns:
        The failure of its first failed step, only of its own steps where the cell is failed; that of a stopped entry
        where none of its steps failed; None where it is not on record.
    """
    plan, states = schedule.plan, schedule.states
    groups = [(name, first) for name in plan.entries if (first := int(plan.groups(name)[cell])) >= 0]
    for _, first in groups:
        for number in range(first, first + int(plan.size[first])):
            if states[number] == State.FAILED and (status == "blocked" or plan.users[number] == 1):
                return failures.get(number)
    for name, first in groups:
        if name in stopped and State.BLOCKED in states[first : first + int(plan.size[first])]:
            return stopped[name]
    return None


class _Ranges:
    """Marked steps, counted so that many ranges of steps are looked up at once."""

    def __init__(self, marks: Mask) -> None:
        self._before: npt.NDArray[np.int64] = np.concatenate([[0], np.cumsum(marks)])

    def marked(self, first: Numbers, last: Numbers) -> Mask:
        """Return for each range whether a step from `first` up to, but not including, `last` is marked."""
        found: Mask = self._before[last] > self._before[first]
        return found

"""Decides which steps must run, and in what order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from orchestrator.plan.columns import Plan
from orchestrator.plan.grid import Mask, Numbers


def needed_steps(plan: Plan, committed: Mask, cells: Mask | None = None, entry: str | None = None) -> Mask:
    """Return the mask of the steps that must run: those not committed that a chosen cell or another needed step needs.

    The inputs of a committed step are not looked at, even if they are gone.

    Args:
        plan: the whole sweep.
        committed: mask of the committed steps.
        cells: mask of the chosen cells; None for all.
        entry: the entry to reach; None for all that a finished cell has.
    """
    wanted = plan.steps_of(cells, (entry,) if entry else plan.wanted)
    _add_inputs(plan, wanted, committed)
    return wanted


def priorities(plan: Plan) -> Numbers:
    """Return the priority of each step (lowest first); steps of an entry that read the same artifacts are neighbours.

    The artifacts that most of them share come first: a node then reads a large input once, and not once per seed.
    """
    order: Numbers = np.arange(len(plan), dtype=np.int32)
    for entry in plan.by_entry.values():
        points = plan.at[entry.first : entry.last]
        columns = [plan.by_entry[source.entry].places[source.at[points]] for source in entry.sources]
        columns.sort(key=lambda column: len(np.unique(column)))
        if columns:
            # The last of the keys is the first that counts; lexsort is stable.
            order[entry.first : entry.last] = entry.first + np.lexsort(columns[::-1])
    priorities: Numbers = np.empty(len(plan), np.int32)
    priorities[order] = np.arange(len(plan), dtype=np.int32)
    return priorities


def heights(plan: Plan) -> Mapping[str, int]:
    """Return, for each entry, the number of entries on the longest path from it to a target."""
    found = dict.fromkeys(plan.entries, 0)
    for name in reversed(plan.entries):
        for source in plan.by_entry[name].sources:
            found[source.entry] = max(found[source.entry], found[name] + 1)
        # What stands in for an entry is read by the same ones.
        if other := plan.spec.stages[name].otherwise:
            found[other] = max(found[other], found[name])
    return found


def turns(plan: Plan, cells: Mask | None = None) -> Numbers:
    """Return the turn of each step: the position of the first cell that needs it; the number of cells if none does.

    Whoever runs steps in their turn finishes one cell after another. What many cells share has its turn with the first.

    Args:
        plan: the whole sweep.
        cells: mask of the chosen cells; None for all.
    """
    size = len(plan.points)
    chosen = np.arange(size, dtype=np.int32) if cells is None else np.flatnonzero(cells).astype(np.int32)
    # Of the first step of each group; of a search also those that may come.
    turns: Numbers = np.full(len(plan), size, np.int32)
    for name in plan.wanted:
        _take_first(turns, plan.by_entry[name].places[plan.points_of(name)[chosen]], chosen)
    firsts = np.arange(len(plan), dtype=np.int32) - plan.shard
    for name in reversed(plan.entries):
        entry = plan.by_entry[name]
        points, own = plan.at[entry.first : entry.last], turns[firsts[entry.first : entry.last]]
        for source in entry.sources:
            _take_first(turns, plan.by_entry[source.entry].places[source.at[points]], own)
    of_steps: Numbers = turns[firsts]
    return of_steps


def _take_first(turns: Numbers, groups: Numbers, found: Numbers) -> None:
    """Lower the turns of some groups, given by their first steps, to those found; -1 is skipped."""
    np.minimum.at(turns, groups[groups >= 0], found[groups >= 0])


def _add_inputs(plan: Plan, wanted: Mask, committed: Mask) -> None:
    """Remove committed steps from the mask, and add those that the others read and that are not committed."""
    wanted &= ~committed
    for name in reversed(plan.entries):
        entry = plan.by_entry[name]
        numbers = entry.first + np.flatnonzero(wanted[entry.first : entry.last])
        if not len(numbers):
            continue
        points = plan.at[numbers]
        for source in entry.sources:
            gathers = np.array(
                [
                    bool(resolved and (read := resolved.stage.inputs.get(source.input)) and read.many)
                    for resolved in entry.wired.resolved
                ],
                np.bool_,
            )[entry.own[points]]
            firsts = plan.by_entry[source.entry].groups[source.at[points]]
            there = firsts >= 0
            whole = there & (gathers | (plan.size[firsts] == 1))
            plan.mark(wanted, firsts[whole])
            single = there & ~whole
            wanted[firsts[single] + plan.shard[numbers[single]]] = True
        wanted &= ~committed

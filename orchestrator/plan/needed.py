"""Which steps must run, and in what order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from orchestrator.plan.columns import Plan
from orchestrator.plan.grid import Mask, Numbers


def needed_steps(plan: Plan, committed: Mask, cells: Mask | None = None, entry: str | None = None) -> Mask:
    """Which steps must run: those that a target of a (chosen) cell, or a needed step, asks for and lack.

    What lies above a committed step is not looked at, even if it is gone.

    Args:
        plan: the whole sweep.
        committed: which steps are there.
        cells: the chosen cells; None for all.
        entry: the target; None for all that a finished cell has.
    """
    wanted = plan.steps_of(cells, (entry,) if entry else plan.wanted)
    _close(plan, wanted, committed)
    return wanted


def priorities(plan: Plan) -> Numbers:
    """The turn of each step, so that steps of an entry that read the same artifacts follow each other.

    The artifacts that most of them share come first: a node then reads a large input once, and not once per seed.
    """
    order: Numbers = np.arange(len(plan), dtype=np.int32)
    for entry in plan.by_entry.values():
        points = plan.at[entry.first : entry.last]
        columns = [plan.by_entry[source.entry].groups[source.at[points]] for source in entry.sources]
        columns.sort(key=lambda column: len(np.unique(column)))
        if columns:
            # The last of the keys is the first that counts; lexsort is stable.
            order[entry.first : entry.last] = entry.first + np.lexsort(columns[::-1])
    priorities: Numbers = np.empty(len(plan), np.int32)
    priorities[order] = np.arange(len(plan), dtype=np.int32)
    return priorities


def heights(plan: Plan) -> Mapping[str, int]:
    """Per entry, how many entries lie on the longest way from it to a target."""
    found = dict.fromkeys(plan.entries, 0)
    for name in reversed(plan.entries):
        for source in plan.by_entry[name].sources:
            found[source.entry] = max(found[source.entry], found[name] + 1)
    return found


def _close(plan: Plan, wanted: Mask, committed: Mask) -> None:
    """Take back what is committed, and add what the rest reads and lacks."""
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
                    bool(variant and (read := variant.stage.inputs.get(source.input)) and read.many)
                    for variant in entry.wired.variants
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

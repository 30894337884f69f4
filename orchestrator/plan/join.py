"""How the plan of a search gains the cells of a trial that was suggested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.plan.columns import Plan
from orchestrator.plan.entries import EntryPlan, Feeds
from orchestrator.plan.references import is_searched
from orchestrator.plan.wiring import ResolvedEntry, resolve_at


def join(plan: Plan, cells: Sequence[int], meant: Mapping[str, Any]) -> list[int]:
    """Decide some cells of one trial; cells that are decided already are left as they are.

    Args:
        plan: gains the cells, and the steps of theirs that it does not have under another number.
        cells: positions in the plan, all of one trial.
        meant: the values of the trial, as configs read them (`Search.meant`).

    Returns:
        The steps that are new, in order of the plan.

    Raises:
        SweepError: the values make a config that is not valid; nothing was decided.
    """
    new = [cell for cell in cells if not plan.decided[cell]]
    users = plan.users
    # Whatever may be wrong with the values is found before anything changes.
    for name in plan.open_entries:
        for own in _own_points(plan, name, new):
            _choose(plan, plan.by_entry[name], own, meant)
    made: list[int] = []
    for name in plan.open_entries:
        entry = plan.by_entry[name]
        for point in dict.fromkeys(plan.points_of(name)[new].tolist()):
            if entry.groups[point] < 0 <= entry.places[point]:
                first, steps = _decide(plan, entry, point)
                entry.groups[point] = first
                made += steps
        plan.groups(name)[new] = entry.groups[plan.points_of(name)[new]]
    plan.decided[new] = True
    # The users of what no trial alone has were counted at first.
    rows = [plan.groups(name)[new] for name in plan.open_entries]
    for column in np.stack(rows, axis=1).tolist() if rows else []:
        for first in {each for each in column if each >= 0}:
            users[first : first + plan.size[first]] += 1
    return made


def keys_at(plan: Plan, cells: Sequence[int], meant: Mapping[str, Any]) -> list[str]:
    """Return the keys that the targets of some cells of one trial would have with certain values; decides nothing.

    Args and errors are those of `join`.
    """
    keys: dict[int, str] = {}
    found: list[str] = []
    for cell in cells:
        for name in plan.open_entries:
            entry, point = plan.by_entry[name], int(plan.points_of(name)[cell])
            place = int(entry.places[point])
            if place not in entry.steps or place in keys:
                continue
            resolved = _resolve(plan, entry, int(entry.own[point]), meant)
            assert resolved is not None, "it has a place"
            feeds = Feeds(plan.columns, entry, resolved, _firsts(plan, entry, point, planned=True))
            keys |= dict(enumerate(feeds.keys(resolved, keys), start=place))
        for name in plan.wanted:
            entry = plan.by_entry[name]
            place = int(entry.places[plan.points_of(name)[cell]])
            found += [keys.get(number, plan.keys[number]) for number in range(place, place + int(plan.size[place]))]
    return found


def _own_points(plan: Plan, name: str, cells: Sequence[int]) -> Iterator[int]:
    """Yield the points of an entry's own axes at which it reads what is searched for, and is not chosen yet."""
    if is_searched(plan.spec, plan.spec.stages[name].config):
        entry = plan.by_entry[name]
        for own in dict.fromkeys(entry.own[plan.points_of(name)[list(cells)]].tolist()):
            if own not in entry.chosen:
                yield own


def _choose(plan: Plan, entry: EntryPlan, own: int, meant: Mapping[str, Any]) -> None:
    resolved = _resolve(plan, entry, own, meant)
    if resolved is not None:
        entry.chosen[own] = resolved


def _resolve(plan: Plan, entry: EntryPlan, own: int, meant: Mapping[str, Any]) -> ResolvedEntry | None:
    spec, name = plan.spec, entry.wired.name
    if not is_searched(spec, spec.stages[name].config):
        return entry.wired.resolved[own]
    return resolve_at(spec, name, {**plan.grid.coords(entry.wired.own, own), str(spec.search_name): meant})


def _decide(plan: Plan, entry: EntryPlan, point: int) -> tuple[int, list[int]]:
    """Give the steps at a point their keys; return the first of its group, and the steps that are new."""
    columns, place = plan.columns, int(entry.places[point])
    if place not in entry.steps:
        # Another entry stands in for it, and was decided before.
        (other,) = (each for each in plan.by_entry.values() if place in each.steps)
        return int(other.groups[columns.at[place]]), []
    resolved = entry.resolved_at(point)
    keys = Feeds(columns, entry, resolved, _firsts(plan, entry, point)).keys(resolved)
    known = columns.index.get(keys[0])
    if known is not None:
        return known, []
    steps = list(range(place, place + len(keys)))
    for number, key in zip(steps, keys, strict=True):
        columns.keys[number] = key
        columns.index[key] = number
    return place, steps


def _firsts(plan: Plan, entry: EntryPlan, point: int, planned: bool = False) -> list[int]:
    sources = ((plan.by_entry[source.entry], source.at[point]) for source in entry.sources)
    return [int((other.places if planned else other.groups)[at]) for other, at in sources]

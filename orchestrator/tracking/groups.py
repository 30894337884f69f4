"""The runs above those of cells: groups and the sweep's own, with counts and means."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from orchestrator.analysis.blocks import Codes, complete_blocks
from orchestrator.sweep.search import TRIAL
from orchestrator.tracking.runs import FRESH, GROUP, ID, KIND, NAME_LIMIT, Run, trial_group


def parent_run(group: tuple[str, ...], sweep: str, started: float) -> Run:
    """Make the run of a group; () is the whole sweep."""
    now = time.time()
    id_ = parent_id(group)
    tags = {KIND: "group", ID: id_, GROUP: "/".join(group)} if group else {KIND: "sweep", ID: id_}
    # "trial 3" alone would be in each study.
    name = ", ".join(group) or sweep
    name = name if len(name) <= NAME_LIMIT else group[-1]
    return Run(id_, name, group[:-1], True, started, now, tags=tags)


def parent_id(group: tuple[str, ...]) -> str:
    """Name the run of a group, as `Run.id`."""
    return f"group:{'/'.join(group)}"


def aggregates(
    groups: Mapping[tuple[str, ...], Iterable[Run]], axes: Sequence[str] | None, unaveraged: Sequence[str] = ()
) -> dict[tuple[str, ...], dict[str, float]]:
    """Count the cells below each parent, and take the mean and standard deviation of each metric over them.

    Groups are compared with each other, so their means are over complete blocks (`orchestrator.analysis.blocks`), and
    `<metric>_cells` says over how many cells. Groups that merely count cells off have no means. The whole
    sweep has means over all cells that succeeded. Sums are exact: the order of the runs does not matter.

    Args:
        groups: parent -> all runs below it; () for the sweep as a whole.
        axes: the axes that name the groups; None where cells are counted off.
        unaveraged: metrics of which no mean is taken.

    Returns:
        Parent -> metric -> value.
    """
    cells = _cells(groups)
    found = _counts(cells)
    whole = [(group, run) for group, each in cells.items() if not group for run in each]
    named = [(group, run) for group, each in cells.items() if group for run in each]
    for members, compared in ((whole, False), (named if axes is not None else [], True)):
        for group, numbers in means(members, axes or (), compared, unaveraged).items():
            found[group] |= numbers
    return found


def aggregates_of_trials(
    groups: Mapping[tuple[str, ...], Iterable[Run]], unaveraged: Sequence[str] = ()
) -> dict[tuple[str, ...], dict[str, float]]:
    """Count the cells below each parent of a search, and take means over the repetitions of each trial.

    A mean over trials says nothing, since their sampler chose them; one over cells at fresh values would be over those
    of the best trial alone. So neither is taken.

    Args and returns: as `aggregates`.
    """
    cells = _cells(groups)
    found = _counts(cells)
    for group, each in cells.items():
        if not group or any(group[-1] != trial_group(run.params[TRIAL]) for run in each):
            continue
        repetitions = [(group, run) for run in each if run.succeeded and FRESH not in run.tags]
        found[group] |= means(repetitions, (), False, unaveraged).get(group, {})
    return found


def means(
    members: Sequence[tuple[tuple[str, ...], Run]], axes: Sequence[str], compared: bool, unaveraged: Sequence[str]
) -> dict[tuple[str, ...], dict[str, float]]:
    """Take the mean and standard deviation of each metric in each group: the one place that says over which cells.

    Args:
        members: group, cell below it; a cell that did not succeed, or lacks a metric, is in no mean of it.
        axes: the axes that name the groups.
        compared: whether the groups are compared with each other: then only over complete blocks.
        unaveraged: metrics of which no mean is taken.

    Returns:
        Group -> `<metric>_cells`, and where that is not 0 `<metric>_mean`, from two cells on `<metric>_sd`.
    """
    group_of, block_of = _codes(group for group, _ in members), _codes(_block(run, axes) for _, run in members)
    found: dict[tuple[str, ...], dict[str, float]] = {group: {} for group, _ in members}
    for name in dict.fromkeys(name for _, run in members if run.succeeded for name in run.metrics):
        if name == "attempts" or name in unaveraged:
            continue
        there = np.array([run.succeeded and name in run.metrics for _, run in members], np.bool_)
        values: dict[tuple[str, ...], list[float]] = {group: [] for group in found}
        for place in np.flatnonzero(complete_blocks(there, group_of, block_of).kept if compared else there).tolist():
            group, run = members[place]
            values[group].append(run.metrics[name])
        for group, some in values.items():
            # MLflow forgets no number: a mean that is no longer taken is at least said to be of no cell.
            found[group] |= {f"{name}_cells": float(len(some)), **(_moments(name, some) if some else {})}
    return found


def _cells(groups: Mapping[tuple[str, ...], Iterable[Run]]) -> dict[tuple[str, ...], list[Run]]:
    return {group: [run for run in runs if run.tags[KIND] == "cell"] for group, runs in groups.items()}


def _counts(cells: Mapping[tuple[str, ...], Sequence[Run]]) -> dict[tuple[str, ...], dict[str, float]]:
    """Count the cells below each parent; there is nothing to say of one that has none."""
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for group, each in cells.items():
        good = sum(run.succeeded for run in each)
        counts = {"cells": float(len(each)), "cells_succeeded": float(good), "cells_failed": float(len(each) - good)}
        found[group] = counts if each else {}
    return found


def _moments(name: str, values: Sequence[float]) -> dict[str, float]:
    """Take the mean of a metric, and the standard deviation (sample) where it has two values or more."""
    mean = math.fsum(values) / len(values)
    found = {f"{name}_mean": mean}
    if len(values) > 1:
        squares = math.fsum((value - mean) ** 2 for value in values)
        found[f"{name}_sd"] = math.sqrt(squares / (len(values) - 1))
    return found


def _block(run: Run, axes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Take the coordinates of a cell along all axes but those that name its group."""
    return tuple((axis, label) for axis, label in run.params.items() if axis not in axes)


def _codes(things: Iterable[Hashable]) -> Codes:
    """Number things from 0 on, equal ones alike (things,)."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(each, len(seen)) for each in things], np.int64)

"""The runs above those of cells: groups and the sweep's own, with counts and means."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from orchestrator.analysis.means import Codes, balanced_means
from orchestrator.analysis.metric_grid import SEED
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
    groups: Mapping[tuple[str, ...], Iterable[Run]],
    axes: Sequence[str] | None,
    unaveraged: Sequence[str] = (),
    random: Sequence[str] = (SEED,),
) -> dict[tuple[str, ...], dict[str, float]]:
    """Count the cells below each parent, and take the mean and standard deviation of each metric over them.

    Means are balanced, as in all tables (`orchestrator.analysis.means`), and `<metric>_cells` says over how many cells.
    Groups that merely count cells off have none; the whole sweep has means over everything. The order of the runs does
    not matter.

    Args:
        groups: parent -> all runs below it; () for the sweep as a whole.
        axes: the axes that name the groups; None where cells are counted off.
        unaveraged: metrics of which no mean is taken.
        random: the axes whose values are the sample.

    Returns:
        Parent -> metric -> value.
    """
    cells = _cells(groups)
    found = _counts(cells)
    whole = [(group, run) for group, each in cells.items() if not group for run in each]
    named = [(group, run) for group, each in cells.items() if group for run in each]
    for members, names in ((whole, ()), (named if axes is not None else [], tuple(axes or ()))):
        for group, numbers in means(members, names, bool(names), unaveraged, random).items():
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
    members: Sequence[tuple[tuple[str, ...], Run]],
    axes: Sequence[str],
    compared: bool,
    unaveraged: Sequence[str],
    random: Sequence[str] = (SEED,),
) -> dict[tuple[str, ...], dict[str, float]]:
    """Take the balanced mean of each metric in each group, and its standard deviation (`orchestrator.analysis.means`).

    Args:
        members: group, cell below it; a cell that did not succeed, or lacks a metric, is in no mean of it.
        axes: the axes that name the groups.
        compared: whether the groups are compared with each other: then what all have counts.
        unaveraged: metrics of which no mean is taken.
        random: the axes whose values are the sample.

    Returns:
        Group -> `<metric>_cells`, and where that is not 0 `<metric>_mean`, from two seeds on `<metric>_sd`.
    """
    found: dict[tuple[str, ...], dict[str, float]] = {group: {} for group, _ in members}
    group_of = _codes(group for group, _ in members)
    parts = [np.arange(len(members))] if compared else [np.flatnonzero(group_of == each) for each in range(len(found))]
    drawn = [axis for axis in random if axis not in axes and any(axis in run.params for _, run in members)]
    combination = _codes(_others(run, [*axes, *drawn]) for _, run in members)
    draw = _codes(tuple(run.params.get(axis) for axis in drawn) for _, run in members)
    for name in dict.fromkeys(name for _, run in members if run.succeeded for name in run.metrics):
        if name == "attempts" or name in unaveraged:
            continue
        values = np.array([run.metrics.get(name, math.nan) if run.succeeded else math.nan for _, run in members])
        for part in parts:
            arms, arm = np.unique(group_of[part], return_inverse=True)
            taken = balanced_means(values[part], arm, combination[part], draw[part] if drawn else None)
            for place, group in enumerate(list(found)[each] for each in arms.tolist()):
                numbers = {"cells": float(taken.cells[place]), "mean": taken.mean[place], "sd": taken.sd[place]}
                # MLflow forgets no number: a mean that is no longer taken is at least said to be of no cell.
                found[group] |= {f"{name}_{each}": float(one) for each, one in numbers.items() if not math.isnan(one)}
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


def _others(run: Run, axes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Take the coordinates of a cell along all axes but some."""
    return tuple((axis, label) for axis, label in run.params.items() if axis not in axes)


def _codes(things: Iterable[Hashable]) -> Codes:
    """Number things from 0 on, equal ones alike (things,)."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(each, len(seen)) for each in things], np.int64)

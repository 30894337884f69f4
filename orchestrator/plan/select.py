"""Selection of cells: `--only axis=value`, `--exclude axis=value`, and a cell by id or coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from orchestrator.keys import canonical_json
from orchestrator.plan.columns import Plan, cell_id
from orchestrator.plan.grid import Mask
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.sweep.search import TRIAL
from orchestrator.sweep.spec import SweepSpec
from orchestrator.texts import nearest
from orchestrator.types import Scalar


def select(plan: Plan, only: Iterable[str], exclude: Iterable[str]) -> Mask:
    """Return the mask of the cells that match all `--only axis=v1,v2` and no `--exclude axis=v1,v2`.

    Raises:
        SweepError: there is no such axis or value, or no cell is left.
    """
    chosen = np.ones(plan.grid.shape, np.bool_).ravel()
    for text in only:
        chosen &= plan.grid.where(_chosen(plan.spec, "--only", text))
    for text in exclude:
        chosen &= ~plan.grid.where(_chosen(plan.spec, "--exclude", text))
    cells: Mask = chosen[plan.points]
    if not cells.any():
        raise SweepError([plan.spec.problem((), "--only and --exclude leave no cell")])
    return cells


def _chosen(spec: SweepSpec, option: str, text: str) -> dict[str, set[Scalar]]:
    axis, values = read_values(spec, option, text)
    return {axis: set(values)}


def read_values(spec: SweepSpec, option: str, text: str) -> tuple[str, list[Scalar]]:
    """Parse `axis=v1,v2`; return the axis and its values, in this order.

    Raises:
        SweepError: there is no such axis or value; the message names `option`, where it was written.
    """
    axis, equals, values = text.partition("=")
    place = f"{option} {text}"
    if not equals or axis not in spec.axes:
        message = f"there is no axis {axis!r}; {nearest(axis, spec.axes)}" if equals else "write axis=value,value"
        raise SweepError([Problem(place, "", message)])
    labels = {normalised(label): label for label in spec.labels(axis)}
    problems = [
        Problem(place, "", f"{value!r} is no value of {axis!r}; {nearest(value, labels)}")
        for value in values.split(",")
        if normalised(value) not in labels
    ]
    if problems:
        raise SweepError(problems)
    return axis, [labels[normalised(value)] for value in values.split(",")]


def normalised(label: Scalar) -> str:
    """Return the same text for 1, 1.0 and "1", as keys do."""
    if isinstance(label, bool):
        return str(label).lower()
    try:
        return canonical_json(float(label))
    except (ValueError, TypeError):
        return str(label)


def find_cell(plan: Plan, text: str) -> int:
    """Find a cell by (a prefix of) its id, or by as many `axis=value,axis=value` as make it unique; return its number.

    Raises:
        SweepError: no cell or several match, or there is no such axis.
    """
    if "=" in text:
        wanted = dict(part.partition("=")[::2] for part in text.split(","))
        unknown = [axis for axis in wanted if axis not in plan.spec.axes]
        if unknown:
            hint = nearest(unknown[0], plan.spec.axes)
            raise SweepError([Problem(f"CELL {text}", "", f"there is no axis {unknown[0]!r}; {hint}")])
        labels = {
            axis: [label for label in plan.spec.labels(axis) if normalised(label) == normalised(value)]
            for axis, value in wanted.items()
        }
        if plan.spec.searched and labels.get(TRIAL) == []:
            last = plan.spec.labels(TRIAL)[-1]
            message = f"there is no trial {wanted[TRIAL]}: the studies have trials 0 to {last}"
            raise SweepError([Problem(f"CELL {text}", "", message)])
        meant = np.flatnonzero(plan.grid.where(labels)[plan.points]).tolist()
        found = [index for index in meant if plan.decided[index]]
        if meant and not found:
            raise SweepError([Problem(f"CELL {text}", "", _undecided(plan, meant[0]))])
    else:
        there = np.flatnonzero(plan.decided).tolist()
        found = [index for index in there if cell_id(plan.cell_coords(index)).startswith(text)]
    if len(found) == 1:
        return int(found[0])
    few = "; ".join(f"{cell.id} ({format_coords(cell.coords)})" for cell in map(plan.cell, found[:5]))
    more = "name more axes" if "=" in text else "give more of the id"
    message = f"names {len(found)} cells, e.g. {few}; {more}" if found else "names no cell of this sweep"
    raise SweepError([Problem(f"CELL {text}", "", f"{message}; `sweep results` lists cell ids")])


def _undecided(plan: Plan, cell: int) -> str:
    """Say why a cell of a trial is not there."""
    coords, over = plan.cell_coords(cell), plan.spec.searched.objective.over if plan.spec.searched else {}
    others = plan.grid.where({axis: [label] for axis, label in coords.items() if axis not in over})[plan.points]
    trial = f"trial {coords[TRIAL]}"
    if not (others & plan.decided).any():
        return f"{trial} is not suggested yet; `sweep status` says how many are"
    at = format_coords({axis: label for axis, label in coords.items() if axis in over})
    fresh = f"trial {coords[TRIAL]} is not measured at {at}: "
    if any(coords[axis] not in values for axis, values in over.items()):
        return f"{fresh}only the best trial of a finished study is"
    return f"{fresh}its repetitions come one by one, and a pruner may end it before"


def format_coords(coords: Mapping[str, Scalar]) -> str:
    """Format coordinates: {"beta": 1, "seed": 0} -> "beta=1,seed=0"."""
    return ",".join(f"{axis}={label}" for axis, label in coords.items())

"""Where a sweep needs results of other sweeps' searches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from orchestrator.plan.grid import Grid
from orchestrator.plan.references import UnresolvedError, axes_of, substitute, tuned_at
from orchestrator.sweep.problems import DocPath
from orchestrator.sweep.spec import SweepSpec
from orchestrator.sweep.tuned import Tuned, parse_tuned, tuned_parts
from orchestrator.types import Scalar


@dataclass(frozen=True, slots=True)
class TunedPoint:
    """A tuned result at one point of the axes that it depends on."""

    path: DocPath
    tuned: Tuned
    at: Mapping[str, Scalar]
    """The coordinates of its study."""
    used: bool
    """Whether some cell needs it: not where all cells are excluded."""


def tuned_points(spec: SweepSpec) -> Iterator[TunedPoint]:
    """Yield all that is needed, as far as it is understood; mistakes in how it is written are told elsewhere."""
    if not any(True for entry in spec.stages.values() for _ in tuned_parts(entry.config)):
        return
    grid = Grid({axis: spec.labels(axis) for axis in spec.axes})
    kept = np.ones(grid.size(grid.all), np.bool_)
    for pattern in spec.exclude:
        if pattern.keys() <= spec.axes.keys():
            kept &= ~grid.where(pattern)
    for name, entry in spec.stages.items():
        for path, value in tuned_parts(entry.config, ("stages", name, "config")):
            try:
                tuned = parse_tuned(value)
            except ValueError:
                continue
            axes = grid.axes(axes_of(spec, [value, entry.when]))
            used = np.zeros(grid.size(axes), np.bool_)
            used[grid.project(grid.all, axes)[kept]] = True
            for point in range(grid.size(axes)):
                coords = grid.coords(axes, point)
                try:
                    if substitute(spec, entry.when, coords) is not False:
                        yield TunedPoint(path, tuned, tuned_at(spec, tuned, coords), bool(used[point]))
                except UnresolvedError:
                    continue

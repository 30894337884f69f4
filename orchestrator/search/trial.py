"""Studies and their trials, as far as they have come: what tables, figures and commands show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from orchestrator.search.records import Earlier
from orchestrator.sweep.search import Search
from orchestrator.types import Scalar

#: What may have become of a trial.
TrialState = Literal["complete", "pruned", "failed", "running"]


@dataclass(frozen=True)
class Trial:
    """One trial of a study."""

    number: int
    values: Mapping[str, Scalar]
    """Field -> the chosen value; of choices the label."""
    state: TrialState
    objectives: tuple[float, ...] | None
    """One number for each metric of the objective, reduced over the repetitions; None unless complete or pruned (then
    over the repetitions that there are). Infinite where an undefined metric counts as the worst."""
    excesses: tuple[float, ...] = ()
    """By how much each constraint is broken; at most 0 where it is kept."""
    repetitions: tuple[tuple[float, ...], ...] = ()
    """The objectives of each repetition that is known, in order of `over`."""
    steps: tuple[float, ...] = ()
    """What the pruner is told after each of these; empty without a pruner."""
    seconds: float = 0.0
    """What its cells took that no other trial shares."""
    suggested: float = 0.0
    """When, in seconds since the epoch."""
    origin: str = ""
    """`defaults` or `start` where the sweep file asked for it."""
    why: str = ""
    """The error class of a failed trial, or what else was wrong with it."""

    @property
    def feasible(self) -> bool:
        """Whether it keeps to all constraints."""
        return all(excess <= 0 for excess in self.excesses)


@dataclass(frozen=True)
class Study:
    """One study: the trials of a search at one combination of the axes in `per`."""

    name: str
    """The search, and where it has several studies the coordinates: `tuning`, `tuning/tiny,helpful`."""
    id: str
    """Digest of what is searched for: the name of its folder in the store."""
    search: Search
    coords: Mapping[str, Scalar]
    """Its combination of the axes in `per`."""
    trials: tuple[Trial, ...]
    """By number."""
    earlier: tuple[Earlier, ...] = ()
    budget: int = 0
    """How many trials it is to have."""
    fresh: tuple[float, ...] | None = None
    """The objectives of the best trial at the fresh values, reduced like the objective; None if not all are known."""

    @cached_property
    def best(self) -> Trial | None:
        """The best complete trial that keeps to all constraints; the first of several; None where several metrics
        have no best one, or no such trial is there."""
        if len(self.search.objective.metrics) > 1:
            return None
        return next(iter(self.front), None)

    @cached_property
    def front(self) -> tuple[Trial, ...]:
        """The complete trials that keep to all constraints and than which no other is better in every respect."""
        complete = [
            each
            for each in self.trials
            if each.state == "complete" and each.feasible and all(map(math.isfinite, each.objectives or ()))
        ]
        signs = [1 if better == "higher" else -1 for better in self.search.objective.directions]
        points = [tuple(s * v for s, v in zip(signs, each.objectives or (), strict=True)) for each in complete]
        kept: list[Trial] = []
        seen: set[tuple[float, ...]] = set()
        for trial, point in zip(complete, points, strict=True):
            beaten = any(
                other != point and all(theirs >= mine for theirs, mine in zip(other, point, strict=True))
                for other in points
            )
            if not beaten and point not in seen:
                seen.add(point)
                kept.append(trial)
        return tuple(kept)

    @property
    def finished(self) -> bool:
        """Whether all its trials have ended."""
        return len(self.trials) >= self.budget and all(each.state != "running" for each in self.trials)

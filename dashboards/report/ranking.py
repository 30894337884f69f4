"""Who is ahead of whom: the comparisons of what competes, put in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from orchestrator.analysis.comparisons import Comparison
from orchestrator.statistics.crossed import Interval
from orchestrator.types import Scalar

#: A difference is called clear when its adjusted p is below.
LEVEL = 0.05

#: Both ends of an interval.
Ends = tuple[float, float]


@dataclass(frozen=True)
class Lead:
    """The difference between the best value and another one."""

    other: Scalar
    difference: float
    """metric(best) - metric(other)."""
    new: Ends | None
    fixed: Ends | None
    holm_p: float | None
    ahead: bool
    """Whether the difference has the sign that the means have: it may be of fewer prompts than they are."""

    @property
    def clear(self) -> bool:
        """Tell whether the best is clearly ahead."""
        return self.ahead and self.holm_p is not None and self.holm_p < LEVEL


@dataclass(frozen=True)
class Ranking:
    """The values of what competes in the order of their means of a metric."""

    metric: str
    at: Mapping[str, Scalar]
    """The values of the axes that are never averaged over."""
    lower: bool
    """Whether lower values are better."""
    means: Mapping[Scalar, float]
    """Value -> mean, the best first; without the values of which there is none."""
    leads: tuple[Lead, ...]
    """Of the best over each other one, in the order of the means."""
    lines: tuple[Comparison, ...]
    """All comparisons that this is from."""

    @property
    def first(self) -> Scalar:
        """The value with the best mean."""
        return next(iter(self.means))

    @property
    def level(self) -> tuple[Scalar, ...]:
        """The values that no difference sets apart from the first."""
        return tuple(each.other for each in self.leads if each.difference == 0)


def rankings(compared: Sequence[Comparison], metric: str, lower: bool) -> list[Ranking]:
    """Rank the values by their means of a metric, at each combination of the axes that are held fixed.

    Args:
        compared: every two of the values, as `orchestrator.analysis.comparisons` orders them.
        metric: one of theirs.
        lower: whether lower values are better.
    """
    mine = (each for each in compared if each.metric == metric)
    grouped = (tuple(lines) for _, lines in groupby(mine, key=lambda each: tuple(each.at.items())))
    return [_ranking(lines, metric, lower) for lines in grouped]


def _ranking(lines: tuple[Comparison, ...], metric: str, lower: bool) -> Ranking:
    found: dict[Scalar, float] = {}
    for each in lines:
        if each.mean_a is not None and each.mean_b is not None:
            found |= {each.a: each.mean_a, each.b: each.mean_b}
    ranked = sorted(found, key=lambda label: found[label], reverse=not lower)
    leads = []
    for other in ranked[1:]:
        line = next(each for each in lines if {each.a, each.b} == {ranked[0], other})
        if line.difference is not None:
            leads.append(_lead(line, other, lower))
    return Ranking(metric, lines[0].at, lower, {label: found[label] for label in ranked}, tuple(leads), lines)


def _lead(line: Comparison, other: Scalar, lower: bool) -> Lead:
    sign = 1 if line.b == other else -1
    assert line.difference is not None

    def ends(interval: Interval | None) -> Ends | None:
        if interval is None:
            return None
        low, high = sorted((sign * interval.low, sign * interval.high))
        return low, high

    # Plus zero: there is no -0.
    difference = sign * line.difference + 0.0
    ahead = difference < 0 if lower else difference > 0
    return Lead(other, difference, ends(line.effect.new), ends(line.effect.fixed), line.holm_p, ahead)

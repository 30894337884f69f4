"""Interactions: how the difference between two values of an axis depends on the values of the other axes.

A mean difference over other axes may be of none of their values: +.18 at one, -.03 at another. For two values a, b and
every value of another axis this takes the difference there, and what it has more than the mean of the differences over
all values of that axis. Both are contrasts of the same arms (`analysis.effect`), so they fit together; the second ones
are what is tested, all of a call as one family (Holm 1979).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from orchestrator.analysis.comparisons import Comparison
from orchestrator.analysis.contrast import Weights, format_difference
from orchestrator.analysis.effect import Effect, Sample, effect_record
from orchestrator.results.format import format_p_value, format_signed
from orchestrator.statistics.estimates import holm
from orchestrator.types import Scalar

#: A difference is said to depend on an axis where the smallest adjusted p is below.
LEVEL = 0.05


@dataclass(frozen=True)
class Interaction:
    """The difference metric(a) - metric(b) of an axis at one value of another axis."""

    metric: str
    axis: str
    a: Scalar
    b: Scalar
    at: Mapping[str, Scalar]
    """The values of axes that are held fixed."""
    other: str
    value: Scalar
    """Where, along the other axis."""
    difference: Effect = field(default_factory=Effect)
    """The difference there."""
    deviation: Effect = field(default_factory=Effect)
    """That minus the mean difference over all values of the other axis that are compared."""
    holm_p: float | None = None
    """p of "it is no other than the mean difference", adjusted over all of the call."""

    @property
    def p(self) -> float | None:
        """p of the widest statement, two-sided, of no deviation."""
        return self.deviation.interval.p if self.deviation.interval else None

    @property
    def family_p(self) -> float | None:
        """The same with the heavier tails that a family of tests needs (`Interval.p_above`)."""
        return self.deviation.interval.family_p if self.deviation.interval else None


@dataclass(frozen=True)
class Dependence:
    """How a difference depends on one other axis."""

    lines: tuple[Interaction, ...]
    """One for each value of the axis, in its order."""

    @property
    def holm_p(self) -> float | None:
        """The smallest one: of "the difference is the same at all values"; None where nothing could be tested."""
        return min((each.holm_p for each in self.lines if each.holm_p is not None), default=None)

    @property
    def clear(self) -> bool:
        """Tell whether the difference is not the same at all values."""
        return self.holm_p is not None and self.holm_p < LEVEL

    @property
    def ends(self) -> tuple[Interaction, Interaction]:
        """The lines of the largest and the smallest difference, in the order of the axis."""
        known = [each for each in self.lines if each.difference.estimate is not None]
        ordered = sorted(known, key=lambda each: each.difference.estimate or 0.0)
        first, last = sorted((ordered[0], ordered[-1]), key=self.lines.index)
        return first, last


def interactions(sample: Sample, compared: Sequence[Comparison]) -> list[Interaction]:
    """Measure how differences depend on every other axis that is not random and has two values or more.

    Args:
        sample: the results.
        compared: which differences, see `orchestrator.analysis.comparisons`.

    Returns:
        one line for each value of each axis; where a and b have no common results there, its numbers are None.

    Raises:
        StoreError: tables of single prompts cannot be read.
    """
    groups = [
        _along(sample, each, other)
        for each in compared
        for other, labels in sample.grid.axes.items()
        if other not in {each.axis, *sample.random, *each.at} and len(labels) > 1
    ]
    # Two values deviate from their mean by the same: that is one test.
    tests = [[each.family_p for each in group if each.family_p is not None] for group in groups]
    tests = [known[:1] if len(known) == 2 else known for known in tests]
    family = iter(holm([p for known in tests for p in known]))
    found = []
    for group, known in zip(groups, tests, strict=True):
        own = [next(family) for _ in known]
        mine = iter(own * 2 if len(own) == 1 else own)
        found += [each if each.family_p is None else replace(each, holm_p=next(mine)) for each in group]
    return found


def dependences(found: Sequence[Interaction]) -> list[Dependence]:
    """Group the lines of each difference and other axis, where the difference is known at two values or more."""

    def key(each: Interaction) -> tuple[object, ...]:
        return each.metric, tuple(each.at.items()), each.a, each.b, each.other

    grouped = [Dependence(tuple(lines)) for _, lines in groupby(found, key=key)]
    return [each for each in grouped if sum(line.difference.estimate is not None for line in each.lines) > 1]


def format_dependence(found: Dependence) -> str:
    """Say that a difference depends on an axis, and from where to where it goes; without full stop."""
    first, last = found.ends
    told = format_difference(first.axis, first.a, first.b)
    ends = " to ".join(f"{format_signed(each.difference.estimate)} at {each.value}" for each in (first, last))
    p = format_p_value(found.holm_p)
    return (
        f"the difference {told} in {first.metric} depends on {first.other} (Holm p {p}): from {ends}; the average "
        "hides that"
    )


def record(each: Interaction) -> dict[str, Any]:
    """Return a line for machines."""
    return {
        **{name: getattr(each, name) for name in ("metric", "axis", "a", "b")},
        "at": dict(each.at),
        "other": each.other,
        "value": each.value,
        **{
            name: {"estimate": effect.estimate, **effect_record(effect)}
            for name, effect in (("difference", each.difference), ("deviation", each.deviation))
        },
        "p": each.p,
        "holm_p": each.holm_p,
    }


def _along(sample: Sample, compared: Comparison, other: str) -> list[Interaction]:
    """Return the lines of one difference along one other axis."""
    metric, axis, a, b, at = compared.metric, compared.axis, compared.a, compared.b, compared.at
    where = {name: [label] for name, label in at.items()}
    labels = sample.grid.labels(other)
    known = [label for label in labels if len(sample.means(metric, axis, (a, b), {**where, other: [label]})) == 2]
    lines = []
    for label in labels:
        if label not in known:
            nothing = Effect(notes=(f"{a} and {b} have no common results at {other} = {label}",))
            lines.append(Interaction(metric, axis, a, b, at, other, label, nothing))
            continue
        here = {each: float(each == label) for each in known}
        apart = {each: weight - 1 / len(known) for each, weight in here.items()}
        effect, deviation = (
            sample.effect(metric, Weights({axis: {a: 1.0, b: -1.0}, other: weights}, where), bootstrap=False)
            for weights in (here, apart)
        )
        several = deviation if len(known) > 1 else Effect()
        lines.append(Interaction(metric, axis, a, b, at, other, label, effect, several))
    return lines

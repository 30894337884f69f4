"""Comparisons of the values of an axis, two by two: the same numbers as claims about them would have.

All values of the axis that have results are arms of one array (`statistics.available`), so that the means of the
values, their ranks and their differences fit together; the differences are contrasts (`analysis.effect`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from typing import Any

import pyarrow as pa

from orchestrator.analysis.contrast import Weights
from orchestrator.analysis.effect import Effect, Sample, effect_record
from orchestrator.analysis.metric_grid import read_axes
from orchestrator.results.metrics import metric_problems
from orchestrator.statistics.estimates import adjusted
from orchestrator.statistics.power import Aim, effect_size
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.texts import nearest
from orchestrator.types import Scalar


@dataclass(frozen=True)
class Comparison:
    """Two values of an axis: metric(a) - metric(b). Numbers that cannot be computed are None, and a note says why."""

    metric: str
    axis: str
    a: Scalar
    b: Scalar
    at: Mapping[str, Scalar]
    """The values of axes that are held fixed; the mean runs over all others."""
    effect: Effect = field(default_factory=Effect)
    mean_a: float | None = None
    mean_b: float | None = None
    holm_p: float | None = None
    """p of the widest statement, two-sided, adjusted over all comparisons of the call."""
    effect_size: float | None = None
    """The difference in standard deviations over seeds of the paired difference (Cohen's d_z), corrected for few."""

    @property
    def p(self) -> float | None:
        """p of the widest statement, two-sided, of no difference."""
        return self.effect.interval.p if self.effect.interval else None

    @property
    def family_p(self) -> float | None:
        """The same with the heavier tails of `Interval.p_above`, which is what is adjusted."""
        return self.effect.interval.family_p if self.effect.interval else None

    @property
    def power(self) -> float | None:
        """The chance that a sweep of the same size, run anew, would find a difference of this sign (assurance)."""
        return self._aim.power if self._aim else None

    @property
    def seeds_needed(self) -> int | None:
        """With how many seeds that chance is 80 %; None where no number of seeds is enough."""
        return self._aim.seeds_needed if self._aim else None

    @property
    def _aim(self) -> Aim | None:
        pilot = self.effect.pilot
        return Aim(replace(pilot, mean=abs(pilot.mean))) if pilot else None

    @property
    def difference(self) -> float | None:
        """metric(a) - metric(b)."""
        return self.effect.estimate


def compare(
    sample: Sample,
    axis: str,
    values: Sequence[Scalar] = (),
    metrics: Sequence[str] = (),
    within: Sequence[str] = (),
    bootstrap: bool = False,
) -> list[Comparison]:
    """Compare every two of the values of an axis, for each metric and each combination of the axes of `within`.

    Args:
        sample: the results.
        axis: what is varied.
        values: of the axis; none for all.
        metrics: none for all of the sample.
        within: axes that are not averaged over.
        bootstrap: also compute the product bootstrap's intervals.

    Raises:
        StoreError: tables of single prompts cannot be read.
    """
    grid = sample.grid
    chosen = list(dict.fromkeys(values)) or list(grid.labels(axis))
    found: list[Comparison] = []
    for metric in metrics or grid.metrics:
        for labels in product(*(grid.labels(each) for each in within)):
            at = dict(zip(within, labels, strict=True))
            where = {each: [label] for each, label in at.items()}
            filled = sample.filled(metric, axis, chosen, where)
            means = filled.means
            for a, b in combinations(chosen, 2):
                weights = {label: float(label == a) - float(label == b) for label in filled.labels}
                bare = Comparison(metric, axis, a, b, at)
                if a in filled.labels and b in filled.labels:
                    effect = sample.effect(metric, Weights({axis: weights}, where), bootstrap)
                    found.append(_filled(replace(bare, mean_a=means.get(a), mean_b=means.get(b), effect=effect)))
                else:
                    lacking = " and ".join(str(label) for label in (a, b) if label not in filled.labels)
                    found.append(replace(bare, effect=Effect(notes=(f"there are no results for {lacking}",))))
    return [replace(each, holm_p=p) for each, p in zip(found, adjusted([each.family_p for each in found]), strict=True)]


def record(each: Comparison) -> dict[str, Any]:
    """Return a comparison for machines."""
    return {
        "metric": each.metric,
        "axis": each.axis,
        "a": each.a,
        "b": each.b,
        "at": dict(each.at),
        "mean_a": each.mean_a,
        "mean_b": each.mean_b,
        "difference": each.difference,
        **effect_record(each.effect),
        "p": each.p,
        "holm_p": each.holm_p,
        "effect_size": each.effect_size,
        "power": each.power,
        "seeds_needed": each.seeds_needed,
    }


def _filled(each: Comparison) -> Comparison:
    """Add the effect size."""
    fixed = each.effect.fixed
    if fixed is None or fixed.df is None:
        return each
    return replace(each, effect_size=effect_size(fixed.mean, fixed.error * each.effect.seeds**0.5, fixed.df))


def check(
    table: pa.Table,
    axis: str,
    values: Sequence[Scalar] = (),
    metrics: Sequence[str] = (),
    within: Sequence[str] = (),
    random: Sequence[str] = ("seed",),
) -> None:
    """Check what is asked for.

    Raises:
        SweepError: no such axis, value or metric, or one that cannot be compared.
    """
    problems = metric_problems(table, metrics)
    found = read_axes(table)
    axes = [each for each in found if each not in random]
    for name in (axis, *within):
        if name in random and name in found:
            problems.append(Problem(name, "", "its values are the sample, and cannot be compared or held fixed"))
        elif name not in axes:
            problems.append(Problem(name, "", f"there is no axis {name!r}; {nearest(name, axes)}"))
    labels = found.get(axis, ())
    for value in values:
        if value not in labels:
            problems.append(Problem(str(value), "", f"there is no value of {axis} {value!r}; {nearest(value, labels)}"))
    if problems:
        raise SweepError(problems)
    problem = None
    if len(set(values or labels)) < 2:
        problem = "a comparison needs two values"
    elif axis in within:
        problem = "this is what is compared, so it cannot be held fixed as well"
    if problem:
        raise SweepError([Problem(axis, "", problem)])

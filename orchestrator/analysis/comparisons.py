"""Comparisons of the values of an axis, two by two: the same numbers as claims about them would have.

All values of the axis that have results are arms of one array (`analysis.available`), so that the means of the values,
their ranks and their differences fit together; the differences are contrasts (`analysis.effect`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from typing import Any

import pyarrow as pa

from orchestrator.analysis.contrast import Weights
from orchestrator.analysis.effect import Effect, Sample, effect_record
from orchestrator.analysis.estimates import adjusted
from orchestrator.analysis.metric_grid import read_axes
from orchestrator.analysis.power import assurance, effect_size, seeds_for
from orchestrator.results.metrics import metric_problems
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
    power: float | None = None
    """The chance that a sweep of the same size, run anew, would find a difference of this sign (assurance)."""
    seeds_needed: int | None = None
    """With how many seeds that chance is 80 %; None where no number is enough."""

    @property
    def p(self) -> float | None:
        """p of the widest statement, two-sided, of no difference."""
        return self.effect.interval.p if self.effect.interval else None

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
    power: bool = True,
) -> list[Comparison]:
    """Compare every two of the values of an axis, for each metric and each combination of the axes of `within`.

    Args:
        sample: the results.
        axis: what is varied.
        values: of the axis; none for all.
        metrics: none for all of the sample.
        within: axes that are not averaged over.
        power: whether power and the number of seeds are computed, which takes longer than all else.

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
            means = sample.means(metric, axis, chosen, where)
            for a, b in combinations(chosen, 2):
                weights = {label: float(label == a) - float(label == b) for label in chosen if label in means}
                bare = Comparison(metric, axis, a, b, at)
                if a in means and b in means:
                    effect = sample.effect(metric, Weights({axis: weights}, where))
                    each = replace(bare, mean_a=means[a], mean_b=means[b], effect=effect)
                    found.append(_filled(each, power))
                else:
                    lacking = " and ".join(str(label) for label in (a, b) if label not in means)
                    found.append(replace(bare, effect=Effect(notes=(f"there are no results for {lacking}",))))
    return [replace(each, holm_p=p) for each, p in zip(found, adjusted([each.p for each in found]), strict=True)]


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


def _filled(each: Comparison, power: bool) -> Comparison:
    """Add effect size, and power if wanted."""
    fixed, pilot = each.effect.fixed, each.effect.pilot
    if fixed and fixed.df is not None:
        each = replace(each, effect_size=effect_size(fixed.mean, fixed.error * each.effect.seeds**0.5, fixed.df))
    if pilot and power:
        pilot = replace(pilot, mean=abs(pilot.mean))
        each = replace(each, power=assurance(pilot, pilot.seeds), seeds_needed=seeds_for(0.8, pilot))
    return each


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

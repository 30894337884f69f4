"""Declarations of the numbers that stages return, and the value of one that is undefined."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that a stage returns for each of its steps."""

    name: str
    nullable: bool = False
    """A sound result may leave it undefined: the stage then returns `Undefined` in its place."""
    shards: Literal["sum", "mean", "sd", "same"] | None = None
    """Its value for an entry that is cut into shards: their sum; their mean, weighted by `weight`; the population
    standard deviation of everything that the shards counted together; or a number that is the same in all of them.
    None where the shards do not determine it: such an entry cannot be among a sweep's `results`."""
    weight: str = ""
    """The metric that is the number of values behind the mean or standard deviation of a shard."""
    mean: str = ""
    """For "sd": the metric that is the mean of the same numbers."""
    averaged: bool = True
    """False for a p value and the end of an interval: means of them over cells mean nothing, so none are taken."""
    better: Literal["higher", "lower"] | None = None
    """Which of its values are better; None where neither is, or where it depends on the question."""
    column: str = ""
    """Column of the stage's table of single prompts (or rows of a test set) over whose rows, nulls left out, the metric
    is the mean; empty where it is no such mean."""


@dataclass(frozen=True, slots=True)
class Undefined:
    """The value of a nullable metric that is undefined for a sound result."""

    reason: str
    """The reason, for the reader."""


def over_shards(declared: Mapping[str, Metric], shards: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Combine the metrics of all shards of an entry into those of the entry.

    A metric that is undefined in a shard, whose shards counted nothing, or that differs between shards where it should
    be the same, is left out.

    Args:
        declared: the metrics by name.
        shards: name -> value for each shard; a metric that is undefined there is missing.
    """
    found = {}
    for name, metric in declared.items():
        needed = [each for each in (name, metric.weight, metric.mean) if each]
        if all(each in shard for shard in shards for each in needed):
            value = _over_shards(metric, [[shard[each] for shard in shards] for each in needed])
            if value is not None:
                found[name] = value
    return found


def _over_shards(metric: Metric, columns: list[list[float]]) -> float | None:
    values = columns[0]
    if metric.shards == "sum":
        return math.fsum(values)
    if metric.shards == "same":
        return values[0] if len(set(values)) == 1 else None
    if metric.shards is None or not (total := math.fsum(columns[1])):
        return None
    if metric.shards == "mean":
        return _mean(values, columns[1], total)
    # Of all together: the mean of the shards' variances and the variance of their means.
    _, weights, means = columns
    centre = _mean(means, weights, total)
    squares = [sd**2 + (mean - centre) ** 2 for sd, mean in zip(values, means, strict=True)]
    return math.sqrt(_mean(squares, weights, total))


def _mean(values: Sequence[float], weights: Sequence[float], total: float) -> float:
    return math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / total

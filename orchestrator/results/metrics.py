"""The metrics of a results table: which it reports, and of which means are taken."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from orchestrator.sweep.analysis import Direction, directions
from orchestrator.sweep.problems import Problem
from orchestrator.texts import nearest

if TYPE_CHECKING:
    from orchestrator.plan.columns import Plan
    from workers.metric import Metric


def declared_metrics(plan: Plan) -> dict[str, dict[str, Metric]]:
    """Return for each entry that the table reports, in the order of the plan, its declared metrics by name."""
    reported = plan.spec.results or plan.targets
    declared: dict[str, dict[str, Metric]] = {name: {} for name in plan.entries if name in reported}
    for name, metrics in declared.items():
        for resolved in plan.by_entry[name].wired.resolved:
            if resolved:
                metrics |= resolved.configs[0].declared() or {}
    return declared


def metric_directions(plan: Plan) -> dict[str, Direction]:
    """Return metric -> which of its values are better, where the sweep or the stage says so."""
    declared = {name: metric.better for metrics in declared_metrics(plan).values() for name, metric in metrics.items()}
    return directions(plan.spec.analysis, declared)


def undeclared_entries(plan: Plan) -> list[str]:
    """Return the entries that the table reports whose metrics are known only once they ran."""
    if not plan.spec.available.foreign:
        # Those of this package declare theirs, and a look at each costs more than all else.
        return []
    return [
        name
        for name in plan.spec.results or plan.targets
        if any(each and each.configs[0].declared() is None for each in plan.by_entry[name].wired.resolved)
    ]


def unaveraged_metrics(plan: Plan) -> list[str]:
    """Return the reported metrics of which no means are taken: p values and ends of intervals."""
    declared = declared_metrics(plan)
    metrics = (metric for name in plan.spec.results or plan.targets for metric in declared[name].values())
    return list(dict.fromkeys(metric.name for metric in metrics if not metric.averaged))


def reported_metrics(table: pa.Table) -> list[str]:
    """Return the names of the metric columns of a results table."""
    names: list[str] = json.loads(table.schema.metadata[b"metrics"])
    return names


def averaged_metrics(table: pa.Table) -> list[str]:
    """Return the metric columns of which means are taken: all but p values and ends of intervals."""
    never = json.loads(table.schema.metadata.get(b"unaveraged", b"[]"))
    return [name for name in reported_metrics(table) if name not in never]


def metric_problems(table: pa.Table, names: Sequence[str]) -> list[Problem]:
    """Return what is wrong with metrics that are to be averaged: there is none of that name, or no mean is taken."""
    known, averaged = reported_metrics(table), averaged_metrics(table)
    problems = []
    for name in names:
        if name not in known:
            problems.append(Problem("--metrics", "", f"there is no metric {name!r}; {nearest(name, known)}"))
        elif name not in averaged:
            message = "is a p value or the end of an interval, of which no mean is taken"
            problems.append(Problem("--metrics", "", f"{name!r} {message}; `sweep results --cells` shows it"))
    return problems

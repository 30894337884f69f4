"""The section that sets published numbers beside ours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dashboards
from dashboards.report.figures import Axis, Figure, beside, format_name
from dashboards.report.section import Section, Table
from dashboards.report.study import PANELS, Study
from orchestrator.analysis.metric_grid import read_axes
from orchestrator.analysis.summary import spread_over
from orchestrator.results.format import format_value
from orchestrator.results.metrics import averaged_metrics
from orchestrator.types import Scalar

#: Axes across which published numbers are not of one scale.
_SCALES = "dataset"


def published(study: Study) -> Iterator[Section]:
    """Set published numbers beside ours, where the sweep asks what they answer.

    It does where it has the metric, some of the axes, and of these the published values. Of axes that it lacks it does
    not say which value it is of: everything that is published is listed, and no difference is taken.
    """
    metrics = set(averaged_metrics(study.table))
    tables, figures, text = [], [], []
    for each in json.loads((Path(dashboards.__file__).with_name("published.json")).read_text()):
        if "systems" in each:
            known = [name for name in each["columns"] if name in metrics]
            if known:
                tables.append(_systems(study, each, known))
                text.append(f"{each['title']}: {each['source']}. {each['note']}")
        elif {each["metric"], *each["requires"]} <= metrics and (found := _beside(study, each)):
            table, figure, note = found
            tables.append(table)
            figures += figure
            text.append(f"{each['title']}: {each['source']}. {each['note']}{note}")
    if tables:
        yield Section("published", "Published figures beside ours", text, figures, tables)


def _beside(study: Study, each: Mapping[str, Any]) -> tuple[Table, list[Figure], str] | None:
    """Return table, figure if there is one, and what else is to be known; None where nothing fits."""
    axes = read_axes(study.table)
    shared = [axis for axis in each["axes"] if axis in axes]
    lacking = [axis for axis in each["axes"] if axis not in axes]
    rows = [dict(zip([*each["axes"], "value"], row, strict=True)) for row in each["rows"]]
    rows = [row for row in rows if all(row[axis] in axes[axis] for axis in shared)]
    if not rows or not shared:
        return None
    mean, sd = f"{each['metric']}_mean", f"{each['metric']}_sd"
    # As in the figures: pages and panels are not compared with each other.
    apart = {PANELS, _SCALES, *(axis.name for axis in study.held)}
    # What is never averaged over is in the table, published by it or not.
    more = [axis for axis in study.held if axis.name not in shared]
    held = [*(Axis(axis, axes[axis]) for axis in shared if axis in apart), *more]
    compared = [Axis(axis, axes[axis]) for axis in shared if axis not in apart]
    summary, notes = study.means(compared, [each["metric"]], held)
    ours: dict[tuple[Scalar, ...], list[dict[str, Any]]] = {}
    for row in summary.to_pylist():
        ours.setdefault(tuple(row[axis] for axis in shared), []).append(row)
    names = [axis.name for axis in more]
    lines, points = [], []
    for row in rows:
        error = each.get("reading_error", 0.0)
        points.append({**row, "low": row["value"] - error, "high": row["value"] + error, "whose": "published"})
        for own in ours.get(tuple(row[axis] for axis in shared), [{mean: None, sd: None, **dict.fromkeys(names, "")}]):
            known = own[mean] is not None
            if known:
                low, high = own[mean] - (own[sd] or 0), own[mean] + (own[sd] or 0)
                points.append({**row, "value": own[mean], "low": low, "high": high, "whose": "ours"})
            difference = f"{own[mean] - row['value']:+.3f}" if known and not lacking else ""
            numbers = [f"{row['value']:.3f}", format_value(own[mean]), format_value(own[sd])]
            coords = [row[axis] for axis in each["axes"]] + [own[name] for name in names]
            lines.append([*map(str, coords), *numbers, difference])
    spread = spread_over(summary)
    read = f"published, read to ±{each['reading_error']:g}" if "reading_error" in each else "published"
    columns = [*each["axes"], *names, read, "ours", spread, "ours - published"]
    numeric = [False] * (len(each["axes"]) + len(names)) + [True] * 4
    if lacking:
        columns, numeric, lines = columns[:-1], numeric[:-1], [line[:-1] for line in lines]
    table = Table(f"published-{each['name']}", each["title"], columns, lines, numeric, notes)
    drawn = [_figure(each, points, spread)] if len(each["axes"]) == 3 and not lacking and not more else []
    unsaid = f" This sweep has no {' and no '.join(lacking)}: beside its numbers stand all that are published."
    return table, drawn, unsaid if lacking else ""


def _figure(each: Mapping[str, Any], points: Sequence[Mapping[str, Any]], spread: str) -> Figure:
    panels, y, colour = (Axis(axis, tuple(dict.fromkeys(row[axis] for row in points))) for axis in each["axes"])
    several = panels if len(panels.labels) > 1 else None
    chart = beside(points, y, colour, several, format_name(each["metric"]))
    caption = f"{each['note']} Lines: of published numbers the error of reading them, of ours ± {spread}."
    return Figure(f"published-{each['name']}", each["title"], caption, chart)


def _systems(study: Study, each: Mapping[str, Any], known: Sequence[str]) -> Table:
    """Rows of published systems, then ours by what competes."""
    scale = 100 if each.get("percent") else 1
    places = [each["columns"].index(name) for name in known]
    rows = [[name, *(format_value(numbers[place]) for place in places)] for name, *numbers in each["systems"]]
    summary, notes = study.means([study.axes[name] for name in study.by[:1]], known, study.held)
    for row in summary.to_pylist():
        values = [row[f"{name}_mean"] for name in known]
        labels = [str(row[axis]) for axis in (*(axis.name for axis in study.held), *study.by[:1])]
        whose = f"ours: {', '.join(labels)}" if labels else "ours"
        rows.append([whose, *("" if value is None else f"{scale * value:.1f}" for value in values)])
    return Table(f"published-{each['name']}", each["title"], ["", *known], rows, [False, *(True for _ in known)], notes)

"""Sections of tables: means, comparisons, and published numbers beside ours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

import dashboards
from dashboards.report.figures import Axis, Figure, beside, format_name
from dashboards.report.section import Section, Table, capital, sentences
from dashboards.report.study import PAGES, PANELS, Study
from orchestrator.analysis.axis_effects import axis_effects, differ_in_cells
from orchestrator.analysis.comparisons import Comparison, compare
from orchestrator.analysis.lines import distinct_warnings, format_comparison, format_effect
from orchestrator.analysis.metric_grid import read_axes
from orchestrator.analysis.summary import format_summary, left_out, spread_of
from orchestrator.results.format import format_value
from orchestrator.results.metrics import averaged_metrics
from orchestrator.statistics.estimates import seeds_needed


def best_trials(found: pa.Table) -> Section:
    """Tabulate the best trials of a search.

    Args:
        found: of `orchestrator.results.best.best_table`.
    """
    shown = format_summary(found)
    rows = [[format_value(value) for value in row.values()] for row in shown.to_pylist()]
    numeric = [not pa.types.is_string(field.type) for field in shown.schema]
    table = Table("best", "Best trials", shown.column_names, rows, numeric, sentences(left_out(found)))
    return Section("best", "What the search found", [f"{capital(spread_of(found))}."], (), [table])


def means(study: Study) -> Section:
    """Tabulate means ± sd by the axes of the summary, by what competes, and of all metrics."""
    tables = []
    by = [study.axes[name] for name in study.by]
    within, colour = [axis for axis in (study.pages, study.panels) if axis], [study.colour] if study.colour else []
    shown = set()
    for compared, held in ((by, []), (colour, within)):
        axes = [axis.name for axis in (*held, *compared)]
        if axes and tuple(axes) not in shown:
            shown.add(tuple(axes))
            summary, notes = study.means(compared, study.metrics, held)
            tables.append(_table(f"means-by-{'-'.join(axes)}", f"By {', '.join(axes)}", format_summary(summary), notes))
    if study.colour:
        summary, notes = study.means(colour, study.filled)
        title = f"All metrics by {study.colour.name}"
        tables.append(_turned("all-metrics", title, format_summary(summary), study.colour.name, notes))
    return Section("means", "Means", [study.band], (), tables)


def _table(name: str, title: str, shown: pa.Table, note: str) -> Table:
    rows = [[format_value(value) for value in row.values()] for row in shown.to_pylist()]
    count = sum(column in shown.column_names for column in ("cells", "seeds"))
    axes = shown.column_names.index("cells")
    metrics = shown.num_columns - axes - count
    return Table(name, title, shown.column_names, rows, [False] * axes + [True] * (count + metrics), note)


def _turned(name: str, title: str, shown: pa.Table, axis: str, note: str) -> Table:
    """Columns become rows: there are more metrics than values of an axis."""
    labels = [str(label) for label in shown[axis].to_pylist()]
    names = [each for each in shown.column_names if each != axis]
    rows = [[each, *(format_value(value) for value in shown[each].to_pylist())] for each in names]
    return Table(name, title, ["", *labels], rows, [False, *(True for _ in labels)], note)


def comparisons(study: Study, compared: Sequence[Comparison]) -> Section:
    """Tabulate the differences between what competes, and the effects of all axes.

    Args:
        study: the sweep.
        compared: all pairs of what competes, over everything else.
    """
    tables = []
    within = [axis.name for axis in (study.pages, study.panels) if axis]
    if compared and study.colour:
        title = f"Differences between values of {study.colour.name}"
        tables.append(_comparison_table("comparisons", title, compared))
    if compared and within and study.colour:
        closer = compare(study.table, study.colour.name, metrics=study.metrics[:1], within=within)
        tables.append(_comparison_table("comparisons-within", f"The same at each {' and '.join(within)}", closer))
    effects = axis_effects(study.table, study.metrics)
    if effects:
        note = (
            "Spread: largest mean of a value minus the smallest. Seed noise: standard deviation of such a mean over "
            "seeds, after taking out what all cells of a seed share. Share: of the variation between all cells. F and "
            "p: repeated-measures analysis of variance, seeds as subjects, lower-bound correction."
        )
        if differ_in_cells(effects):
            note += " Where cells are missing, the lines are of different cells, and their shares do not add up."
        if warnings := distinct_warnings(effects):
            note += " " + sentences(warnings)
        lines = [format_effect(each) for each in effects]
        rows = [list(line.values()) for line in lines]
        numeric = [False] * 4 + [True] * 6
        tables.append(Table("axes", "Effect of each axis against seed noise", list(lines[0]), rows, numeric, note))
    text = [
        "The seeds are the sample: within each seed, cells that differ in nothing but the value at hand are paired, "
        "their differences averaged, and these few numbers tested. Intervals of 95 % are not adjusted; Holm p values "
        "are, over all lines of a table."
    ]
    return Section("comparisons", "Comparisons", text, (), tables)


def _comparison_table(name: str, title: str, found: Sequence[Comparison]) -> Table:
    differing = {each.metric for each in found if each.difference != 0}
    shown = [each for each in found if each.metric in differing]
    axes = list(dict.fromkeys(axis for each in shown for axis in each.at))
    several = ["metric"] if len({each.metric for each in shown}) > 1 else []
    columns = [*several, *axes, *format_comparison(found[0]), "seeds needed"]
    rows = [
        [
            *(each.metric for _ in several),
            *(str(each.at[axis]) for axis in axes),
            *format_comparison(each).values(),
            _seeds_to_exclude_zero(each),
        ]
        for each in shown
    ]
    title += "" if several else f": {', '.join(differing)}"
    numeric = [False] * (len(columns) - 8) + [True] * 8
    bootstrap = columns.index("interval (bootstrap)")
    if not any(row[bootstrap] for row in rows):
        # Too few seeds.
        for line in (columns, *rows):
            del line[bootstrap]
        del numeric[bootstrap]
    notes = ["Seeds needed: with so many the interval excludes 0, if difference and spread stay what they are."]
    equal = sorted({each.metric for each in found} - differing)
    notes += [f"Equal in every seed: {', '.join(equal)}."] if equal else []
    notes.append(sentences(distinct_warnings(shown)))
    return Table(name, title, columns, rows, numeric, " ".join(filter(None, notes)))


def _seeds_to_exclude_zero(each: Comparison) -> str:
    if not each.effect_size or not each.difference:
        return ""
    needed = seeds_needed(abs(each.difference / each.effect_size), 2 * abs(each.difference))
    return "" if needed is None else f"{needed:,}"


def published(study: Study) -> Iterator[Section]:
    """Set published numbers beside ours, where the sweep asks what they answer."""
    metrics, axes = set(averaged_metrics(study.table)), read_axes(study.table)
    tables, figures, text = [], [], []
    for each in json.loads((Path(dashboards.__file__).with_name("published.json")).read_text()):
        if "systems" in each:
            known = [name for name in each["columns"] if name in metrics]
            if known:
                tables.append(_systems(study, each, known))
                text.append(f"{each['title']}: {each['source']}. {each['note']}")
            continue
        rows = [
            dict(zip([*each["axes"], "value"], row, strict=True))
            for row in each["rows"]
            if all(value in axes.get(axis, ()) for axis, value in zip(each["axes"], row, strict=False))
        ]
        if not rows or {each["metric"], *each["requires"]} - metrics:
            continue
        mean, sd = f"{each['metric']}_mean", f"{each['metric']}_sd"
        # As in the figures: pages and panels are not compared with each other.
        held = [Axis(axis, axes[axis]) for axis in each["axes"] if axis in (PAGES, PANELS)]
        compared = [Axis(axis, axes[axis]) for axis in each["axes"] if axis not in (PAGES, PANELS)]
        summary, notes = study.means(compared, [each["metric"]], held)
        ours = {tuple(row[axis] for axis in each["axes"]): row for row in summary.to_pylist()}
        lines, points = [], []
        for row in rows:
            coords = [row[axis] for axis in each["axes"]]
            own = ours.get(tuple(coords), {mean: None, sd: None})
            points.append({**row, "whose": "published"})
            if own[mean] is not None:
                points.append({**row, "value": own[mean], "whose": "ours"})
            difference = "" if own[mean] is None else f"{own[mean] - row['value']:+.3f}"
            numbers = [f"{row['value']:.3f}", format_value(own[mean]), format_value(own[sd])]
            lines.append([*map(str, coords), *numbers, difference])
        spread = "sd over seeds" if "seeds" in summary.column_names else "sd over cells"
        columns = [*each["axes"], "published", "ours", spread, "ours - published"]
        numeric = [False] * len(each["axes"]) + [True] * 4
        tables.append(Table(f"published-{each['name']}", each["title"], columns, lines, numeric, notes))
        text.append(f"{each['title']}: {each['source']}. {each['note']}")
        if len(each["axes"]) == 3:
            figures.append(_beside(each, points))
    if tables:
        yield Section("published", "Published figures beside ours", text, figures, tables)


def _beside(each: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> Figure:
    panels, y, colour = (Axis(axis, tuple(dict.fromkeys(row[axis] for row in points))) for axis in each["axes"])
    several = panels if len(panels.labels) > 1 else None
    chart = beside(points, y, colour, several, format_name(each["metric"]))
    return Figure(f"published-{each['name']}", each["title"], each["note"], chart)


def _systems(study: Study, each: Mapping[str, Any], known: Sequence[str]) -> Table:
    """Rows of published systems, then ours by what competes."""
    scale = 100 if each.get("percent") else 1
    places = [each["columns"].index(name) for name in known]
    rows = [[name, *(format_value(numbers[place]) for place in places)] for name, *numbers in each["systems"]]
    summary, notes = study.means([study.axes[name] for name in study.by[:1]], known)
    for row in summary.to_pylist():
        values = [row[f"{name}_mean"] for name in known]
        whose = f"ours: {row[study.by[0]]}" if study.by else "ours"
        rows.append([whose, *("" if value is None else f"{scale * value:.1f}" for value in values)])
    return Table(f"published-{each['name']}", each["title"], ["", *known], rows, [False, *(True for _ in known)], notes)

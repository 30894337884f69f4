"""Paired differences of what competes from one of its values, along the other axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from dashboards.report.figures import Figure, format_name
from dashboards.report.intervals import differences_chart, interval_ends
from dashboards.report.ranking import Ranking
from dashboards.report.section import Table, file_name, sentences, title_of
from dashboards.report.study import Study
from orchestrator.analysis.comparisons import Comparison
from orchestrator.analysis.interactions import Dependence, dependences, interactions
from orchestrator.analysis.lines import distinct_notes, format_interaction


def differences(study: Study, compared: Sequence[Comparison], ranked: Sequence[Ranking]) -> list[Dependence]:
    """Measure how the differences of the first metric depend on the other axes: the best minus each other value.

    Where nothing is ranked, the first value in the order of the sweep file minus each other one.

    Args:
        study: the sweep.
        compared: every two of what competes.
        ranked: the same in order.

    Raises:
        StoreError: tables of single prompts cannot be read.
    """
    best = {tuple(each.at.items()): each.first for each in ranked if each.means}
    chosen = []
    for each in compared:
        if each.metric == study.metrics[0]:
            first = best.get(tuple(each.at.items()), study.colour.labels[0] if study.colour else None)
            if first in (each.a, each.b):
                chosen.append(replace(each, a=first, b=each.b if each.a == first else each.a))
    return dependences(interactions(study.sample, chosen))


def difference_figures(study: Study, found: Sequence[Dependence]) -> Iterator[Figure]:
    """Draw the differences along each axis, at each combination of the axes that are never averaged over."""
    colour = study.colour
    if colour is None:
        return
    for held in study.each_held():
        mine = [each for each in found if each.lines[0].at == held]
        for x in study.axes.values():
            groups = [each for each in mine if each.lines[0].other == x.name]
            rows = [row for each in groups for row in _rows(each)]
            if not rows:
                continue
            first, metric = groups[0].lines[0].a, groups[0].lines[0].metric
            chart = differences_chart(rows, x, colour, str(first), metric)
            title = title_of(f"{format_name(metric)}: {first} minus each other, against {x.name}", held)
            caption = f"Paired differences, averaged over all other axes. {study.intervals}"
            name = file_name(f"{metric}-differences-by-{x.name}", held)
            yield Figure(name, title[:1].upper() + title[1:], caption, chart, narrow=True)


def difference_table(study: Study, found: Sequence[Dependence]) -> Iterator[Table]:
    """Tabulate the differences at each value of the other axes, and whether they differ from their mean."""
    lines = [line for each in found for line in each.lines]
    if not lines:
        return
    axes = list(lines[0].at)
    rows = []
    for each in lines:
        line = format_interaction(each, study.sample)
        # Here the column "difference" says of which two values.
        mean = {"mean": line.pop("difference")}
        at = {name: str(label) for name, label in each.at.items()}
        rows.append({"difference": f"{each.a} - {each.b}", **at, "where": line.pop("where"), **mean, **line})
    notes = distinct_notes(
        (f"{each.a} - {each.b}, {each.other} = {each.value}", each.difference.notes) for each in lines
    )
    note = (
        "Less its mean: the difference at this value minus the mean of the differences at all values of that axis. "
        "This is what p is of; Holm p are adjusted over all lines. " + sentences(notes)
    )
    columns = list(rows[0])
    title = f"How differences in {format_name(lines[0].metric)} depend on the other axes"
    numeric = [name not in ("difference", "where", *axes) for name in columns]
    yield Table("interactions", title, columns, [list(row.values()) for row in rows], numeric, note.strip())


def _rows(found: Dependence) -> Iterator[dict[str, object]]:
    for line in found.lines:
        each = line.difference
        if each.estimate is None:
            continue
        yield {line.other: line.value, line.axis: line.b, "estimate": each.estimate, **interval_ends(each)}

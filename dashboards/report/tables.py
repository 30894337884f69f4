"""Sections of tables: means, comparisons, and the effects of axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from dashboards.report.differences import difference_table
from dashboards.report.section import Section, Table, capital, file_name, sentences, title_of
from dashboards.report.study import Study
from orchestrator.analysis.axis_effects import axis_effects
from orchestrator.analysis.comparisons import Comparison, compare
from orchestrator.analysis.effect import Sample
from orchestrator.analysis.interactions import Dependence
from orchestrator.analysis.lines import format_comparison, format_effect, notes_of_comparisons, notes_of_effects
from orchestrator.analysis.summary import format_summary, left_out, spread_of
from orchestrator.results.format import format_value


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
    within, colour = [axis for axis in (*study.pages, study.panels) if axis], [study.colour] if study.colour else []
    shown = set()
    for compared, held in ((by, list(study.held)), (colour, within)):
        axes = [axis.name for axis in (*held, *compared)]
        if axes and tuple(axes) not in shown:
            shown.add(tuple(axes))
            summary, notes = study.means(compared, study.metrics, held)
            tables.append(_table(f"means-by-{'-'.join(axes)}", f"By {', '.join(axes)}", format_summary(summary), notes))
    if study.colour:
        for at in study.each_held():
            summary, notes = study.means(colour, study.filled, page=at)
            title = title_of(f"All metrics by {study.colour.name}", at)
            name = file_name("all-metrics", at)
            tables.append(_turned(name, title, format_summary(summary), study.colour.name, notes))
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


def comparisons(study: Study, compared: Sequence[Comparison], depends: Sequence[Dependence]) -> Section:
    """Tabulate the differences between what competes, what they depend on, and the effects of all axes.

    Args:
        study: the sweep.
        compared: all pairs of what competes, over everything but the axes that are never averaged over.
        depends: how the differences of the first metric depend on other axes.

    Raises:
        StoreError: tables of single prompts cannot be read.
    """
    tables = []
    held = [axis.name for axis in study.held]
    within = [axis.name for axis in (*study.pages, study.panels) if axis]
    if compared and study.colour:
        title = f"Differences between values of {study.colour.name}"
        tables.append(_comparison_table(study, "comparisons", title, compared))
    if compared and within != held and study.colour:
        closer = compare(study.sample, study.colour.name, metrics=study.metrics[:1], within=within)
        tables.append(
            _comparison_table(study, "comparisons-within", f"The same at each {' and '.join(within)}", closer)
        )
    tables += [*difference_table(study, depends), *_effects(study)]
    text = [
        "Cells that differ in nothing but the value at hand are paired, their differences averaged, and one number for "
        f"each draw of what is random is left. Intervals of {100 * study.sample.confidence:g} % are not adjusted; Holm "
        "p values are, over all lines of a table."
    ]
    return Section("comparisons", "Comparisons", text, (), tables)


def _effects(study: Study) -> Iterator[Table]:
    """Tabulate how much each axis moves the metrics, at each combination of the axes that are never averaged over."""
    note = (
        "Spread: largest mean of a value minus the smallest. Seed noise: standard deviation of such a mean over seeds, "
        "after taking out what all cells of a seed share. Share: of the variation between all cells, by itself; with "
        "others: only together with others. F and p: repeated-measures analysis of variance, seeds as subjects, "
        "lower-bound correction."
    )
    for at in study.each_held():
        sample = Sample(study.at(at), study.session.spec.analysis, study.metrics) if at else study.sample
        effects = axis_effects(sample, study.metrics)
        if not effects:
            continue
        said = f"{note} {sentences(notes_of_effects(effects))}".strip()
        lines = [format_effect(each) for each in effects]
        numeric = [name not in ("metric", "axis", "lowest at", "highest at") for name in lines[0]]
        title = title_of("Effect of each axis against seed noise", at)
        rows = [list(line.values()) for line in lines]
        yield Table(file_name("axes", at), title, list(lines[0]), rows, numeric, said)


def _comparison_table(study: Study, name: str, title: str, found: Sequence[Comparison]) -> Table:
    differing = {each.metric for each in found if each.difference != 0}
    shown = [each for each in found if each.metric in differing] or found
    several = len({each.metric for each in shown}) > 1
    lines = [
        {
            **({"metric": each.metric} if several else {}),
            **{axis: str(label) for axis, label in each.at.items()},
            **format_comparison(each, study.sample),
        }
        for each in shown
    ]
    names = {name for each in shown for name in ("metric", "difference", *each.at)}
    columns = [column for column in lines[0] if column in names or any(line[column] for line in lines)]
    rows = [[line[column] for column in columns] for line in lines]
    title += "" if several else f": {shown[0].metric}"
    equal = sorted({each.metric for each in found} - differing)
    notes = [f"Equal in every seed: {', '.join(equal)}."] if equal else []
    if "power" in columns:
        notes.append("Power: the chance that the same sweep, run anew, would find a difference of this sign.")
    notes.append(sentences(notes_of_comparisons(shown)))
    return Table(name, title, columns, rows, [column not in names for column in columns], " ".join(filter(None, notes)))

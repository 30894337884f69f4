"""Sections on what was found: the ranking of what competes, and who wins where."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from dashboards.report.figures import Axis, Figure, format_name, winners
from dashboards.report.section import Section, capital, file_name, title_of
from dashboards.report.study import Study
from orchestrator.analysis.axis_effects import axis_effects
from orchestrator.analysis.comparisons import Comparison, compare
from orchestrator.analysis.lines import distinct_warnings
from orchestrator.analysis.metric_grid import SEED, missing_cells, read_axes
from orchestrator.results.format import format_p_value, format_percent, format_signed, format_value
from orchestrator.statistics.estimates import holm
from orchestrator.types import Scalar

#: A difference is called clear when its adjusted p is below.
LEVEL = 0.05


def state(study: Study) -> str:
    """Say how many cells the sweep has, along which axes, and how many have a result."""
    total, good = study.table.num_rows, study.succeeded()
    axes = read_axes(study.table)
    grid = " × ".join(f"{len(axis.labels)} {axis.name}" for axis in study.axes.values())
    grid += f" × {len(axes[SEED])} seeds" if SEED in axes else ""
    # What is excluded is no cell.
    grid = f"of {grid}" if math.prod(map(len, axes.values())) > total else grid
    missing = f"{total - good:,} have no result" if good < total else "none is missing"
    return f"{total:,} cells ({grid}): {good:,} succeeded, {missing}."


def verdict(study: Study, compared: Sequence[Comparison]) -> Section:
    """Say what was found: the ranking of what competes, what the axes explain, and what to beware of.

    Args:
        study: the sweep.
        compared: all pairs of what competes, over everything else.
    """
    text = [state(study), *(f"{capital(note)}." for note in study.notes)]
    if study.colour and study.headline:
        text += _ranking(study, study.colour, study.headline, compared)
    elif study.colour:
        text.append(
            "Nothing is ranked: the sweep file does not declare what it is to show "
            "(`analysis: {primary: {metric: METRIC, better: higher}}`)."
        )
    text += _shares(study, study.metrics[0])
    text += [f"Warning: {warning}." for warning in missing_cells(study.table)]
    return Section("verdict", "What was found", text)


def _shares(study: Study, metric: str) -> list[str]:
    """What the axes explain of a metric, if no cell is missing: shares of different cells do not add up."""
    about = format_name(metric)
    grid = math.prod(map(len, read_axes(study.table).values()))
    if study.table[metric].null_count or study.succeeded() < grid:
        return [f"How much of the variation of {about} each axis explains is not computed while cells have no result."]
    effects = [each for each in axis_effects(study.table, [metric]) if each.share is not None]
    shares = sorted(((each.share or 0.0, each.axis) for each in effects), reverse=True)
    explained = ", ".join(f"{axis} {format_percent(share)}" for share, axis in shares)
    return (
        [f"Of the variation of {about} between cells, the axes by themselves explain: {explained}."] if shares else []
    )


def _ranking(study: Study, colour: Axis, headline: str, compared: Sequence[Comparison]) -> list[str]:
    """The values of what competes by their means, all from the same cells, and whether the best is clearly ahead."""
    mine = [each for each in compared if each.metric == headline]
    means = _mean_of(mine)
    lower = study.lower
    by = f"By {format_name(headline)}, of which {'lower' if lower else 'higher'} is better"
    without = [str(label) for label in colour.labels if label not in means]
    warnings = [f"Warning: {warning}." for warning in distinct_warnings(mine)]
    if len(means) < 2:
        return [f"{by}, no two values of {colour.name} can be ranked.", *warnings]
    ranked = sorted(means, key=lambda label: means[label], reverse=not lower)
    pairs = {frozenset((each.a, each.b)): each for each in mine if each.difference is not None}
    first, *others = ranked
    level = [other for other in others if pairs[frozenset((first, other))].difference == 0]
    used = next(iter(pairs.values()))
    over = "everything else"
    if not _is_whole(study, colour, used):
        over = f"the same {used.cells:,} combinations of everything else in each of {used.seeds:,} seeds"
    lead = " and ".join(str(label) for label in (first, *level))
    best = f"are level, with the best mean over {over}" if level else f"has the best mean over {over}"
    rest = ", ".join(f"{format_value(means[label])} ({label})" for label in others if label not in level)
    text = [f"{by}, {colour.name} {lead} {best}: {format_value(means[first])}{f', against {rest}' if rest else ''}."]
    if without:
        text.append(f"Not ranked, because there are no results: {', '.join(without)}.")
    text += [_difference(each, first) for each in pairs.values() if first in (each.a, each.b) and each.difference != 0]
    return text + warnings


def _mean_of(compared: Sequence[Comparison]) -> dict[Scalar, float]:
    """Value -> its mean, of comparisons that are from the same cells."""
    means: dict[Scalar, float] = {}
    for each in compared:
        if each.mean_a is not None and each.mean_b is not None:
            means |= {each.a: each.mean_a, each.b: each.mean_b}
    return means


def _is_whole(study: Study, colour: Axis, used: Comparison) -> bool:
    """Whether a comparison is over all combinations of the other axes."""
    axes = read_axes(study.table)
    return used.seeds * used.cells == math.prod(len(labels) for axis, labels in axes.items() if axis != colour.name)


def _difference(each: Comparison, winner: Scalar) -> str:
    """By how much the winner is ahead of another value, and whether that is clear."""
    sign = 1 if each.a == winner else -1
    assert each.difference is not None
    other = each.b if sign > 0 else each.a
    lead = f"{winner} - {other}: {format_signed(sign * each.difference)}"
    if each.low is None or each.high is None or each.holm_p is None:
        return f"{lead} ({'one seed' if each.seeds < 2 else 'the same in every seed'}, hence no interval)."
    low, high = sorted((sign * each.low, sign * each.high))
    lead_is = "clear" if each.holm_p < LEVEL else "not clear"
    p = f"Holm p {format_p_value(each.holm_p)}"
    interval = f"95 % interval {format_signed(low)} to {format_signed(high)} over {each.seeds} seeds"
    return f"{lead}, {interval}, {p}: {lead_is}."


def winner_map(study: Study) -> Iterator[Section]:
    """Draw which value of what competes is best at each combination of two other axes."""
    colour, metric, across = study.colour, study.headline, study.across
    if colour is None or metric is None or not across:
        return
    x, y = across[0], max(across[1:], key=lambda axis: len(axis.labels), default=None)
    within = [axis.name for axis in (study.pages, study.panels, x, y) if axis]
    compared = compare(study.table, colour.name, metrics=[metric], within=within, resamples=0)
    tiles: dict[tuple[Scalar, ...], list[Comparison]] = {}
    for each in compared:
        tiles.setdefault(tuple(each.at.values()), []).append(each)
    lower = study.lower
    competing = {label for pairs in tiles.values() for label in _mean_of(pairs)}
    rows, worst, level, gaps = [], [], 0, 0
    for pairs in tiles.values():
        means = _mean_of(pairs)
        if not means or means.keys() < competing:
            # Who wins where not all compete says nothing.
            gaps += 1
            continue
        winner = (min if lower else max)(means, key=lambda label: means[label])
        against = [each for each in pairs if winner in (each.a, each.b) and each.difference is not None]
        if any(each.difference == 0 for each in against):
            level += 1
            continue
        rows.append({**pairs[0].at, colour.name: winner})
        # It is ahead of all others only if it is ahead of each: the largest p counts (Berger 1982).
        worst.append(max(1.0 if each.p is None else each.p for each in against))
    for row, p in zip(rows, holm(worst), strict=True):
        row["clear"] = p < LEVEL
    out = [f"{gaps:,} without complete results of all {len(competing)}"] if gaps else []
    out += [f"{level:,} in which the best are level"] if level else []
    text = [f"Of {len(tiles):,} tiles these have no winner: {', '.join(out)}."] if out else []
    if not rows:
        yield Section("winners", "Winner map", text)
        return
    caption = (
        f"The {colour.name} with the {'lowest' if lower else 'highest'} mean. The lead is clear where it is ahead of "
        f"each other one with a Holm p below {LEVEL:g}, adjusted over all {len(rows):,} tiles with a winner."
    )
    figures = []
    for page in study.each_page():
        mine = [row for row in rows if all(row[name] == value for name, value in page.items())]
        if mine:
            chart = winners(mine, x, y, colour, study.panels)
            title = title_of(f"Winner by {format_name(metric)}", page)
            figures.append(Figure(file_name("winners", page), title, caption, chart))
    wins = Counter(str(row[colour.name]) for row in rows)
    led = Counter(str(row[colour.name]) for row in rows if row["clear"])
    text += [f"{label}: best in {wins[label]:,} of {len(rows):,}, clearly in {led[label]:,}." for label in colour.texts]
    yield Section("winners", "Winner map", text, figures)

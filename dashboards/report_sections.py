"""What the report says: the sections with their texts, tables and figures, made of a results table and manifests."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from dashboards.report_figures import Axis, Figure, beside, curves, spell_name, winners
from orchestrator.plan.select import spell_coords
from orchestrator.results import statistics
from orchestrator.results.format import interval, p_value, percent, signed, spell
from orchestrator.results.parquet import averaged_metrics
from orchestrator.results.statistics import SEED, AxisEffect, Comparison
from orchestrator.results.summary import for_people, left_out, summarise
from orchestrator.run.failures import error_groups, unnamed_error
from orchestrator.session import Session
from orchestrator.types import Artifact, Manifest, Scalar

#: Axes that get figures or panels of their own: across their values, metrics are not of one scale.
PAGES, PANELS = "dataset", "policy"
#: Metrics of the figures and comparisons, where the sweep file names none.
FEW = 4
#: Values of an axis that may compete.
COLOURS = 10
#: A difference is called clear when its adjusted p is below.
LEVEL = 0.05
#: Lines of a table that are shown on the page; its file has all.
SHOWN = 60


@dataclass(frozen=True)
class Table:
    """A table of text."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A chapter of the report."""

    name: str
    title: str
    text: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    code: Sequence[tuple[str, str]] = ()
    """Titles and preformatted texts."""


@dataclass
class Study:
    """A results table with what is drawn as what."""

    session: Session
    table: pa.Table
    axes: dict[str, Axis] = field(init=False)
    """The axes of two or more values, without `seed`."""
    metrics: tuple[str, ...] = field(init=False)
    """Those of the figures and comparisons, the headline first, else as the sweep file orders them."""
    headline: str | None = field(init=False)
    """The metric that decides who wins: the first of which the sweep file declares what is better; None: nobody."""
    by: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Read the axes and metrics off the table, and the choice among them off the sweep file."""
        found = statistics.read_axes(self.table)
        self.axes = {name: Axis(name, values) for name, values in found.items() if name != SEED and len(values) > 1}
        summary = self.session.spec.summary
        self.headline = next((name for name in summary.better if name in self.filled), None)
        first = [self.headline] if self.headline else []
        chosen = [name for name in summary.metrics or self.filled if name in self.filled]
        self.metrics = tuple(dict.fromkeys([*first, *chosen]))[:FEW]
        wanted = [axis for axis in summary.by if axis in self.axes]
        self.by = tuple(wanted or list(self.axes)[-2:])

    @property
    def colour(self) -> Axis | None:
        """What competes: the first axis of the summary that has few enough values for colours and pairs."""
        return next((self.axes[name] for name in self.by if len(self.axes[name].labels) <= COLOURS), None)

    @property
    def panels(self) -> Axis | None:
        """The axis of which each value has a panel."""
        return None if self.colour and self.colour.name == PANELS else self.axes.get(PANELS)

    @property
    def pages(self) -> Axis | None:
        """The axis of which each value has figures."""
        return None if self.colour and self.colour.name == PAGES else self.axes.get(PAGES)

    @property
    def across(self) -> list[Axis]:
        """What metrics are drawn against: all other axes, that of the summary first."""
        kept = {axis.name for axis in (self.colour, self.panels, self.pages) if axis}
        names = sorted((name for name in self.axes if name not in kept), key=lambda name: name not in self.by)
        return [self.axes[name] for name in names]

    def succeeded(self) -> int:
        """How many cells did."""
        return sum(status == "succeeded" for status in self.table["status"].to_pylist())

    @property
    def filled(self) -> list[str]:
        """The metrics of which means are taken, and that some cell has."""
        return [name for name in averaged_metrics(self.table) if self.table[name].null_count < self.table.num_rows]

    @property
    def band(self) -> str:
        """What means and their ± are."""
        seeds = statistics.read_axes(self.table).get(SEED, ())
        if len(seeds) > 1:
            return "Mean ± standard deviation over seeds; all other axes are averaged over within each seed."
        if seeds:
            return "Mean over all other axes; there is one seed, hence no spread over seeds."
        return "Mean ± standard deviation over all other axes; the sweep has no axis `seed`."

    def means(
        self,
        by: Sequence[Axis | None],
        metrics: Sequence[str],
        within: Sequence[Axis | None] = (),
        page: Mapping[str, Scalar] = MappingProxyType({}),
    ) -> tuple[pa.Table, str]:
        """A summary (`orchestrator.results.summary.summarise`), and what is not in it.

        Args:
            by: what is compared.
            metrics: of which means are taken.
            within: what is not compared with each other.
            page: the cells that are meant.
        """
        table = self.table
        for name, label in page.items():
            table = table.filter(pa.array([value == label for value in table[name].to_pylist()]))
        compared, held = (tuple(axis.name for axis in axes if axis) for axes in (by, within))
        summary = summarise(table, self.session.spec, compared, tuple(metrics), held)
        return summary, _sentences(left_out(summary))


def sections(study: Study) -> Iterator[Section]:
    """The chapters in order; those that have nothing to say are left out."""
    manifests = read_manifests(study)
    if study.succeeded() and study.metrics:
        compared = _compared(study)
        yield _verdict(study, compared)
        yield from _best_of_n(study)
        yield from _figures(study)
        yield from _winner_map(study)
        yield _means(study)
        yield _comparisons(study, compared)
        yield from _published(study)
    else:
        yield Section("verdict", "What was found", [*_state(study), "There is no number to report yet."])
    yield _failures(study)
    yield _cost(study, manifests)
    yield _provenance(study, manifests)


def _state(study: Study) -> list[str]:
    total, good = study.table.num_rows, study.succeeded()
    grid = " × ".join(f"{len(axis.labels)} {axis.name}" for axis in study.axes.values())
    axes = statistics.read_axes(study.table)
    grid += f" × {len(axes[SEED])} seeds" if SEED in axes else ""
    # What is excluded is no cell.
    grid = f"of {grid}" if math.prod(map(len, axes.values())) > total else grid
    state = f"{total:,} cells ({grid}): {good:,} succeeded"
    return [state + (f", {total - good:,} have no result." if good < total else ", none is missing.")]


def _compared(study: Study) -> list[Comparison]:
    """All pairs of what competes, over everything else."""
    if study.colour is None:
        return []
    return statistics.compare(study.table, study.colour.name, metrics=study.metrics)


def _verdict(study: Study, compared: Sequence[Comparison]) -> Section:
    text = _state(study)
    if study.colour and study.headline:
        text += _ranking(study, study.colour, study.headline, compared)
    elif study.colour:
        text.append(
            "Nothing is ranked: the sweep file does not declare of which metric higher or lower values are better "
            "(`summary: {better: {METRIC: higher}}`)."
        )
    text += _shares(study, study.metrics[0])
    text += [f"Beware: {warning}." for warning in statistics.missing_cells(study.table)]
    return Section("verdict", "What was found", text)


def _shares(study: Study, metric: str) -> list[str]:
    """What the axes explain of a metric, if no cell is missing: shares of different cells do not add up."""
    about = spell_name(metric)
    grid = math.prod(map(len, statistics.read_axes(study.table).values()))
    if study.table[metric].null_count or study.succeeded() < grid:
        return [f"How much of the variation of {about} each axis explains is not told while cells lack a number."]
    effects = [each for each in statistics.axis_effects(study.table, [metric]) if each.share is not None]
    shares = sorted(((each.share or 0.0, each.axis) for each in effects), reverse=True)
    spelled = ", ".join(f"{axis} {percent(share)}" for share, axis in shares)
    return [f"Of the variation of {about} between cells, the axes by themselves explain: {spelled}."] if shares else []


def _ranking(study: Study, colour: Axis, headline: str, compared: Sequence[Comparison]) -> list[str]:
    """The values of what competes by their means, all from the same cells, and whether the best is clearly ahead."""
    mine = [each for each in compared if each.metric == headline]
    means = _mean_of(mine)
    lower = study.session.spec.summary.better[headline] == "lower"
    by = f"By {spell_name(headline)}, of which {'lower' if lower else 'higher'} is better"
    without = [str(label) for label in colour.labels if label not in means]
    warnings = [f"Beware: {warning}." for warning in _warnings(mine)]
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
    rest = ", ".join(f"{spell(means[label])} ({label})" for label in others if label not in level)
    text = [f"{by}, {colour.name} {lead} {best}: {spell(means[first])}{f', against {rest}' if rest else ''}."]
    if without:
        text.append(f"Not ranked, for want of any number: {', '.join(without)}.")
    text += [_spelled(each, first) for each in pairs.values() if first in (each.a, each.b) and each.difference != 0]
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
    axes = statistics.read_axes(study.table)
    return used.seeds * used.cells == math.prod(len(labels) for axis, labels in axes.items() if axis != colour.name)


def _spelled(each: Comparison, winner: Scalar) -> str:
    sign = 1 if each.a == winner else -1
    assert each.difference is not None
    other = each.b if sign > 0 else each.a
    lead = f"{winner} - {other}: {signed(sign * each.difference)}"
    if each.low is None or each.high is None or each.holm_p is None:
        return f"{lead} ({'one seed' if each.seeds < 2 else 'the same in every seed'}, hence no interval)."
    low, high = sorted((sign * each.low, sign * each.high))
    verdict = "clear" if each.holm_p < LEVEL else "not clear"
    p = f"Holm p {p_value(each.holm_p)}"
    return f"{lead}, 95 % interval {signed(low)} to {signed(high)} over {each.seeds} seeds, {p}: {verdict}."


def _sentences(notes: Sequence[str]) -> str:
    return " ".join(f"{_capital(note)}." for note in notes)


def _best_of_n(study: Study) -> Iterator[Section]:
    counts = sorted(int(name.removeprefix("best_of_")) for name in study.filled if _is_best_of(name))
    if len(counts) < 2:
        return
    n = Axis("n", tuple(counts))
    figures, text = [], []
    for page in _pages(study):
        names = [f"best_of_{count}" for count in counts]
        summary, notes = study.means([study.colour], names, [study.pages, study.panels], page)
        rows = [
            {**row, "n": count, "mean": row[f"best_of_{count}_mean"], "sd": row[f"best_of_{count}_sd"]}
            for row in summary.to_pylist()
            for count in counts
        ]
        if not _any(rows):
            text.append(f"No figure{_at(page)}: {notes}")
            continue
        what = "Golden reward of the response that the reward model likes best among N."
        figures.append(
            Figure(
                _name("best-of-n", page),
                f"Best-of-N{_at(page)}",
                " ".join(filter(None, (what, study.band, notes))),
                curves(rows, n, "best_of_N", study.colour, study.panels),
                study.panels is None,
            )
        )
    yield Section("best-of-n", "Best-of-N", text, figures)


def _is_best_of(name: str) -> bool:
    return name.startswith("best_of_") and name.removeprefix("best_of_").isdigit()


def _any(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(row["mean"] is not None for row in rows)


def _figures(study: Study) -> Iterator[Section]:
    """Each metric against each axis that is not a colour, panel or page."""
    for metric in study.metrics:
        figures, text = [], []
        for x in study.across:
            for page in _pages(study):
                summary, notes = study.means([study.colour, x], [metric], [study.pages, study.panels], page)
                rows = [
                    {**row, "mean": row[f"{metric}_mean"], "sd": row[f"{metric}_sd"]} for row in summary.to_pylist()
                ]
                title = f"{_capital(spell_name(metric))} against {x.name}{_at(page)}"
                if not _any(rows):
                    text.append(f"No figure of {title}: {notes}")
                    continue
                colour = study.colour
                same = f"It is the same for all values of {colour.name}." if colour and _same(rows, colour) else ""
                if same and colour:
                    rows, colour = [row for row in rows if row[colour.name] == colour.labels[0]], None
                figures.append(
                    Figure(
                        _name(f"{metric}-by-{x.name}", page),
                        title,
                        " ".join(filter(None, (study.band, same, notes))),
                        curves(rows, x, metric, colour, study.panels),
                        study.panels is None,
                    )
                )
        if figures or text:
            yield Section(f"figures-{metric}", _capital(spell_name(metric)), text, figures)


def _same(rows: Sequence[Mapping[str, Any]], colour: Axis) -> bool:
    """Whether all values of the colour are there and nothing depends on it, as flip rates not on the reward model."""
    seen: dict[tuple[Any, ...], float] = {}
    known = set()
    for row in rows:
        where = tuple(row[name] for name in row if name != colour.name and not name.endswith(("mean", "sd")))
        if row["mean"] is not None:
            known.add(row[colour.name])
            if not np.isclose(seen.setdefault(where, row["mean"]), row["mean"], rtol=1e-9):
                return False
    return known == set(colour.labels)


def _pages(study: Study) -> list[dict[str, Scalar]]:
    """What each figure is about."""
    pages = study.pages
    return [{pages.name: label} for label in pages.labels] if pages else [{}]


def _of(rows: Sequence[dict[str, Any]], page: Mapping[str, Scalar]) -> list[dict[str, Any]]:
    return [row for row in rows if all(row[name] == value for name, value in page.items())]


def _at(page: Mapping[str, Scalar]) -> str:
    return "".join(f", {name} {value}" for name, value in page.items())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _name(base: str, page: Mapping[str, Scalar]) -> str:
    """A file name."""
    text = "-".join([base, *(str(value) for value in page.values())])
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text)


def _winner_map(study: Study) -> Iterator[Section]:
    colour, metric, across = study.colour, study.headline, study.across
    if colour is None or metric is None or not across:
        return
    x, y = across[0], max(across[1:], key=lambda axis: len(axis.labels), default=None)
    within = [axis.name for axis in (study.pages, study.panels, x, y) if axis]
    compared = statistics.compare(study.table, colour.name, metrics=[metric], within=within, resamples=0)
    tiles: dict[tuple[Scalar, ...], list[Comparison]] = {}
    for each in compared:
        tiles.setdefault(tuple(each.at.values()), []).append(each)
    lower = study.session.spec.summary.better[metric] == "lower"
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
    for row, p in zip(rows, statistics.holm(worst), strict=True):
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
    for page in _pages(study):
        mine = _of(rows, page)
        if mine:
            chart = winners(mine, x, y, colour, study.panels)
            figures.append(Figure(_name("winners", page), f"Winner by {spell_name(metric)}{_at(page)}", caption, chart))
    wins = Counter(str(row[colour.name]) for row in rows)
    led = Counter(str(row[colour.name]) for row in rows if row["clear"])
    text += [f"{label}: best in {wins[label]:,} of {len(rows):,}, clearly in {led[label]:,}." for label in colour.texts]
    yield Section("winners", "Winner map", text, figures)


def _means(study: Study) -> Section:
    tables = []
    by = [study.axes[name] for name in study.by]
    within, colour = [axis for axis in (study.pages, study.panels) if axis], [study.colour] if study.colour else []
    shown = set()
    for compared, held in ((by, []), (colour, within)):
        axes = [axis.name for axis in (*held, *compared)]
        if axes and tuple(axes) not in shown:
            shown.add(tuple(axes))
            summary, notes = study.means(compared, study.metrics, held)
            tables.append(_table(f"means-by-{'-'.join(axes)}", f"By {', '.join(axes)}", for_people(summary), notes))
    if study.colour:
        summary, notes = study.means(colour, study.filled)
        everything = for_people(summary)
        tables.append(
            _turned("all-metrics", f"All metrics by {study.colour.name}", everything, study.colour.name, notes)
        )
    return Section("means", "Means", [study.band], (), tables)


def _table(name: str, title: str, shown: pa.Table, note: str) -> Table:
    rows = [[spell(value) for value in row.values()] for row in shown.to_pylist()]
    count = sum(column in shown.column_names for column in ("cells", "seeds"))
    axes = shown.column_names.index("cells")
    metrics = shown.num_columns - axes - count
    return Table(name, title, shown.column_names, rows, [False] * axes + [True] * (count + metrics), note)


def _turned(name: str, title: str, shown: pa.Table, axis: str, note: str) -> Table:
    """Columns become rows: there are more metrics than values of an axis."""
    labels = [str(label) for label in shown[axis].to_pylist()]
    names = [each for each in shown.column_names if each != axis]
    rows = [[each, *(spell(value) for value in shown[each].to_pylist())] for each in names]
    return Table(name, title, ["", *labels], rows, [False, *(True for _ in labels)], note)


def _comparisons(study: Study, compared: Sequence[Comparison]) -> Section:
    tables = []
    if compared:
        tables.append(_comparison_table("comparisons", f"Differences between values of {study.colour.name}", compared))  # type: ignore[union-attr]
    within = [axis.name for axis in (study.pages, study.panels) if axis]
    if compared and within and study.colour:
        closer = statistics.compare(study.table, study.colour.name, metrics=study.metrics[:1], within=within)
        tables.append(_comparison_table("comparisons-within", f"The same at each {' and '.join(within)}", closer))
    effects = statistics.axis_effects(study.table, study.metrics)
    rows = [
        [each.metric, each.axis, spell(each.lowest), spell(each.highest), spell(each.spread), spell(each.noise),
         percent(each.share), spell(each.f), p_value(each.p), p_value(each.holm_p)]
        for each in effects
    ]  # fmt: skip
    columns = ["metric", "axis", "lowest at", "highest at", "spread", "seed noise", "share", "F", "p", "Holm p"]
    if rows:
        note = (
            "Spread: largest mean of a value minus the smallest. Seed noise: standard deviation of such a mean over "
            "seeds, after taking out what all cells of a seed share. Share: of the variation between all cells. F and "
            "p: repeated-measures analysis of variance, seeds as subjects, lower-bound correction."
        )
        if any(each.warning for each in effects):
            note += " Where cells are missing, the lines are of different cells, and their shares do not add up."
            note += " " + _sentences(_warnings(effects))
        tables.append(
            Table("axes", "Effect of each axis against seed noise", columns, rows, [False] * 4 + [True] * 6, note)
        )
    text = [
        "The seeds are the sample: within each seed, cells that differ in nothing but the value at hand are paired, "
        "their differences averaged, and these few numbers tested. Intervals of 95 % are not adjusted; Holm p values "
        "are, over all lines of a table."
    ]
    return Section("comparisons", "Comparisons", text, (), tables)


def _comparison_table(name: str, title: str, found: Sequence[Comparison]) -> Table:
    differing = {each.metric for each in found if each.difference != 0}
    told = [each for each in found if each.metric in differing]
    at = list(dict.fromkeys(axis for each in told for axis in each.at))
    metrics = {each.metric for each in told}
    several = ["metric"] if len(metrics) > 1 else []
    columns = [
        *several, *at, "difference", "mean", "t interval", "bootstrap interval", "effect size", "p", "Holm p", "seeds",
        "seeds to tell",
    ]  # fmt: skip
    rows = [
        [
            *(each.metric for _ in several),
            *(str(each.at[axis]) for axis in at),
            *(f"{each.a} - {each.b}", signed(each.difference), interval(each.low, each.high)),
            *(interval(each.bootstrap_low, each.bootstrap_high), signed(each.effect_size, 2)),
            *(p_value(each.p), p_value(each.holm_p), str(each.seeds), _to_tell(each)),
        ]
        for each in told
    ]
    title += f": {', '.join(metrics)}" if not several else ""
    numeric = [False] * (len(columns) - 8) + [True] * 8
    bootstrap = columns.index("bootstrap interval")
    if not any(row[bootstrap] for row in rows):
        # Too few seeds.
        for line in (columns, *rows):
            del line[bootstrap]
        del numeric[bootstrap]
    notes = ["Seeds to tell: with so many, the interval leaves out 0, if difference and spread stay what they are."]
    equal = sorted({each.metric for each in found} - {each.metric for each in told})
    notes += [f"Equal in every seed: {', '.join(equal)}."] if equal else []
    notes.append(_sentences(_warnings(told)))
    return Table(name, title, columns, rows, numeric, " ".join(filter(None, notes)))


def _warnings(found: Iterable[Comparison | AxisEffect]) -> list[str]:
    """Each warning once."""
    return list(dict.fromkeys(part for each in found for part in (each.warning or "").split("; ") if part))


def _to_tell(each: Comparison) -> str:
    if not each.effect_size or not each.difference:
        return ""
    needed = statistics.seeds_needed(abs(each.difference / each.effect_size), 2 * abs(each.difference))
    return "" if needed is None else f"{needed:,}"


def _published(study: Study) -> Iterator[Section]:
    """Published numbers beside ours, where the sweep asks what they answer."""
    metrics, axes = set(averaged_metrics(study.table)), statistics.read_axes(study.table)
    tables, figures, text = [], [], []
    for each in json.loads((Path(__file__).parent / "published.json").read_text()):
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
        held = [axis for axis in each["axes"] if axis in (PAGES, PANELS)]
        compared = [axis for axis in each["axes"] if axis not in held]
        summary = summarise(study.table, study.session.spec, tuple(compared), (each["metric"],), tuple(held))
        ours = {tuple(row[axis] for axis in each["axes"]): row for row in summary.to_pylist()}
        lines, points = [], []
        for row in rows:
            coords = [row[axis] for axis in each["axes"]]
            own = ours.get(tuple(coords), {mean: None, sd: None})
            points.append({**row, "whose": "published"})
            if own[mean] is not None:
                points.append({**row, "value": own[mean], "whose": "ours"})
            difference = "" if own[mean] is None else f"{own[mean] - row['value']:+.3f}"
            lines.append([*map(str, coords), f"{row['value']:.3f}", spell(own[mean]), spell(own[sd]), difference])
        spread = "sd over seeds" if "seeds" in summary.column_names else "sd over cells"
        columns = [*each["axes"], "published", "ours", spread, "ours - published"]
        numeric = [False] * len(each["axes"]) + [True] * 4
        notes = _sentences(left_out(summary))
        tables.append(Table(f"published-{each['name']}", each["title"], columns, lines, numeric, notes))
        text.append(f"{each['title']}: {each['source']}. {each['note']}")
        if len(each["axes"]) == 3:
            figures.append(_beside(each, points))
    if tables:
        yield Section("published", "Published figures beside ours", text, figures, tables)


def _beside(each: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> Figure:
    panels, y, colour = (Axis(axis, tuple(dict.fromkeys(row[axis] for row in points))) for axis in each["axes"])
    several = panels if len(panels.labels) > 1 else None
    chart = beside(points, y, colour, several, spell_name(each["metric"]))
    return Figure(f"published-{each['name']}", each["title"], each["note"], chart)


def _systems(study: Study, each: Mapping[str, Any], known: Sequence[str]) -> Table:
    """Rows of published systems, then ours by what competes."""
    scale = 100 if each.get("percent") else 1
    places = [each["columns"].index(name) for name in known]
    rows = [[name, *(spell(numbers[place]) for place in places)] for name, *numbers in each["systems"]]
    summary, notes = study.means([study.axes[name] for name in study.by[:1]], known)
    for row in summary.to_pylist():
        values = [row[f"{name}_mean"] for name in known]
        whose = f"ours: {row[study.by[0]]}" if study.by else "ours"
        rows.append([whose, *("" if value is None else f"{scale * value:.1f}" for value in values)])
    return Table(f"published-{each['name']}", each["title"], ["", *known], rows, [False, *(True for _ in known)], notes)


def _failures(study: Study) -> Section:
    columns = ["status", "error_class", "error", "log", *study.session.spec.axes]
    rows = study.table.select(columns).to_pylist()
    found = error_groups((row["status"], row["error_class"], row["error"], row["log"]) for row in rows)
    examples: dict[tuple[Any, ...], dict[str, Scalar]] = {}
    for row in rows:
        coords = {axis: row[axis] for axis in study.session.spec.axes}
        examples.setdefault(
            (row["status"], row["error_class"] or unnamed_error(row["status"]), row["error"] or ""), coords
        )
    lines = [
        [status, kind, f"{count:,}", message[:500], spell_coords(examples[status, kind, message]), log or ""]
        for status, kind, count, message, log in found
    ]
    if not lines:
        return Section("failures", "Failures", ["None: every cell succeeded."])
    names = ["status", "error", "cells", "example", "of cell", "log"]
    numeric = [False, False, True, False, False, False]
    table = Table("failures", "Cells without a result, by what went wrong", names, lines, numeric)
    return Section("failures", "Failures", ["The same `sweep run` command goes on with them."], (), [table])


def read_manifests(study: Study) -> dict[str, list[Manifest]]:
    """Entry -> the manifests of its committed steps that the cells of the report rest on."""
    session = study.session
    plan = session.plan
    meant = plan.steps_of(cells=session.cells) & session.schedule.committed
    addresses: dict[str, list[Artifact]] = {name: [] for name in plan.entries}
    for number in np.flatnonzero(meant).tolist():
        addresses[plan.entry_of(number)].append(plan.address(number))
    read = session.store.manifests({address for each in addresses.values() for address in each})
    found = {name: [read[address] for address in each] for name, each in addresses.items()}
    return {name: [each for each in some if isinstance(each, Manifest)] for name, some in found.items()}


def _cost(study: Study, manifests: Mapping[str, Sequence[Manifest]]) -> Section:
    spec, total = study.session.spec, np.zeros(4)
    rows = []
    for name, each in manifests.items():
        if each:
            runtime = spec.runtime_of(name, {})
            hours = sum(manifest.seconds for manifest in each) / 3600
            size = sum(size for manifest in each for size, _ in manifest.files.values()) / 1e6
            numbers = np.array([len(each), hours * runtime.cpus, hours * runtime.gpus, size])
            total += numbers
            rows.append(
                [name, f"{len(each):,}", spell(3600 * hours / len(each)), *(spell(float(x)) for x in numbers[1:])]
            )
    if not rows:
        return Section("cost", "Cost", ["No step of these cells is in the store."])
    rows.append(["all", f"{int(total[0]):,}", "", *(spell(float(x)) for x in total[1:])])
    columns = ["stage", "steps", "s per step", "CPU-hours", "GPU-hours", "disk (MB)"]
    text = [
        "Of the committed steps that these cells rest on, shared ones counted once; what failed is not in it. Hours "
        "are wall time of a step times the cores and GPUs that the sweep file reserves for its stage."
    ]
    return Section("cost", "Cost", text, (), [Table("cost", "By stage", columns, rows, [False] + [True] * 5)])


def _provenance(study: Study, manifests: Mapping[str, Sequence[Manifest]]) -> Section:
    session = study.session
    every = [each for some in manifests.values() for each in some]
    keys = hashlib.sha256("".join(sorted(study.table["key"].to_pylist())).encode()).hexdigest()
    facts = [["sweep", session.spec.name], ["store", session.outputs.store], ["cells", f"{study.table.num_rows:,}"]]
    facts.append(["sha256 of all cell keys", keys])
    if every:
        starts, ends = min(each.finished - each.seconds for each in every), max(each.finished for each in every)
        facts.append(["made", f"{_time(starts)} to {_time(ends)}"])
        facts.append(["code", _counted(each.code_commit for each in every)])
        facts.append(["hosts", _counted(each.host for each in every)])
        adopted = sum(each.adopted is not None for each in every)
        facts += [["adopted", f"{adopted:,} steps, from older versions of their stages"]] if adopted else []
    versions: dict[str, set[str]] = {}
    for manifest in every:
        for library, version in manifest.versions.items():
            versions.setdefault(library, set()).add(version)
    tables = [Table("provenance", "Where the numbers come from", ["", ""], facts, [False, False])]
    if versions:
        rows = [[library, ", ".join(sorted(each))] for library, each in sorted(versions.items())]
        tables.append(Table("versions", "Libraries", ["library", "version"], rows, [False, False]))
    chosen = [str(session.file), *session.selection, *session.places]
    command, again = (shlex.join(["sweep", verb, *chosen]) for verb in ("run", "report"))
    code = [("Run it again", f"{command}\n{again}"), ("The sweep file", session.file.read_text())]
    return Section("provenance", "Provenance", (), (), tables, code)


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _counted(values: Iterable[str]) -> str:
    return ", ".join(f"{value} ({count:,} steps)" for value, count in sorted(Counter(values).items()))

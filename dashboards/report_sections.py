"""What the report says: the sections with their texts, tables and figures, made of a results table and manifests."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dashboards.report_figures import Axis, Figure, beside, curves, spell_name, winners
from orchestrator import statistics
from orchestrator.export import interval, p_value, signed, spell
from orchestrator.results import error_groups, reported_metrics
from orchestrator.selection import spell_coords
from orchestrator.session import Session
from orchestrator.statistics import SEED, Comparison
from orchestrator.summary import for_people, summarise
from orchestrator.types import Artifact, Manifest, Scalar

#: Axes that get figures or panels of their own: across their values, metrics are not of one scale.
PAGES, PANELS = "dataset", "policy"
#: Metrics of the figures and comparisons, where the sweep file names none.
FEW = 4
#: Values of an axis that may compete.
COLOURS = 10
#: A metric with one of these in its name is better when it is smaller.
SMALLER = ("loss", "error", "flip_rate", "failure", "unparsed", "seconds", "cost")
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
    """Those of the figures and comparisons, the headline first."""
    headline: str | None = field(init=False)
    """The metric that decides who wins: `improvement`, else the last of the summary."""
    by: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Read the axes and metrics off the table, and the choice among them off the sweep file."""
        found = statistics.read_axes(self.table)
        self.axes = {name: Axis(name, values) for name, values in found.items() if name != SEED and len(values) > 1}
        reported = reported_metrics(self.table)
        filled = {name for name in reported if self.table[name].null_count < self.table.num_rows}
        chosen = self.session.spec.summary.metrics or reported
        kept = [name for name in chosen if name in filled][:FEW]
        self.headline = "improvement" if "improvement" in kept else kept[-1] if kept else None
        self.metrics = tuple(sorted(kept, key=lambda name: name != self.headline))
        wanted = [axis for axis in self.session.spec.summary.by if axis in self.axes]
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

    def means(self, by: Sequence[str], metrics: Sequence[str]) -> list[dict[str, Any]]:
        """Rows with the axes of `by` and `<metric>_mean`, `<metric>_sd` over seeds."""
        rows: list[dict[str, Any]] = summarise(
            self.table, self.session.spec, tuple(by) or (next(iter(self.session.spec.axes)),), tuple(metrics)
        ).to_pylist()
        return rows


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
    seeds = statistics.read_axes(study.table).get(SEED, ())
    grid += f" × {len(seeds)} seeds" if seeds else ""
    state = f"{total:,} cells ({grid}): {good:,} succeeded"
    return [state + (f", {total - good:,} have no result." if good < total else ", none is missing.")]


def _compared(study: Study) -> list[Comparison]:
    """All pairs of what competes, over everything else."""
    if study.colour is None:
        return []
    return statistics.compare(study.table, study.colour.name, metrics=study.metrics)


def _verdict(study: Study, compared: Sequence[Comparison]) -> Section:
    text = _state(study)
    headline, colour = study.headline, study.colour
    if headline and colour:
        first, *others = _ranked(study, headline)
        text.append(
            f"By {spell_name(headline)}, {colour.name} {first[0]} is best on average over everything else: "
            f"{spell(first[1])}, against {', '.join(f'{spell(mean)} ({label})' for label, mean in others)}."
        )
        for each in compared:
            if each.metric == headline and first[0] in (str(each.a), str(each.b)) and each.difference is not None:
                text.append(_spelled(each, first[0]))
    effects = [each for each in statistics.axis_effects(study.table, study.metrics) if each.metric == headline]
    shares = sorted(((each.share or 0, each.axis) for each in effects), reverse=True)
    if shares:
        spelled = ", ".join(f"{axis} {share:.0%}" for share, axis in shares)
        about = spell_name(headline or "")
        text.append(f"Of the variation of {about} between cells, the axes by themselves explain: {spelled}.")
    text += [f"Beware: {warning}." for warning in statistics.missing_cells(study.table)]
    return Section("verdict", "What was found", text)


def _spelled(each: Comparison, winner: str) -> str:
    sign = 1 if str(each.a) == winner else -1
    assert each.difference is not None
    other = each.b if sign > 0 else each.a
    lead = f"{winner} - {other}: {sign * each.difference:+.4f}"
    if each.low is None or each.high is None:
        return f"{lead} (one seed, hence no interval)."
    low, high = sorted((sign * each.low, sign * each.high))
    p = f"Holm p {p_value(each.holm_p)}" if each.holm_p is not None else "equal in every seed"
    verdict = "clear" if each.holm_p is not None and each.holm_p < LEVEL else "not clear"
    return f"{lead}, 95 % interval {low:+.4f} to {high:+.4f} over {each.seeds} seeds, {p}: {verdict}."


def _ranked(study: Study, metric: str) -> list[tuple[str, float]]:
    """The values of what competes with their means, the best first."""
    assert study.colour is not None
    rows = study.means([study.colour.name], [metric])
    known = [(str(row[study.colour.name]), row[f"{metric}_mean"]) for row in rows if row[f"{metric}_mean"] is not None]
    return sorted(known, key=lambda each: each[1], reverse=not smaller_is_better(metric))


def smaller_is_better(metric: str) -> bool:
    """Told by its name."""
    return any(part in metric for part in SMALLER)


def _best_of_n(study: Study) -> Iterator[Section]:
    counts = sorted(int(name.removeprefix("best_of_")) for name in reported_metrics(study.table) if _is_best_of(name))
    if len(counts) < 2:
        return
    n = Axis("n", tuple(counts))
    figures = []
    for page, axes in _pages(study):
        rows = [
            {**row, "n": count, "mean": row[f"best_of_{count}_mean"], "sd": row[f"best_of_{count}_sd"]}
            for row in study.means(axes, [f"best_of_{count}" for count in counts])
            for count in counts
        ]
        chart = curves(_of(rows, page), n, "best_of_N", study.colour, study.panels)
        figures.append(
            Figure(
                _name("best-of-n", page),
                f"Best-of-N{_at(page)}",
                f"Golden reward of the response that the reward model likes best among N. {_BAND}",
                chart,
                study.panels is None,
            )
        )
    yield Section("best-of-n", "Best-of-N", figures=figures)


def _is_best_of(name: str) -> bool:
    return name.startswith("best_of_") and name.removeprefix("best_of_").isdigit()


_BAND = "Mean ± standard deviation over seeds; all other axes are averaged over within each seed."


def _figures(study: Study) -> Iterator[Section]:
    """Each metric against each axis that is not a colour, panel or page."""
    for metric in study.metrics:
        figures = []
        for x in study.across:
            for page, axes in _pages(study):
                rows = [
                    {**row, "mean": row[f"{metric}_mean"], "sd": row[f"{metric}_sd"]}
                    for row in study.means([*axes, x.name], [metric])
                ]
                kept = _of(rows, page)
                colour = study.colour
                same = _same_for_all(kept, colour)
                if same and colour:
                    kept = [row for row in kept if row[colour.name] == colour.labels[0]]
                caption = f"{_BAND} It is the same for all values of {colour.name}." if same and colour else _BAND
                figures.append(
                    Figure(
                        _name(f"{metric}-by-{x.name}", page),
                        f"{_capital(spell_name(metric))} against {x.name}{_at(page)}",
                        caption,
                        curves(kept, x, metric, None if same else colour, study.panels),
                        study.panels is None,
                    )
                )
        if figures:
            yield Section(f"figures-{metric}", _capital(spell_name(metric)), figures=figures)


def _same_for_all(rows: Sequence[Mapping[str, Any]], colour: Axis | None) -> bool:
    """Whether nothing depends on the colour, as flip rates do not depend on the reward model."""
    if colour is None:
        return True
    seen: dict[tuple[Any, ...], float] = {}
    for row in rows:
        where = tuple(value for name, value in row.items() if name != colour.name and not name.endswith(("mean", "sd")))
        if row["mean"] is not None and not np.isclose(seen.setdefault(where, row["mean"]), row["mean"], rtol=1e-9):
            return False
    return True


def _pages(study: Study) -> list[tuple[dict[str, Scalar], list[str]]]:
    """What each figure is about, and the axes that its rows need."""
    axes = [axis.name for axis in (study.pages, study.panels, study.colour) if axis]
    pages = study.pages
    return [({pages.name: label}, axes) for label in pages.labels] if pages else [({}, axes)]


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
    rows, worst = [], []
    for pairs in tiles.values():
        means: dict[Scalar, float] = {}
        for each in pairs:
            if each.mean_a is not None and each.mean_b is not None:
                means |= {each.a: each.mean_a, each.b: each.mean_b}
        if means:
            winner = (min if smaller_is_better(metric) else max)(means, key=lambda label: means[label])
            rows.append({**pairs[0].at, colour.name: winner})
            # It is ahead of all others only if it is ahead of each: the largest p counts (Berger 1982).
            worst.append(max(1.0 if each.p is None else each.p for each in pairs if winner in (each.a, each.b)))
    for row, p in zip(rows, statistics.holm(worst), strict=True):
        row["clear"] = p < LEVEL
    extreme = "smallest" if smaller_is_better(metric) else "largest"
    caption = (
        f"The {colour.name} with the {extreme} mean. The lead is clear where it is ahead of each other one with a Holm "
        f"p below {LEVEL:g}, adjusted over all {len(rows):,} tiles."
    )
    figures = []
    for page, _ in _pages(study):
        chart = winners(_of(rows, page), x, y, colour, study.panels)
        figures.append(Figure(_name("winners", page), f"Winner by {spell_name(metric)}{_at(page)}", caption, chart))
    wins = Counter(str(row[colour.name]) for row in rows)
    led = Counter(str(row[colour.name]) for row in rows if row["clear"])
    text = [f"{label}: best in {wins[label]:,} of {len(rows):,}, clearly in {led[label]:,}." for label in colour.texts]
    yield Section("winners", "Winner map", text, figures)


def _means(study: Study) -> Section:
    reported = [name for name in reported_metrics(study.table) if study.table[name].null_count < study.table.num_rows]
    tables = []
    groups = [study.by, [axis.name for axis in (study.pages, study.panels, study.colour) if axis]]
    for by in dict.fromkeys(tuple(group) for group in groups if group):
        metrics = study.metrics
        shown = for_people(summarise(study.table, study.session.spec, by, metrics))
        tables.append(_table(f"means-by-{'-'.join(by)}", f"By {', '.join(by)}", shown))
    if study.colour:
        everything = for_people(summarise(study.table, study.session.spec, (study.colour.name,), tuple(reported)))
        tables.append(_turned("all-metrics", f"All metrics by {study.colour.name}", everything, study.colour.name))
    text = ["Mean ± standard deviation over seeds; the cells of a seed are averaged first."]
    return Section("means", "Means", text, (), tables)


def _table(name: str, title: str, shown: pa.Table) -> Table:
    rows = [[spell(value) for value in row.values()] for row in shown.to_pylist()]
    count = sum(column in shown.column_names for column in ("cells", "seeds"))
    axes = shown.column_names.index("cells")
    metrics = shown.num_columns - axes - count
    return Table(name, title, shown.column_names, rows, [False] * axes + [True] * (count + metrics))


def _turned(name: str, title: str, shown: pa.Table, axis: str) -> Table:
    """Columns become rows: there are more metrics than values of an axis."""
    labels = [str(label) for label in shown[axis].to_pylist()]
    names = [each for each in shown.column_names if each != axis]
    rows = [[each, *(spell(value) for value in shown[each].to_pylist())] for each in names]
    return Table(name, title, ["", *labels], rows, [False, *(True for _ in labels)])


def _comparisons(study: Study, compared: Sequence[Comparison]) -> Section:
    tables = []
    if compared:
        tables.append(_comparison_table("comparisons", f"Differences between values of {study.colour.name}", compared))  # type: ignore[union-attr]
    within = [axis.name for axis in (study.pages, study.panels) if axis]
    if compared and within and study.colour and study.headline:
        closer = statistics.compare(study.table, study.colour.name, metrics=[study.headline], within=within)
        tables.append(_comparison_table("comparisons-within", f"The same at each {' and '.join(within)}", closer))
    effects = statistics.axis_effects(study.table, study.metrics)
    rows = [
        [each.metric, each.axis, spell(each.lowest), spell(each.highest), spell(each.spread), spell(each.noise),
         "" if each.share is None else f"{each.share:.1%}", spell(each.f), p_value(each.p), p_value(each.holm_p)]
        for each in effects
    ]  # fmt: skip
    columns = ["metric", "axis", "lowest at", "highest at", "spread", "seed noise", "share", "F", "p", "Holm p"]
    if rows:
        note = (
            "Spread: largest mean of a value minus the smallest. Seed noise: standard deviation of such a mean over "
            "seeds, after taking out what all cells of a seed share. Share: of the variation between all cells. F and "
            "p: repeated-measures analysis of variance, seeds as subjects, lower-bound correction."
        )
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
    told = [each for each in found if each.difference != 0 or each.p is not None]
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
    notes += dict.fromkeys(f"{each.warning}." for each in told if each.warning)
    return Table(name, title, columns, rows, numeric, " ".join(notes))


def _to_tell(each: Comparison) -> str:
    if not each.effect_size or not each.difference:
        return ""
    needed = statistics.seeds_needed(abs(each.difference / each.effect_size), 2 * abs(each.difference))
    return "" if needed is None else f"{needed:,}"


def _published(study: Study) -> Iterator[Section]:
    """Published numbers beside ours, where the sweep asks what they answer."""
    metrics, axes = set(reported_metrics(study.table)), statistics.read_axes(study.table)
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
        ours = {tuple(row[axis] for axis in each["axes"]): row for row in study.means(each["axes"], [each["metric"]])}
        lines, points = [], []
        for row in rows:
            coords = [row[axis] for axis in each["axes"]]
            own = ours.get(tuple(coords), {mean: None, sd: None})
            points.append({**row, "whose": "published"})
            if own[mean] is not None:
                points.append({**row, "value": own[mean], "whose": "ours"})
            difference = "" if own[mean] is None else f"{own[mean] - row['value']:+.3f}"
            lines.append([*map(str, coords), f"{row['value']:.3f}", spell(own[mean]), spell(own[sd]), difference])
        columns = [*each["axes"], "published", "ours", "sd over seeds", "ours - published"]
        numeric = [False] * len(each["axes"]) + [True] * 4
        tables.append(Table(f"published-{each['name']}", each["title"], columns, lines, numeric))
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
    for row in study.means(study.by[:1], known):
        values = [row[f"{name}_mean"] for name in known]
        rows.append(
            [f"ours: {row[study.by[0]]}", *("" if value is None else f"{scale * value:.1f}" for value in values)]
        )
    return Table(f"published-{each['name']}", each["title"], ["", *known], rows, [False, *(True for _ in known)])


def _failures(study: Study) -> Section:
    columns = ["status", "error_class", "error", "log", *study.session.spec.axes]
    rows = study.table.select(columns).to_pylist()
    found = error_groups((row["status"], row["error_class"], row["error"], row["log"]) for row in rows)
    examples: dict[tuple[Any, ...], dict[str, Scalar]] = {}
    for row in rows:
        coords = {axis: row[axis] for axis in study.session.spec.axes}
        examples.setdefault((row["status"], row["error_class"] or "not run yet", row["error"] or ""), coords)
    lines = [
        [status, kind, f"{count:,}", message[:500], spell_coords(examples[status, kind, message]), log or ""]
        for status, kind, count, message, log in found
    ]
    if not lines:
        return Section("failures", "Failures", ["None: every cell succeeded."])
    names = ["status", "error", "cells", "example", "of cell", "log"]
    numeric = [False, False, True, False, False, False]
    table = Table("failures", "Cells without a result, by what went wrong", names, lines, numeric)
    return Section("failures", "Failures", ["The same `sweep run` command tries them again."], (), [table])


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

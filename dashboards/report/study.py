"""A sweep as the report sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from types import MappingProxyType

import pyarrow as pa

from dashboards.report.figures import Axis
from dashboards.report.section import sentences
from orchestrator.analysis.effect import Sample
from orchestrator.analysis.metric_grid import SEED, read_axes
from orchestrator.analysis.singles import sample_of
from orchestrator.analysis.summary import left_out, summarise
from orchestrator.results.metrics import averaged_metrics, metric_directions
from orchestrator.session import Session
from orchestrator.types import Scalar

#: Axes that get figures or panels of their own, where the sweep file does not say (`by`) which are not averaged over.
PAGES, PANELS = "dataset", "policy"
#: Metrics of the figures and comparisons, where the sweep file names none.
FEW = 4
#: Values of an axis that may compete.
COLOURS = 10


@dataclass
class Study:
    """A results table, and which of its axes and metrics play which part in the report."""

    session: Session
    table: pa.Table
    """The rows that are compared: all, but of a search those of the best trials."""
    whole: pa.Table | None = None
    """All rows; None where all are compared."""
    notes: Sequence[str] = ()
    """What is to be known of the rows that are compared."""
    progress: Callable[[int, int], object] = lambda done, total: None
    """Called with how many tables of single prompts are read, and of how many."""
    sample: Sample = field(init=False)
    """What every mean, rank, difference and claim is from."""
    axes: dict[str, Axis] = field(init=False)
    """The axes of two or more values, without those that are random."""
    held: tuple[Axis, ...] = field(init=False)
    """Of these the ones that are never averaged over."""
    metrics: tuple[str, ...] = field(init=False)
    """Those of the figures and comparisons, the headline first, else as the sweep file orders them."""
    headline: str | None = field(init=False)
    """The metric that decides who wins: the primary one of the analysis; None: nobody."""
    by: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Read the axes and metrics from the table, and the choice among them from the sweep file."""
        self.sample = sample_of(self.session, self.table, progress=self.progress)
        analysis, summary = self.session.spec.analysis, self.session.spec.summary
        chance = {SEED, *self.sample.random}
        found = read_axes(self.table)
        self.axes = {
            name: Axis(name, values) for name, values in found.items() if name not in chance and len(values) > 1
        }
        held = analysis.primary.by if analysis else ()
        self.held = tuple(axis for name, axis in self.axes.items() if name in held)
        self.headline = analysis.primary.metric if analysis and analysis.primary.metric in self.filled else None
        outcomes = [each.metric for each in analysis.outcomes] if analysis else []
        named = dict.fromkeys([*outcomes, *summary.metrics])
        self.metrics = tuple(name for name in named if name in self.filled) or tuple(self.filled[:FEW])
        compared = [name for name in self.axes if name not in held]
        self.by = tuple([axis for axis in summary.by if axis in compared] or compared[-2:])

    @property
    def rows(self) -> pa.Table:
        """All rows, also of a search."""
        return self.table if self.whole is None else self.whole

    @property
    def colour(self) -> Axis | None:
        """Return what competes: the first axis of the summary that has few enough values for colours and pairs."""
        return next((self.axes[name] for name in self.by if len(self.axes[name].labels) <= COLOURS), None)

    @property
    def panels(self) -> Axis | None:
        """Return the axis of which each value has a panel."""
        taken = {axis.name for axis in (self.colour, *self.held) if axis}
        return None if PANELS in taken else self.axes.get(PANELS)

    @property
    def pages(self) -> tuple[Axis, ...]:
        """Return the axes of which each combination of values has figures of its own."""
        if self.held:
            return self.held
        competes = self.colour is not None and self.colour.name == PAGES
        return (self.axes[PAGES],) if PAGES in self.axes and not competes else ()

    @property
    def across(self) -> list[Axis]:
        """Return the axes that metrics are drawn against: all others, those of the summary first."""
        kept = {axis.name for axis in (self.colour, self.panels, *self.pages) if axis}
        names = sorted((name for name in self.axes if name not in kept), key=lambda name: name not in self.by)
        return [self.axes[name] for name in names]

    def succeeded(self) -> int:
        """Count the cells that succeeded."""
        return sum(status == "succeeded" for status in self.table["status"].to_pylist())

    @property
    def filled(self) -> list[str]:
        """Return the metrics of which means are taken, and that some cell has."""
        return [name for name in averaged_metrics(self.table) if self.table[name].null_count < self.table.num_rows]

    @property
    def lower(self) -> bool:
        """Return whether lower values of the headline are better."""
        return self.headline is not None and metric_directions(self.session.plan).get(self.headline) == "lower"

    @property
    def band(self) -> str:
        """Say what means and their ± are."""
        random = self.sample.random
        over, each = ("seeds", "seed") if random == (SEED,) else (" × ".join(random), "draw")
        if any(len(self.sample.grid.labels(axis)) > 1 for axis in random):
            return f"Mean ± standard deviation over {over}; all other axes are averaged over within each {each}."
        if random:
            return f"Mean over all other axes; there is one {each}, hence no spread over {over}."
        declared = " × ".join(self.sample.axes.values())
        return f"Mean ± standard deviation over all other axes; the sweep has no axis `{declared}`."

    @property
    def intervals(self) -> str:
        """Say what the intervals of differences are for."""
        confidence = f"{100 * self.sample.confidence:g} % intervals"
        if self.sample.new is None:
            return f"{confidence} for {self.sample.fixed}."
        return f"{confidence}: thin for {self.sample.new}, thick for {self.sample.fixed}."

    def means(
        self,
        by: Sequence[Axis | None],
        metrics: Sequence[str],
        within: Sequence[Axis | None] = (),
        page: Mapping[str, Scalar] = MappingProxyType({}),
    ) -> tuple[pa.Table, str]:
        """Summarise (`orchestrator.analysis.summary`); return the means, and in sentences what is not in them.

        Args:
            by: what is compared.
            metrics: of which means are taken.
            within: what is not compared with each other.
            page: only cells with these values.
        """
        compared, held = (tuple(axis.name for axis in axes if axis) for axes in (by, within))
        summary = summarise(self.at(page), self.session.spec, compared, tuple(metrics), held)
        return summary, sentences(left_out(summary))

    def at(self, page: Mapping[str, Scalar]) -> pa.Table:
        """Return the rows that have these values."""
        table = self.table
        for name, label in page.items():
            table = table.filter(pa.array([value == label for value in table[name].to_pylist()], pa.bool_()))
        return table

    def each_page(self) -> list[dict[str, Scalar]]:
        """Return the values of which there is a figure each; one of nothing where there are no pages."""
        return combinations(self.pages)

    def each_held(self) -> list[dict[str, Scalar]]:
        """Return the values for each of which something is said by itself; one of nothing where nothing is held."""
        return combinations(self.held)


def combinations(axes: Sequence[Axis]) -> list[dict[str, Scalar]]:
    """Return all combinations of the values of some axes."""
    names = [axis.name for axis in axes]
    return [dict(zip(names, labels, strict=True)) for labels in product(*(axis.labels for axis in axes))]

"""A sweep as the report sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import pyarrow as pa

from dashboards.report.figures import Axis
from dashboards.report.section import sentences
from orchestrator.analysis.metric_grid import SEED, read_axes
from orchestrator.analysis.summary import left_out, summarise
from orchestrator.results.metrics import averaged_metrics, metric_directions
from orchestrator.session import Session
from orchestrator.types import Scalar

#: Axes that get figures or panels of their own: across their values, metrics are not of one scale.
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
    axes: dict[str, Axis] = field(init=False)
    """The axes of two or more values, without `seed`."""
    metrics: tuple[str, ...] = field(init=False)
    """Those of the figures and comparisons, the headline first, else as the sweep file orders them."""
    headline: str | None = field(init=False)
    """The metric that decides who wins: the primary one of the analysis; None: nobody."""
    by: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Read the axes and metrics from the table, and the choice among them from the sweep file."""
        found = read_axes(self.table)
        self.axes = {name: Axis(name, values) for name, values in found.items() if name != SEED and len(values) > 1}
        summary = self.session.spec.summary
        analysis = self.session.spec.analysis
        self.headline = analysis.primary.metric if analysis and analysis.primary.metric in self.filled else None
        first = [self.headline] if self.headline else []
        chosen = [name for name in summary.metrics or self.filled if name in self.filled]
        self.metrics = tuple(dict.fromkeys([*first, *chosen]))[:FEW]
        wanted = [axis for axis in summary.by if axis in self.axes]
        self.by = tuple(wanted or list(self.axes)[-2:])

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
        return None if self.colour and self.colour.name == PANELS else self.axes.get(PANELS)

    @property
    def pages(self) -> Axis | None:
        """Return the axis of which each value has figures of its own."""
        return None if self.colour and self.colour.name == PAGES else self.axes.get(PAGES)

    @property
    def across(self) -> list[Axis]:
        """Return the axes that metrics are drawn against: all others, those of the summary first."""
        kept = {axis.name for axis in (self.colour, self.panels, self.pages) if axis}
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
        return self.headline is not None and metric_directions(self.session.plan)[self.headline] == "lower"

    @property
    def band(self) -> str:
        """Say what means and their ± are."""
        seeds = read_axes(self.table).get(SEED, ())
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
        """Summarise (`orchestrator.analysis.summary`); return the means, and in sentences what is not in them.

        Args:
            by: what is compared.
            metrics: of which means are taken.
            within: what is not compared with each other.
            page: only cells with these values.
        """
        table = self.table
        for name, label in page.items():
            table = table.filter(pa.array([value == label for value in table[name].to_pylist()]))
        compared, held = (tuple(axis.name for axis in axes if axis) for axes in (by, within))
        summary = summarise(table, self.session.spec, compared, tuple(metrics), held)
        return summary, sentences(left_out(summary))

    def each_page(self) -> list[dict[str, Scalar]]:
        """Return the values of which there is a figure each; one of nothing where there are no pages."""
        return [{self.pages.name: label} for label in self.pages.labels] if self.pages else [{}]

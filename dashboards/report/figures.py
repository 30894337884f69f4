"""Figures of the report: charts in Vega-Lite made of rows, and the same charts as SVG, PNG and PDF.

Colours are those of Okabe and Ito (2008), which people with any common colour blindness tell apart, and two more at
the end; shapes repeat them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import altair as alt

from orchestrator.texts import plain_text
from orchestrator.types import Scalar

Row = Mapping[str, Any]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#F0E442", "#882255")
SHAPES = (
    "circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-left", "triangle-right", "stroke",
    "wedge",
)  # fmt: skip
#: Width of a figure that fills the page, and of one of two side by side, in CSS pixels of its own.
PAGE, HALF = 820, 400
#: What a vertical axis of numbers takes of it, with the margins of the figure; and the gap between panels.
_LEFT, _GAP = 74, 20
#: Panels of a row at most.
COLUMNS = 3
#: Pixels of a PNG per CSS pixel: 192 dots per inch.
PNG_SCALE = 2.0

#: Lines of a PDF dictionary that only name other objects.
_NAMES = re.compile(rb"(?<=<<\n)(?: +/\w+ \d+ 0 R\n)+(?= *>>)")

_UNITS = {
    "improvement": "improvement (golden reward)",
    "mean_golden_reward": "mean golden reward",
    "flip_rate": "flip rate (share of labels)",
    "spearman": "Spearman rank correlation",
    "quantile": "quantile of the chosen response (share)",
    "pairwise_accuracy": "pairwise accuracy (share of pairs)",
    "pairwise_accuracy_cross": "pairwise accuracy, any two prompts (share)",
    "beta": "annotator β (1 / reward gap)",
    "annotations": "annotations (pairs)",
    "sampling": "sampling of pairs",
    "n": "N (responses chosen from)",
    "seconds": "time (s)",
}


@dataclass(frozen=True)
class Figure:
    """A chart with its file name, its title, and a caption that says how to read it."""

    name: str
    title: str
    caption: str
    chart: alt.TopLevelMixin
    narrow: bool = False
    """Two go side by side on a wide screen."""

    def svg(self) -> str:
        """Render the chart as SVG; the same chart gives the same text."""
        import vl_convert

        svg: str = vl_convert.vegalite_to_svg(self.chart.to_dict())
        return svg


def png(svg: str) -> bytes:
    """Convert a chart to PNG, at 192 dots per inch."""
    import vl_convert

    content: bytes = vl_convert.svg_to_png(svg, scale=PNG_SCALE)
    return content


def pdf(svg: str) -> bytes:
    """Convert a chart to PDF; the same chart gives the same bytes, as long as one font has all its letters.

    svg2pdf writes the names in a dictionary, and several fonts, in an order that changes from call to call; the names
    are sorted here, and charts have no second font (nor a bold one).
    """
    import vl_convert

    content: bytes = vl_convert.svg_to_pdf(svg)
    return _NAMES.sub(lambda names: b"".join(sorted(names[0].splitlines(keepends=True))), content)


@dataclass(frozen=True)
class Axis:
    """An axis of a sweep, or another quantity, as it is drawn."""

    name: str
    labels: tuple[Scalar, ...]

    @property
    def numeric(self) -> bool:
        """Return whether it is drawn to scale: positive numbers (a negative beta is a name for no noise)."""
        return all(
            isinstance(label, int | float) and not isinstance(label, bool) and label > 0 for label in self.labels
        )

    @property
    def texts(self) -> list[str]:
        """Return the labels as they are drawn where they are names."""
        return [drawn(label) for label in self.labels]


def drawn(label: Scalar) -> str:
    """Return a label as it is drawn: SVG has no control characters."""
    return plain_text(str(label))


def format_name(name: str) -> str:
    """Return the name of an axis or metric for people, with its unit where that is known."""
    if name.startswith("best_of_"):
        return f"golden reward of the best of {name.removeprefix('best_of_')}"
    return _UNITS.get(name, name.replace("_", " "))


def curves(rows: Sequence[Row], x: Axis, y: str, colour: Axis | None, panels: Axis | None) -> alt.TopLevelMixin:
    """Draw mean ± sd against x, by colour, in panels: bands where x is a number, else error bars.

    Args:
        rows: with the names of x, colour and panels, and `mean` and `sd` (None: no spread).
        x: what is varied.
        y: what the mean is of.
        colour: one curve for each of its values.
        panels: one panel for each of its values.
    """
    width, height = panel_size(panels)
    data = [
        {**row, "low": row["mean"] - (row["sd"] or 0), "high": row["mean"] + (row["sd"] or 0)}
        for row in rows
        if row["mean"] is not None
    ]
    base = alt.Chart(chart_data(data, x=x, colour=colour, panel=panels))
    scale = alt.Scale(zero=False)
    middle: dict[str, Any] = {"y": alt.Y("mean:Q", title=format_name(y), scale=scale)}
    ends: dict[str, Any] = {"y": alt.Y("low:Q", title=format_name(y), scale=scale), "y2": alt.Y2("high:Q")}
    shaped: dict[str, Any] = {}
    if colour:
        middle["color"] = ends["color"] = coloured(colour)
        shaped["shape"] = _shape(colour)
    else:
        base = base.encode(color=alt.value(PALETTE[0]))
    if x.numeric:
        base = base.encode(x=scaled(x, width))
        layers = [
            base.mark_area(opacity=0.18).encode(**ends),
            base.mark_line(strokeWidth=1.6).encode(**middle),
            base.mark_point(filled=True, size=28, opacity=1).encode(**middle, **shaped),
        ]
    else:
        if colour:
            base = base.encode(xOffset=alt.XOffset("colour:N", sort=colour.texts))
        base = base.encode(x=named(x, width))
        layers = [
            base.mark_rule(strokeWidth=1.4).encode(**ends),
            base.mark_point(filled=True, size=36, opacity=1).encode(**middle, **shaped),
        ]
    return finished(_in_panels(alt.layer(*layers).properties(width=width, height=height), panels))


def winners(rows: Sequence[Row], x: Axis, y: Axis | None, colour: Axis, panels: Axis | None) -> alt.TopLevelMixin:
    """Draw which value of colour is best at each x and y: pale where it is not clearly ahead of each other one.

    Args:
        rows: with the names of x, y, colour and panels, and `clear` (bool).
        x: columns of tiles.
        y: rows of tiles.
        colour: what competes.
        panels: one map for each of its values.
    """
    count = min(len(panels.labels), COLUMNS) if panels else 1
    # Names of rows take more room than numbers.
    width = (panel_size(panels)[0] if panels else PAGE - _LEFT) - 60 // count
    shade = alt.Opacity(
        "lead:N",
        title="lead",
        sort=["clear", "not clear"],
        scale=alt.Scale(domain=["clear", "not clear"], range=[1.0, 0.35]),
    )
    data = [{**row, "lead": "clear" if row["clear"] else "not clear"} for row in rows]
    tiles = alt.Chart(chart_data(data, x=Axis(x.name, tuple(x.texts)), y=y, colour=colour, panel=panels))
    tiles = tiles.mark_rect(stroke="white", strokeWidth=1).encode(
        x=named(x, width), color=coloured(colour), opacity=shade
    )
    if y is not None:
        tiles = tiles.encode(y=alt.Y("y:N", sort=y.texts, title=format_name(y.name)))
    height = 24 * (len(y.labels) if y else 1)
    return finished(_in_panels(tiles.properties(width=width, height=height), panels))


def beside(rows: Sequence[Row], y: Axis, colour: Axis, panels: Axis | None, title: str) -> alt.TopLevelMixin:
    """Draw published and own numbers side by side.

    Args:
        rows: with the names of y, colour and panels, `value`, the ends `low` and `high` of its error, and `whose`
            ("published" or "ours").
        y: one line for each of its values.
        colour: one line and colour for each of its values within.
        panels: one panel for each of its values, each to its own scale.
        title: of the horizontal axis.
    """
    count = min(len(panels.labels), 2) if panels else 1
    whose = alt.Scale(domain=["published", "ours"], range=["circle", "cross"])
    base = alt.Chart(chart_data(rows, y=Axis(y.name, tuple(y.texts)), colour=colour, panel=panels)).encode(
        y=alt.Y("y:N", sort=y.texts, title=format_name(y.name)),
        yOffset=alt.YOffset("colour:N", sort=colour.texts),
        color=coloured(colour),
    )
    scale = alt.Scale(zero=False)
    points = base.mark_point(size=45, strokeWidth=1.6).encode(
        x=alt.X("value:Q", title=title, scale=scale), shape=alt.Shape("whose:N", title=None, scale=whose)
    )
    errors = base.mark_rule(strokeWidth=1.2).encode(x=alt.X("low:Q", title=title, scale=scale), x2="high:Q")
    both = alt.layer(errors, points).properties(width=(PAGE - 190) // count - _GAP, height=30 * len(y.labels))
    return finished(_in_panels(both, panels, shared=False))


def panel_size(panels: Axis | None) -> tuple[int, int]:
    """Return width and height of a panel, such that a row of panels fills the page; of one figure, half of it."""
    if panels is None:
        return HALF - _LEFT, 220
    count = min(len(panels.labels), COLUMNS)
    return (PAGE - _LEFT - _GAP * (count - 1)) // count, 220 if count < COLUMNS else 170


#: What rows have beside their coordinates.
_NUMBERS = ("mean", "low", "high", "new_low", "new_high", "estimate", "lead", "value", "whose")


def chart_data(rows: Sequence[Row], **roles: Axis | None) -> alt.Data:
    """Return the rows with the values of axes under the names of their roles: the name of an axis may hold a dot.

    Numbers that are drawn to scale stay numbers, all else becomes text.
    """
    values = []
    for row in rows:
        value = {name: row[name] for name in _NUMBERS if name in row}
        for role, axis in roles.items():
            if axis is not None:
                value[role] = row[axis.name] if role == "x" and axis.numeric else drawn(row[axis.name])
        values.append(value)
    return alt.Data(values=values)  # type: ignore[no-untyped-call]


def scaled(x: Axis, width: int) -> alt.X:
    """Draw numbers to scale, with a tick and its label for each of them."""
    numbers = sorted(float(label) for label in x.labels if isinstance(label, int | float))
    log = numbers[-1] >= 8 * numbers[0]
    scale = alt.Scale(type="log" if log else "linear", zero=False, nice=False, padding=8)
    thousands = all(number % 1000 == 0 for number in numbers)
    # As an expression, because Vega changes the precision of a plain format by the distance of the ticks: 4e+2 for 400.
    label = f"format(datum.value, '{'~s' if thousands else '.12~g'}')"
    texts = [f"{number / 1000:g}k" if thousands else f"{number:.12g}" for number in numbers]
    places = [math.log(number) if log else number for number in numbers]
    unit = (width - 16) / ((places[-1] - places[0]) or 1)
    gaps = [(after - before) * unit for before, after in pairwise(places)]
    # At some 6.5 pixels a letter. Slanted labels need the height of a line between them, upright ones a little less.
    wide = [6.5 * (len(one) + len(other)) / 2 + 4 for one, other in pairwise(texts)]
    turned: dict[str, Any] = {"labelOverlap": "greedy"}
    if all(gap >= each for gap, each in zip(gaps, wide, strict=True)):
        turned = {"labelOverlap": False}
    elif min(gaps) >= 16:
        turned = {"labelOverlap": False, "labelAngle": -45, "labelAlign": "right"}
    elif min(gaps) >= 11:
        turned = {"labelOverlap": False, "labelAngle": -90, "labelAlign": "right", "labelBaseline": "middle"}
    axis = alt.Axis(values=numbers, labelExpr=label, **turned)
    return alt.X("x:Q", title=format_name(x.name), scale=scale, axis=axis)


def named(x: Axis, width: int) -> alt.X:
    """Draw names side by side, slanted where they would overlap."""
    fits = 6.5 * max(map(len, x.texts)) < width / len(x.labels)
    return alt.X("x:N", title=format_name(x.name), sort=x.texts, axis=alt.Axis(labelAngle=0 if fits else -35))


def coloured(axis: Axis, without: str | None = None, title: str = "") -> alt.Color:
    """Give each value of an axis its colour.

    Args:
        axis: what competes.
        without: a value that is not drawn.
        title: of the legend; the name of the axis when left out.
    """
    colours = {text: PALETTE[place % len(PALETTE)] for place, text in enumerate(axis.texts) if text != without}
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color("colour:N", title=title or format_name(axis.name), scale=scale, legend=_legend(list(colours)))


def _shape(axis: Axis) -> alt.Shape:
    shapes = [SHAPES[place % len(SHAPES)] for place in range(len(axis.labels))]
    scale = alt.Scale(domain=axis.texts, range=shapes)
    return alt.Shape("colour:N", title=format_name(axis.name), scale=scale, legend=_legend(axis.texts))


def _legend(texts: Sequence[str]) -> alt.Legend:
    """Below the figure, in as many columns as half a page holds."""
    return alt.Legend(columns=max(1, min(len(texts), HALF // (40 + 7 * max(map(len, texts), default=0)))))


def _in_panels(chart: Any, panels: Axis | None, shared: bool = True) -> Any:
    if panels is None:
        return chart
    header = alt.Header(title=None)
    faceted = chart.facet(
        facet=alt.Facet("panel:N", sort=panels.texts, header=header),
        columns=min(len(panels.labels), COLUMNS if shared else 2),
    )
    return faceted if shared else faceted.resolve_scale(x="independent")


def finished(chart: Any) -> alt.TopLevelMixin:
    """Set fonts and colours that all figures share."""
    done: alt.TopLevelMixin = (
        chart.configure(font="Liberation Sans, Arial, Helvetica, sans-serif", background="white", padding=6)
        .configure_view(stroke="#bbbbbb")
        .configure_axis(
            labelFontSize=11, titleFontSize=12, titleFontWeight="normal", gridColor="#e6e6e6", labelColor="#222222",
            titleColor="#222222",
        )
        .configure_legend(
            labelFontSize=11, titleFontSize=11, titleFontWeight="normal", symbolOpacity=1, orient="bottom"
        )
        .configure_header(labelFontSize=12, labelColor="#000000")
    )  # fmt: skip
    return done

"""Figures of the report: charts in Vega-Lite made of rows, and the same charts as SVG, PNG and PDF.

Colours are those of Okabe and Ito (2008), which people with any common colour blindness tell apart, and two more at
the end; shapes repeat them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
#: Width of a page of A4 between margins of 15 mm, in CSS pixels.
PAGE = 680
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
    base = alt.Chart(_data(data, x=x, colour=colour, panel=panels))
    scale = alt.Scale(zero=False)
    middle: dict[str, Any] = {"y": alt.Y("mean:Q", title=format_name(y), scale=scale)}
    ends: dict[str, Any] = {"y": alt.Y("low:Q", title=format_name(y), scale=scale), "y2": alt.Y2("high:Q")}
    shaped: dict[str, Any] = {}
    if colour:
        middle["color"] = ends["color"] = _colour(colour)
        shaped["shape"] = _shape(colour)
    else:
        base = base.encode(color=alt.value(PALETTE[0]))
    if x.numeric:
        base = base.encode(x=_scaled(x))
        layers = [
            base.mark_area(opacity=0.18).encode(**ends),
            base.mark_line(strokeWidth=1.6).encode(**middle),
            base.mark_point(filled=True, size=28, opacity=1).encode(**middle, **shaped),
        ]
    else:
        if colour:
            base = base.encode(xOffset=alt.XOffset("colour:N", sort=colour.texts))
        base = base.encode(x=_named(x, width))
        layers = [
            base.mark_rule(strokeWidth=1.4).encode(**ends),
            base.mark_point(filled=True, size=36, opacity=1).encode(**middle, **shaped),
        ]
    return _finished(_in_panels(alt.layer(*layers).properties(width=width, height=height), panels))


def winners(rows: Sequence[Row], x: Axis, y: Axis | None, colour: Axis, panels: Axis | None) -> alt.TopLevelMixin:
    """Draw which value of colour is best at each x and y: pale where it is not clearly ahead of each other one.

    Args:
        rows: with the names of x, y, colour and panels, and `clear` (bool).
        x: columns of tiles.
        y: rows of tiles.
        colour: what competes.
        panels: one map for each of its values.
    """
    width, _ = panel_size(panels)
    shade = alt.Opacity(
        "lead:N",
        title="lead",
        sort=["clear", "not clear"],
        scale=alt.Scale(domain=["clear", "not clear"], range=[1.0, 0.35]),
    )
    data = [{**row, "lead": "clear" if row["clear"] else "not clear"} for row in rows]
    tiles = alt.Chart(_data(data, x=Axis(x.name, tuple(x.texts)), y=y, colour=colour, panel=panels))
    tiles = tiles.mark_rect(stroke="white", strokeWidth=1).encode(
        x=_named(x, width), color=_colour(colour), opacity=shade
    )
    if y is not None:
        tiles = tiles.encode(y=alt.Y("y:N", sort=y.texts, title=format_name(y.name)))
    height = 24 * (len(y.labels) if y else 1)
    return _finished(_in_panels(tiles.properties(width=width, height=height), panels))


def beside(rows: Sequence[Row], y: Axis, colour: Axis, panels: Axis | None, title: str) -> alt.TopLevelMixin:
    """Draw published and own numbers side by side.

    Args:
        rows: with the names of y, colour and panels, `value` and `whose` ("published" or "ours").
        y: one line for each of its values.
        colour: one line and colour for each of its values within.
        panels: one panel for each of its values, each to its own scale.
        title: of the horizontal axis.
    """
    count = min(len(panels.labels), 2) if panels else 1
    whose = alt.Scale(domain=["published", "ours"], range=["circle", "cross"])
    points = alt.Chart(_data(rows, y=Axis(y.name, tuple(y.texts)), colour=colour, panel=panels))
    points = points.mark_point(size=45, strokeWidth=1.6).encode(
        x=alt.X("value:Q", title=title, scale=alt.Scale(zero=False)),
        y=alt.Y("y:N", sort=y.texts, title=format_name(y.name)),
        yOffset=alt.YOffset("colour:N", sort=colour.texts),
        color=_colour(colour),
        shape=alt.Shape("whose:N", title=None, scale=whose),
    )
    points = points.properties(width=(PAGE - 190) // count - 20, height=30 * len(y.labels))
    return _finished(_in_panels(points, panels, shared=False))


def panel_size(panels: Axis | None) -> tuple[int, int]:
    """Return width and height of a panel, such that a row of panels with its legend fits a page."""
    count = min(len(panels.labels), COLUMNS) if panels else 1
    return {1: (430, 260), 2: (275, 190), 3: (180, 150)}[count]


def _data(rows: Sequence[Row], **roles: Axis | None) -> alt.Data:
    """The rows with the values of axes under the names of their roles: the name of an axis may hold a dot.

    Numbers that are drawn to scale stay numbers, all else becomes text.
    """
    values = []
    for row in rows:
        value = {name: row[name] for name in ("mean", "low", "high", "lead", "value", "whose") if name in row}
        for role, axis in roles.items():
            if axis is not None:
                value[role] = row[axis.name] if role == "x" and axis.numeric else drawn(row[axis.name])
        values.append(value)
    return alt.Data(values=values)  # type: ignore[no-untyped-call]


def _scaled(x: Axis) -> alt.X:
    numbers = sorted(label for label in x.labels if isinstance(label, int | float))
    far = numbers[-1] >= 8 * numbers[0]
    scale = alt.Scale(type="log" if far else "linear", zero=False, nice=False, padding=8)
    thousands = all(number % 1000 == 0 for number in numbers)
    # As an expression, because Vega changes the precision of a plain format by the distance of the ticks: 4e+2 for 400.
    label = f"format(datum.value, '{'~s' if thousands else '.12~g'}')"
    axis = alt.Axis(values=numbers, labelExpr=label, labelOverlap="greedy")
    return alt.X("x:Q", title=format_name(x.name), scale=scale, axis=axis)


def _named(x: Axis, width: int) -> alt.X:
    # At some 6.5 pixels a letter: do the labels fit side by side?
    fits = 6.5 * max(map(len, x.texts)) < width / len(x.labels)
    return alt.X("x:N", title=format_name(x.name), sort=x.texts, axis=alt.Axis(labelAngle=0 if fits else -35))


def _colour(axis: Axis) -> alt.Color:
    colours = [PALETTE[place % len(PALETTE)] for place in range(len(axis.labels))]
    scale = alt.Scale(domain=axis.texts, range=colours)
    return alt.Color("colour:N", title=format_name(axis.name), scale=scale)


def _shape(axis: Axis) -> alt.Shape:
    shapes = [SHAPES[place % len(SHAPES)] for place in range(len(axis.labels))]
    return alt.Shape("colour:N", title=format_name(axis.name), scale=alt.Scale(domain=axis.texts, range=shapes))


def _in_panels(chart: Any, panels: Axis | None, shared: bool = True) -> Any:
    if panels is None:
        return chart
    header = alt.Header(title=None)
    faceted = chart.facet(
        facet=alt.Facet("panel:N", sort=panels.texts, header=header),
        columns=min(len(panels.labels), COLUMNS if shared else 2),
    )
    return faceted if shared else faceted.resolve_scale(x="independent")


def _finished(chart: Any) -> alt.TopLevelMixin:
    done: alt.TopLevelMixin = (
        chart.configure(font="Liberation Sans, Arial, Helvetica, sans-serif", background="white", padding=6)
        .configure_view(stroke="#bbbbbb")
        .configure_axis(
            labelFontSize=10, titleFontSize=11, titleFontWeight="normal", gridColor="#e6e6e6", labelColor="#222222",
            titleColor="#222222",
        )
        .configure_legend(
            labelFontSize=10, titleFontSize=10, titleFontWeight="normal", symbolOpacity=1, orient="bottom"
        )
        .configure_header(labelFontSize=12, labelColor="#000000")
    )  # fmt: skip
    return done

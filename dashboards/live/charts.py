"""The grid and the curves of the live page in Vega-Lite, and their colours.

Plain dictionaries: making the same with Altair, which checks every part against its schema, took two thirds of the time
of a refresh. A test checks them against the schema. Labels reach Vega as data, or as JSON that an expression looks up,
and are drawn on a canvas: they cannot become HTML.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dashboards.live.watch import SHOWN
from orchestrator.results.format import format_short

#: Okabe & Ito, "Color Universal Design" (2008), https://jfly.uni-koeln.de/color/: told apart with any colour vision.
COLOURS = {
    "succeeded": "#009E73",
    "running": "#56B4E9",
    "pending": "#C9CCD1",
    "blocked": "#E69F00",
    "failed": "#D55E00",
}
#: Name of the selection that a click on a square makes.
CLICK = "square"
_INK, _PALE, _LINE = "#1F2933", "#F6F7F9", "#D5D9DF"
_FONT = "Source Sans, Source Sans Pro, sans-serif"
#: Pixels of a row below which there is no room for two lines in a square.
_LOW = 46
#: Pixels that the page gives to the grid and, at most, to the labels of its rows.
_WIDTH, _LABEL = 440, 150
#: Columns that have a label each.
_LABELS = 16

_Spec = dict[str, Any]


def grid_chart(
    tiles: pd.DataFrame,
    axes: tuple[str, str],
    labels: tuple[Sequence[str], Sequence[str]],
    measure: str | None,
    chosen: tuple[int, int] | None,
) -> _Spec:
    """Draw squares by two axes, as Vega-Lite; a click on one is the selection CLICK with its `column` and `row`.

    Without a measure a square says how many of its cells succeeded, over a bar of their statuses; with one it is
    coloured by the mean over its succeeded cells.

    Args:
        tiles: of `live.tiles.tiles`.
        axes: of columns and rows.
        labels: their labels.
        measure: what `tiles` has the mean of.
        chosen: the square (column, row) that is marked.
    """
    tiles = tiles.assign(
        left=tiles["column"] + 0.02, right=tiles["column"] + 0.98, top=tiles["row"] + 0.04, bottom=tiles["row"] + 0.96
    )
    height = min(max(420 // len(labels[1]), 30), 110)
    place = _place(axes, labels)
    room = (_WIDTH - min(7 * max(map(len, labels[1])), _LABEL)) / len(labels[0]), height
    inside = _statuses(tiles, place, room) if measure is None else _means(tiles, place, measure, room)
    text = {"labelColor": _INK, "titleColor": _INK}
    return {
        "height": height * len(labels[1]),
        "params": [
            {
                "name": CLICK,
                "select": {"type": "point", "fields": ["column", "row"], "on": "click", "toggle": False},
                "views": ["frame"],
            }
        ],
        "layer": [*inside, _frame(tiles, place, axes, measure, chosen)],
        "config": {
            "font": _FONT,
            "background": "transparent",
            "view": {"stroke": None},
            "axis": {"labelFontSize": 13, "titleFontSize": 14, "grid": False, "domain": False, "ticks": False, **text},
            "legend": {"labelFontSize": 12, "titleFontSize": 13, **text},
        },
    }


def curve_chart(curve: Mapping[str, Any]) -> _Spec:
    """Draw a curve of a training (`explain.views.Curve`, as JSON) over its steps, as Vega-Lite."""
    values = [{"step": step, "value": value} for step, value in zip(curve["steps"], curve["values"], strict=True)]
    axis = {"labelColor": _INK, "titleColor": _INK, "gridColor": _LINE, "domain": False, "ticks": False}
    scale = {"zero": False, "nice": False}
    return {
        "height": 180,
        "data": {"values": values},
        # Without points a curve of one step would not be seen.
        "mark": {"type": "line", "color": "#0072B2", "point": len(values) <= 50, "tooltip": True},
        "encoding": {
            "x": {"field": "step", "type": "quantitative", "scale": scale, "axis": {"title": "step", **axis}},
            "y": {"field": "value", "type": "quantitative", "scale": scale, "axis": {"title": curve["metric"], **axis}},
        },
        "config": {"font": _FONT, "background": "transparent", "view": {"stroke": None}},
    }


def _place(axes: tuple[str, str], labels: tuple[Sequence[str], Sequence[str]]) -> _Spec:
    """Encodings of a rectangle from `left` and `top` to `right` and `bottom`, in squares."""
    tilted = max(map(len, labels[0])) * min(len(labels[0]), _LABELS) > 75
    return {
        "x": _channel("left", axes[0], labels[0], {"orient": "top", "labelAngle": -35 if tilted else 0}),
        "y": _channel("top", axes[1], labels[1], {"orient": "left"}, reverse=True),
        "x2": {"field": "right"},
        "y2": {"field": "bottom"},
    }


def _channel(field: str, title: str, labels: Sequence[str], look: _Spec, **scale: bool) -> _Spec:
    # JSON is also a Vega expression; the label is looked up, never evaluated.
    expression = f"{json.dumps(list(labels))}[floor(datum.value)]"
    # Columns have no room for more labels; the tooltip of a square says its own.
    every = 1 if look["orient"] == "left" else math.ceil(len(labels) / _LABELS)
    values = [position + 0.5 for position in range(0, len(labels), every)]
    axis = {
        "title": title, "values": values, "labelExpr": expression,
        "labelLimit": _LABEL, "labelOverlap": False, "labelPadding": 6, "titlePadding": 10, **look,
    }  # fmt: skip
    domain = {"domain": [0, len(labels)], "nice": False, "zero": False, **scale}
    return {"field": field, "type": "quantitative", "scale": domain, "axis": axis}


def _statuses(tiles: pd.DataFrame, place: _Spec, room: tuple[float, int]) -> list[_Spec]:
    """A number over a bar of statuses; the bar alone where there is little room."""
    upto = tiles[list(SHOWN)].cumsum(axis=1).div(tiles["cells"], axis=0)
    begins = upto.shift(axis=1, fill_value=0.0)
    low = room[1] < _LOW
    parts = [
        pd.DataFrame(
            {
                "status": status,
                "left": tiles["column"] + 0.05 + 0.9 * begins[status],
                "right": tiles["column"] + 0.05 + 0.9 * upto[status],
                "top": tiles["row"] + (0.12 if low else 0.6),
                "bottom": tiles["row"] + 0.88,
            }
        )[tiles[status] > 0]
        for status in SHOWN
    ]
    scale = {"domain": list(COLOURS), "range": list(COLOURS.values())}
    colour = {"field": "status", "type": "nominal", "scale": scale, "legend": None}
    layers = [
        _layer(tiles, {"type": "rect", "fill": _PALE, "cornerRadius": 3}, place),
        _layer(pd.concat(parts), {"type": "rect"}, {**place, "color": colour}),
    ]
    if not low:
        texts = [f"{done:,} / {whole:,}" for done, whole in zip(tiles["succeeded"], tiles["cells"], strict=True)]
        layers += _text(tiles, place, texts, 0.34, 13, [_INK] * len(tiles), room)
    return layers


def _means(tiles: pd.DataFrame, place: _Spec, measure: str, room: tuple[float, int]) -> list[_Spec]:
    """A colour, the mean as a number, and over how many cells it is."""
    there, lowest, highest = tiles["n"] > 0, tiles["mean"].min(), tiles["mean"].max()
    if not there.any():
        lowest, highest = 0.0, 1.0
    if lowest == highest:
        # A scale needs two ends.
        lowest, highest = lowest - 0.5, highest + 0.5
    scale = {"scheme": "viridis", "domain": [float(lowest), float(highest)]}
    legend = {"title": ["mean", *_titled(measure)], "gradientLength": 160, "tickCount": 4, "format": "~g"}
    colour = {"field": "mean", "type": "quantitative", "scale": scale, "legend": legend}
    # Viridis is dark at its lower end.
    dark = there & ((tiles["mean"] - lowest) / (highest - lowest) < 0.6)
    ink = np.where(dark, "#FFFFFF", _INK).tolist()
    low = room[1] < _LOW
    layers = [
        _layer(tiles[~there], {"type": "rect", "fill": _PALE, "cornerRadius": 3}, place),
        _layer(tiles[there], {"type": "rect", "cornerRadius": 3}, {**place, "color": colour}),
        *_text(tiles, place, [format_short(mean) for mean in tiles["mean"]], 0.5 if low else 0.38, 14, ink, room),
    ]
    if not low:
        texts = [_of(n, whole) for n, whole in zip(tiles["n"], tiles["cells"], strict=True)]
        layers += _text(tiles, place, texts, 0.72, 11, ink, room)
    return layers


def _frame(
    tiles: pd.DataFrame, place: _Spec, axes: tuple[str, str], measure: str | None, chosen: tuple[int, int] | None
) -> _Spec:
    """What lies over everything, takes the clicks, shows the numbers as a tooltip, and marks the chosen square."""
    hints = [{"field": field, "title": axis} for field, axis in zip(("x", "y"), axes, strict=True)]
    hints += [{"field": field, "title": field} for field in ("cells", *SHOWN)]
    if measure is not None:
        hints += [{"field": "mean", "title": f"mean {measure}", "format": ".4~g"}]
        hints += [{"field": "sd", "title": "sd over cells", "format": ".3~g"}]
    marked = [spot == chosen for spot in zip(tiles["column"], tiles["row"], strict=True)]
    tiles = tiles.assign(line=np.where(marked, _INK, _LINE), thick=np.where(marked, 2.5, 1.0))
    encoding = {
        **place,
        "stroke": {"field": "line", "type": "nominal", "scale": None},
        "strokeWidth": {"field": "thick", "type": "quantitative", "scale": None},
        "tooltip": [{"type": "quantitative" if "format" in hint else "nominal", **hint} for hint in hints],
    }
    mark = {"type": "rect", "fill": "white", "fillOpacity": 0.001, "cornerRadius": 3, "cursor": "pointer"}
    return {"name": "frame", **_layer(tiles, mark, encoding)}


def _text(
    tiles: pd.DataFrame,
    place: _Spec,
    texts: Sequence[str],
    down: float,
    size: int,
    ink: Sequence[str],
    room: tuple[float, int],
) -> list[_Spec]:
    """One line in the middle of each square, if all of them find room; the tooltip has it anyway."""
    # Letters are about half as wide as high.
    if max(map(len, texts), default=0) * size * 0.52 > room[0]:
        return []
    frame = pd.DataFrame({"x": tiles["column"] + 0.5, "y": tiles["row"] + down, "text": texts, "ink": ink})
    encoding = {
        # With the same axes as the squares: Vega-Lite merges those of all layers.
        "x": {**place["x"], "field": "x"},
        "y": {**place["y"], "field": "y"},
        "text": {"field": "text", "type": "nominal"},
        "color": {"field": "ink", "type": "nominal", "scale": None},
    }
    return [_layer(frame, {"type": "text", "fontSize": size}, encoding)]


def _layer(frame: pd.DataFrame, mark: Mapping[str, Any], encoding: Mapping[str, Any]) -> _Spec:
    # JSON has no NaN.
    values = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return {"data": {"values": values}, "mark": dict(mark), "encoding": dict(encoding)}


def _titled(measure: str) -> list[str]:
    return [measure, "in s per cell"] if measure == "seconds" else [measure]


def _of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} cells" if part < whole else f"{whole:,} cells"

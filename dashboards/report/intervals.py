"""Charts of estimates with their intervals, and of shares."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from dashboards.report.figures import (
    PAGE,
    PALETTE,
    Axis,
    Row,
    chart_data,
    coloured,
    drawn,
    finished,
    format_name,
    named,
    panel_size,
    scaled,
)
from orchestrator.analysis.effect import Effect

#: Verdict -> colour.
VERDICTS = {"holds": "#009E73", "does not hold": "#D55E00", "undecided": "#0072B2", "not testable": "#999999"}
#: Pixels for the names of lines, and the height of a line of text.
_NAMES, _LINE = 250, 13
#: Pixels for the names of shares.
_SHARES = 320
#: Characters of a line of the name of a share.
_SHARE = 52
_THIN, _THICK = 1.2, 4.0


@dataclass(frozen=True)
class Panel:
    """Findings on one scale."""

    title: str
    rows: list[dict[str, Any]]
    """With `label`, `estimate`, `verdict`, and as far as there are such the ends of intervals and of a margin."""


def interval_ends(found: Effect) -> dict[str, float]:
    """Return the ends of the intervals of an effect, as far as there are any, under their names in the charts."""
    intervals = (("", found.fixed), ("new_", found.new))
    known = [(prefix, each) for prefix, each in intervals if each]
    return {f"{prefix}{end}": getattr(each, end) for prefix, each in known for end in ("low", "high")}


def findings_chart(panels: Sequence[Panel]) -> alt.TopLevelMixin:
    """Draw one line for each finding: estimate, both intervals, zero and margin, in the colour of its verdict."""
    there = {row["verdict"] for panel in panels for row in panel.rows}
    colours = {verdict: colour for verdict, colour in VERDICTS.items() if verdict in there}
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    charts = [_findings(panel, alt.Color("verdict:N", title="verdict", scale=scale)) for panel in panels]
    return finished(alt.vconcat(*charts, spacing=14).resolve_scale(color="shared"))


def _findings(panel: Panel, colour: alt.Color) -> Any:
    lines = max(row["label"].count("\n") + 1 for row in panel.rows)
    rows = [{**row, "label": _centred(row["label"], lines)} for row in panel.rows]
    labels = list(dict.fromkeys(row["label"] for row in rows))
    base = alt.Chart(alt.Data(values=rows))  # type: ignore[no-untyped-call]
    # Behind all marks: where there are rectangles, axes come before them.
    axis = alt.Axis(
        labelExpr="split(datum.label, '\\n')", minExtent=_NAMES, maxExtent=_NAMES, labelLimit=_NAMES, title=None,
        labelLineHeight=_LINE, labelOffset=-_LINE * (lines - 1) / 2, ticks=False, grid=True, zindex=0,
    )  # fmt: skip
    y = alt.Y("label:N", sort=labels, axis=axis)
    title, ticks = drawn(panel.title), alt.Axis(tickCount=7, labelFlush=False, zindex=0)

    def across(low: str, high: str) -> dict[str, Any]:
        return {"x": alt.X(f"{low}:Q", title=title, axis=ticks), "x2": alt.X2(f"{high}:Q"), "y": y}

    layers = [
        _with(base, "band_low").mark_rect(color="#bbbbbb", opacity=0.5).encode(**across("band_low", "band_high")),
        alt.Chart(alt.Data(values=[{"zero": 0}]))  # type: ignore[no-untyped-call]
        .mark_rule(color="#444444", strokeDash=[3, 3])
        .encode(x=alt.X("zero:Q", title=title)),
        _with(base, "new_low").mark_rule(strokeWidth=_THIN).encode(**across("new_low", "new_high"), color=colour),
        _with(base, "low").mark_rule(strokeWidth=_THICK, opacity=0.55).encode(**across("low", "high"), color=colour),
        base.mark_point(filled=True, size=55, opacity=1).encode(x=alt.X("estimate:Q", title=title), y=y, color=colour),
    ]
    step = max(22, _LINE * lines + 8)
    return alt.layer(*layers).properties(width=PAGE - _NAMES - 30, height=step * len(labels))


def _centred(label: str, lines: int) -> str:
    """Put empty lines above a label, so that it stands in the middle of so many."""
    return "\n" * ((lines - label.count("\n") - 1) // 2) + label


def _with(chart: Any, name: str) -> Any:
    """Only the rows that have a number of this name."""
    return chart.transform_filter(f"isValid(datum['{name}'])")


def differences_chart(rows: Sequence[Row], x: Axis, colour: Axis, first: str, metric: str) -> alt.TopLevelMixin:
    """Draw the differences of one value from each other one along an axis, with both intervals.

    Args:
        rows: with the names of x and colour, `estimate`, and as far as there are such the ends of intervals.
        x: along what.
        colour: what competes; one curve for each other value.
        first: the value that the others are subtracted from.
        metric: of which differences are.
    """
    width, height = panel_size(None)
    first = drawn(first)
    others = [text for text in colour.texts if text != first]
    key = coloured(colour, first, f"{first} minus")
    title = f"difference in {format_name(metric)}"
    horizontal = scaled(x, width) if x.numeric else named(x, width)
    base = alt.Chart(chart_data(rows, x=x, colour=colour)).encode(x=horizontal, color=key)
    zero = alt.Chart(alt.Data(values=[{"zero": 0}]))  # type: ignore[no-untyped-call]
    layers = [zero.mark_rule(color="#444444", strokeDash=[3, 3]).encode(y=alt.Y("zero:Q", title=title))]
    for place, other in enumerate(others):
        # Side by side, in pixels: a scale of numbers has no bands.
        shift = 7 * (place - (len(others) - 1) / 2)
        mine = base.transform_filter(alt.FieldEqualPredicate(field="colour", equal=other))
        for low, high, size, shade in (("new_low", "new_high", _THIN, 1.0), ("low", "high", _THICK, 0.55)):
            ends = {"y": alt.Y(f"{low}:Q", title=title), "y2": alt.Y2(f"{high}:Q")}
            layers.append(_with(mine, low).mark_rule(strokeWidth=size, opacity=shade, xOffset=shift).encode(**ends))
        point = {"y": alt.Y("estimate:Q", title=title)}
        if x.numeric:
            layers.append(mine.mark_line(strokeWidth=0.8, xOffset=shift).encode(**point))
        layers.append(mine.mark_point(filled=True, size=45, opacity=1, xOffset=shift).encode(**point))
    return finished(alt.layer(*layers).properties(width=width, height=height))


def shares_chart(parts: Sequence[tuple[str, float, str]]) -> alt.TopLevelMixin:
    """Draw shares as bars with their per cent.

    Args:
        parts: name, share and kind: "axis", "interaction" or "chance".
    """
    names = ["\n".join(textwrap.wrap(drawn(name), _SHARE)) for name, _, _ in parts]
    lines = max(name.count("\n") + 1 for name in names)
    names = [_centred(name, lines) for name in names]
    rows = [{"name": name, "share": share, "kind": kind} for name, (_, share, kind) in zip(names, parts, strict=True)]
    kinds = {"axis": PALETTE[0], "interaction": PALETTE[5], "chance": "#999999"}
    there = [kind for kind in kinds if kind in {kind for _, _, kind in parts}]
    axis = alt.Axis(
        labelExpr="split(datum.label, '\\n')",
        labelLineHeight=_LINE,
        labelLimit=_SHARES,
        minExtent=_SHARES,
        maxExtent=_SHARES,
        labelOffset=-_LINE * (lines - 1) / 2,
    )
    base = alt.Chart(alt.Data(values=rows)).encode(  # type: ignore[no-untyped-call]
        x=alt.X("share:Q", title="share of the variation between cells", axis=alt.Axis(format=".0%")),
        y=alt.Y("name:N", sort=names, title=None, axis=axis),
    )
    scale = alt.Scale(domain=there, range=[kinds[kind] for kind in there])
    bars = base.mark_bar(height=12).encode(color=alt.Color("kind:N", title=None, scale=scale))
    step = max(20, _LINE * lines + 3)
    return finished(bars.properties(width=PAGE - _SHARES - 30, height=step * len(rows)))

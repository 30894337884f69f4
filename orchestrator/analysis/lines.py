"""Lines of statistics as text, and their warnings."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.analysis.axis_effects import AxisEffect
from orchestrator.analysis.comparisons import Comparison
from orchestrator.results.format import format_interval, format_p_value, format_percent, format_signed, format_value


def format_comparison(each: Comparison) -> dict[str, str]:
    """Format a comparison: column -> text."""
    return {
        "difference": f"{each.a} - {each.b}",
        "mean": format_signed(each.difference),
        "interval (t)": format_interval(each.low, each.high),
        "interval (bootstrap)": format_interval(each.bootstrap_low, each.bootstrap_high),
        "effect size": format_signed(each.effect_size, 2),
        "p": format_p_value(each.p),
        "Holm p": format_p_value(each.holm_p),
        "seeds": str(each.seeds),
    }


def format_effect(each: AxisEffect) -> dict[str, str]:
    """Format the effect of an axis: column -> text."""
    return {
        "metric": each.metric,
        "axis": each.axis,
        "lowest at": format_value(each.lowest),
        "highest at": format_value(each.highest),
        "spread": format_value(each.spread),
        "seed noise": format_value(each.noise),
        "share": format_percent(each.share),
        "F": format_value(each.f),
        "p": format_p_value(each.p),
        "Holm p": format_p_value(each.holm_p),
    }


def distinct_warnings(found: Iterable[Comparison | AxisEffect]) -> list[str]:
    """Return each warning of some comparisons or effects once, with the axes that it is about if these are not all."""
    found = list(found)
    of_axes: dict[str, dict[str, None]] = {}
    for each in found:
        for part in filter(None, (each.warning or "").split("; ")):
            of_axes.setdefault(part, {})[each.axis] = None
    axes = {each.axis for each in found}
    return [part if axes <= of.keys() else f"{', '.join(of)}: {part}" for part, of in of_axes.items()]

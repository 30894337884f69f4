"""What `sweep compare` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from orchestrator.cli.console import console, say
from orchestrator.plan.select import spell_coords
from orchestrator.results.format import interval, p_value, percent, signed, spell
from orchestrator.results.statistics import AxisEffect, Comparison


def show(
    found: Sequence[Comparison] | Sequence[AxisEffect], warnings: Sequence[str], confidence: float, width: float | None
) -> None:
    """Comparisons or effects of axes, one a line, and what to beware of."""
    rows = [comparison_row(each, width) if isinstance(each, Comparison) else effect_row(each) for each in found]
    if rows:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for column in rows[0]:
            table.add_column(column, no_wrap=True)
        for row in rows:
            table.add_row(*(escape(value) for value in row.values()))
        console.print(table)
    tested = sum(each.holm_p is not None for each in found)
    notes = ["the seeds are the sample"]
    if any(isinstance(each, Comparison) and each.low is not None for each in found):
        notes = [f"intervals of {100 * confidence:g} %, not adjusted; the seeds are the sample"]
    notes[0] += f"; Holm over the {tested:,} lines with a p" if tested else "; no line has a p"
    if width is not None:
        notes.append(f"seeds for an interval {width:g} wide, were the spread over seeds what it is here")
    for note in notes:
        say(f"[dim]{note}[/]")
    if any(isinstance(each, AxisEffect) and each.warning for each in found):
        say("[dim]where cells are missing, the lines are of different cells, and their shares do not add up[/]")
    parts = (part for each in found for part in (each.warning or "").split("; ") if part)
    for warning in dict.fromkeys([*warnings, *parts]):
        say(f"[yellow]{escape(warning)}[/]")


def comparison_row(each: Comparison, width: float | None) -> dict[str, str]:
    """A comparison as text, column by column."""
    row = {
        "metric": each.metric,
        "difference": f"{each.a} - {each.b}",
        "at": spell_coords(each.at),
        "mean": signed(each.difference),
        "interval (t)": interval(each.low, each.high),
        "interval (bootstrap)": interval(each.bootstrap_low, each.bootstrap_high),
        "effect size": signed(each.effect_size, 2),
        "p": p_value(each.p),
        "Holm p": p_value(each.holm_p),
        "seeds": str(each.seeds),
    }
    if width is not None:
        row["seeds needed"] = "" if each.seeds_needed is None else f"{each.seeds_needed:,}"
    return row if each.at else {name: value for name, value in row.items() if name != "at"}


def effect_row(each: AxisEffect) -> dict[str, str]:
    """The effect of an axis as text, column by column."""
    return {
        "metric": each.metric,
        "axis": each.axis,
        "lowest at": spell(each.lowest),
        "highest at": spell(each.highest),
        "spread": "" if each.spread is None else f"{each.spread:.4g}",
        "seed noise": "" if each.noise is None else f"{each.noise:.2g}",
        "share": percent(each.share),
        "F": "" if each.f is None else f"{each.f:.3g}",
        "p": p_value(each.p),
        "Holm p": p_value(each.holm_p),
    }

"""What `sweep compare` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from orchestrator.cli.console import console, say
from orchestrator.plan.select import spell_coords
from orchestrator.results.axis_effects import AxisEffect
from orchestrator.results.comparisons import Comparison
from orchestrator.results.format import distinct_warnings, format_comparison, format_effect


def show(
    found: Sequence[Comparison] | Sequence[AxisEffect], warnings: Sequence[str], confidence: float, width: float | None
) -> None:
    """Comparisons or effects of axes, one a line, and what to beware of."""
    rows = [_comparison(each, width) if isinstance(each, Comparison) else format_effect(each) for each in found]
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
    for warning in dict.fromkeys([*warnings, *distinct_warnings(found)]):
        say(f"[yellow]{escape(warning)}[/]")


def _comparison(each: Comparison, width: float | None) -> dict[str, str]:
    row = format_comparison(each)
    at = {"at": spell_coords(each.at)} if each.at else {}
    row = {"metric": each.metric, "difference": row["difference"], **at, **row}
    if width is not None:
        row["seeds needed"] = "" if each.seeds_needed is None else f"{each.seeds_needed:,}"
    return row

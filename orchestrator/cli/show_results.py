"""What `sweep results` and `sweep compare` print for people, and the last lines of `sweep run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.analysis.lines import (
    format_comparison,
    format_effect,
    format_interaction,
    notes_of_comparisons,
    notes_of_effects,
    notes_of_interactions,
)
from orchestrator.cli.console import console, first_line, paragraph, say, table
from orchestrator.plan.select import format_coords
from orchestrator.results.format import format_value
from orchestrator.session import Session

if TYPE_CHECKING:
    import pyarrow as pa

    from orchestrator.analysis.axis_effects import AxisEffect
    from orchestrator.analysis.comparisons import Comparison
    from orchestrator.analysis.effect import Sample
    from orchestrator.analysis.interactions import Interaction
    from orchestrator.analysis.tested import Tested
    from orchestrator.results.best import Found


def show_summary(session: Session, summary: pa.Table, notes: Sequence[str] = ()) -> None:
    """Print means ± spread, what that spread is, what else is to be known, and what is not in them."""
    from orchestrator.analysis.summary import format_summary, key_columns, left_out, spread_of

    spelled = format_summary(summary)
    rows = [[format_value(value) for value in row.values()] for row in spelled.to_pylist()]
    console.print(table(spelled.column_names, rows, keys=key_columns(spelled)))
    say(spread_of(summary), style="dim")
    for note in [*notes, *left_out(summary)]:
        say(note, style="yellow")


def show_best(session: Session, found: Sequence[Found]) -> None:
    """Print the best trials of some studies, and how much each field matters where that can be told."""
    from orchestrator.results.best import best_table, importances

    show_summary(session, best_table(found))
    several = len(found[0].study.search.objective.metrics) > 1
    of = f" for {found[0].study.search.objective.metrics[0]}" if several else ""
    say(f"how much each field matters{of} ({found[0].study.search.importance.name}):", style="dim")
    for each in found:
        shares = importances(each.study)
        told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in (shares or {}).items())
        paragraph((each.study.name, "bold"), f": {told or 'unknown'}", indent=2)


def show_cells(session: Session, cells: Sequence[dict[str, Any]], metrics: Sequence[str] = ()) -> None:
    """Print one line per cell, with some metrics."""
    rows = []
    for cell in cells:
        seconds = "" if cell["seconds"] is None else f"{cell['seconds']:.1f}"
        coords = (format_value(cell[axis]) for axis in session.spec.axes)
        rows.append(
            [cell["cell_id"], *coords, cell["status"], *(format_value(cell[name]) for name in metrics), seconds]
        )
    console.print(table(["cell_id", *session.spec.axes, "status", *metrics, "seconds"], rows))


def show_answer(answer: pa.Table) -> None:
    """Print the rows that a query gave."""
    rows = [["null" if value is None else format_value(value) for value in row.values()] for row in answer.to_pylist()]
    console.print(table(answer.column_names, rows) if rows else "no rows")


def show_missing(table: pa.Table) -> None:
    """Print the cells that are missing, grouped by error, with an example and the path of its log."""
    from orchestrator.run.failures import error_groups

    rows = table.select(["status", "error_class", "error", "log"]).to_pylist()
    for status, kind, count, message, log in error_groups(tuple(row.values()) for row in rows):
        text = f": {first_line(message)}" if message else ""
        say(f"  {count} {status} ", (kind, "bold"), text)
        if log:
            say(f"    log: {log}")


def show_comparisons(found: Sequence[Comparison], sample: Sample, warnings: Sequence[str]) -> None:
    """Print comparisons of the values of an axis, one a line, and what to beware of."""
    rows = []
    for each in found:
        row = format_comparison(each, sample)
        rows.append({"metric": each.metric, "difference": row["difference"], "at": format_coords(each.at), **row})
    _show(rows, keys=3)
    if any(each.p is not None for each in found):
        paragraph((f"intervals of {100 * sample.confidence:g} %, not adjusted{_tested(found)}", "dim"))
    _beware([*warnings, *notes_of_comparisons(found)])


def show_interactions(found: Sequence[Interaction], sample: Sample) -> None:
    """Print how the difference between two values depends on the other axes, and where it clearly does."""
    from orchestrator.analysis.interactions import dependences, format_dependence

    groups = dependences(found)
    if not groups:
        return
    lines = [line for group in groups for line in group.lines]
    held = [each.at for each in lines if each.at]
    say("")
    say("the same difference at each value of the other axes:", style="bold")
    rows = []
    for each in lines:
        where = {"at": format_coords(each.at)} if held else {}
        rows.append({"metric": each.metric, **where, **format_interaction(each, sample)})
    _show(rows, keys=3 if held else 2)
    paragraph((f"less its mean: over the values of that axis, which is what is tested{_tested(lines)}", "dim"))
    for group in groups:
        if group.clear:
            at = f"at {format_coords(group.lines[0].at)} " if held else ""
            paragraph((f"{at}{format_dependence(group)}", "yellow"))
    _beware(notes_of_interactions(lines))


def show_effects(found: Sequence[AxisEffect], warnings: Sequence[str]) -> None:
    """Print how much each axis moves the metrics, and what to beware of."""
    if all(each.spread is None and each.share is None for each in found):
        say("no axis has results at two of its values; `sweep run` runs what is missing")
        _beware(warnings)
        return
    _show([format_effect(each) for each in found], keys=2 + any(each.at for each in found))
    said = "share: of the variation between cells, what an axis does by itself; with others: only together with others"
    if all(each.share is None for each in found):
        said = "shares of the variation are not computed while cells have no number"
    paragraph((f"{said}{_tested(found)}", "dim"))
    _beware([*warnings, *notes_of_effects(found)])


def _show(rows: Sequence[dict[str, str]], keys: int) -> None:
    if rows:
        console.print(table(list(rows[0]), [list(row.values()) for row in rows], keys))


def _tested(found: Sequence[Comparison] | Sequence[AxisEffect] | Sequence[Interaction]) -> str:
    tested = sum(each.holm_p is not None for each in found)
    return f"; Holm over the {tested:,} lines with a p" if tested else "; no line has a p"


def _beware(warnings: Sequence[str]) -> None:
    for warning in dict.fromkeys(warnings):
        paragraph((warning, "yellow"))


def show_claims(tested: Tested) -> None:
    """Print the verdict on each claim, its findings with their intervals, and what to beware of."""
    rows = [{"claim": each.claim, **tested.line(each)} for each in tested.findings]
    _show(rows, keys=3)
    colours = {"holds": "green", "does not hold": "red", "undecided": "yellow", "not testable": "dim"}
    say("")
    for name, verdict, findings in tested.claims:
        paragraph((name, "bold"), ": ", (verdict, colours[verdict]), ". ", f"{findings[0].statement}.")
        for reason in dict.fromkeys(each.reason for each in findings if each.reason):
            paragraph(reason, indent=2)
    tests = sum(each.p is not None for each in tested.findings)
    level = format_value((1 - tested.confidence) / 2)
    widest = f"{tested.new} where there are values of single ones" if tested.new else tested.fixed
    said = "no line has a p"
    if tests:
        said = (
            f"intervals of {100 * tested.confidence:g} %, not adjusted; Holm over the {tests:,} lines with a p, for "
            f"{widest}; a verdict needs a Holm p below {level}; power: the chance that the same sweep, run anew, would "
            "find it again"
        )
    paragraph((said, "dim"))
    _beware(tested.notes)

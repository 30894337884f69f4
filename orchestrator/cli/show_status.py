"""What `sweep status` prints for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from orchestrator.cli.console import console, counted, first_line, table
from orchestrator.explain.eta import Eta, format_left
from orchestrator.explain.other_code import OtherCode, format_other_code
from orchestrator.explain.status import status, watch_status
from orchestrator.session import Session

#: Studies that are shown.
_STUDIES = 20


def show_status(session: Session, watch: bool) -> None:
    """Print the states of steps and cells, and errors in groups; with `watch` until no driver is running."""
    if not watch:
        console.print(_status(session, status(session)))
    elif not console.is_terminal:
        for report in watch_status(session):
            console.print(_status(session, report))
    else:
        with Live(console=console, auto_refresh=False) as live:
            for report in watch_status(session):
                live.update(_status(session, report, fold=True), refresh=True)


def _status(session: Session, report: Mapping[str, Any], fold: bool = False) -> Group:
    """Lay out a status; with `fold` for a live display, which would cut long lines: it may not leave them to wrap."""
    states = ("total", "committed", "running", "pending", "failed", "blocked")
    rows = []
    for name, each in report["steps"].items():
        rate = f"{each['per_minute']:.3g}" if each["per_minute"] else ""
        seconds = "" if each["seconds"] is None else f"{each['seconds']:.3g} s"
        rows.append([name, *(f"{each[state]:,}" if each[state] else "" for state in states), rate, seconds])
    cells = ", ".join(f"{count:,} {status}" for status, count in report["cells_by_status"].items())
    more = f"{', ' if cells else ''}up to {report['may_come']:,} more" if report["may_come"] else ""
    lines = [Text(f"{counted(report['cells'], 'cell')}: {cells}{more}")]
    if report["live"]:
        other = "with another version of this sweep (its file was changed, or -s differs)"
        left = report["left"]
        told = f": {format_left(Eta(**left), report['may_come'])}" if left else f" {other}"
        lines.append(Text(f"a driver is running{told}"))
    lines += [Text(format_other_code(session, OtherCode(**each)), style="yellow") for each in report["other_code"]]
    for place, reason in report["sick"].items():
        lines.append(Text(f"{place} gets no work until a probe succeeds there: {reason}", style="yellow"))
    for each in report["errors"]:
        reason = f"{each['error_class']}: {first_line(each['example'])}"
        lines.append(Text.assemble((f"{each['cells']} {each['status']}", "red"), f" {reason}"))
        if each["log"]:
            lines.append(Text(f"    log: {each['log']}"))
    lines.append(Text(f"table: {session.outputs.results}"))
    steps = table(["stage", *states, "per minute", "each"], rows)
    if fold:
        for line in lines:
            line.no_wrap, line.overflow = False, "fold"
    return Group(steps, *_studies(report["studies"]), *lines)


def _studies(studies: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    """Lay out what became of the trials of studies, those that go on first."""
    shown = sorted(studies, key=lambda each: not each["may_come"])[:_STUDIES]
    rows = []
    for each in shown:
        counts = [f"{count:,}" if count else "" for count in each["trials"].values()]
        rows.append(
            [each["study"], f"{each['budget']:,}", *counts, f"{each['may_come']:,}" if each["may_come"] else ""]
        )
    found: list[RenderableType] = []
    if rows:
        found += ["", table(["study", "trials", *shown[0]["trials"], "cells to come"], rows)]
    if len(studies) > len(shown):
        found.append(f"and {len(studies) - len(shown):,} more studies; `sweep best` shows all")
    return [*found, ""] if found else []

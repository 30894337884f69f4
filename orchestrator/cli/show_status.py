"""What `sweep status` prints for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.text import Text

from orchestrator.cli.console import console, first_line, table
from orchestrator.explain.eta import Eta, format_eta
from orchestrator.explain.other_code import OtherCode, format_other_code
from orchestrator.explain.status import status, watch_status
from orchestrator.session import Session


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
    lines = [Text(f"{report['cells']:,} cells: {cells}")]
    if report["live"]:
        other = "with another version of this sweep (its file was changed, or -s differs)"
        left = report["left"]
        lines.append(Text(f"a driver is running{f': {format_eta(Eta(**left))}' if left else f' {other}'}"))
    lines += [Text(format_other_code(session, OtherCode(**each)), style="yellow") for each in report["other_code"]]
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
    return Group(steps, *lines)

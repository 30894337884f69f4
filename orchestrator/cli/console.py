"""What the commands print for people."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from orchestrator.explain.eta import Eta, format_eta
from orchestrator.plan.select import spell_coords
from orchestrator.session import Session

if TYPE_CHECKING:
    import pyarrow as pa


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Discard what is printed from now on, and raise the error; Rich would end the process, and a run in it."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


console = _Console(soft_wrap=True, highlight=False)
if not console.is_terminal:
    # A log or a pipe has no edge at which a table would have to be cut off.
    console = _Console(soft_wrap=True, highlight=False, width=240)


def say(text: str) -> None:
    """Print a line."""
    console.print(text)


@contextlib.contextmanager
def spinner(text: str) -> Iterator[None]:
    """Show that something takes a moment."""
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


@contextlib.contextmanager
def bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the remaining time; gives a function of (done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def show_plan(session: Session, report: dict[str, Any]) -> None:
    """Cells and steps of a plan, their expected cost, and why they are to be run."""
    axes = " × ".join(f"{len(session.spec.labels(axis))} {axis}" for axis in session.spec.axes)
    say(f"[bold]{session.spec.name}[/]: {escape(session.spec.question)}")
    say(f"{report['cells']:,} cells ({axes})")
    steps, expected = report["steps"], report["expected"]
    counts = [
        "total",
        "committed",
        "to_run",
        *(each for each in ("failed", "blocked") if any(s[each] for s in steps.values())),
    ]
    costs = any("expected" in each for each in steps.values())
    headings = [("steps" if each == "total" else each.replace("_", " ")) for each in counts]
    table = _table("stage", *headings, *(("each", "CPU-hours", "GPU-hours", "disk") if costs else ()))
    for name, each in steps.items():
        cost = each.get("expected")
        row = _cost(cost, cost["unknown"]) if cost else ("?",) * 4 if each["to_run"] else ("",) * 4
        seconds = f"{cost['seconds']:.3g} s" if cost else row[0]
        table.add_row(name, *(f"{each[column]:,}" for column in counts), *((seconds, *row[-3:]) if costs else ()))
    table.add_section()
    total = [f"{sum(each[column] for each in steps.values()):,}" for column in counts]
    table.add_row("all", *total, *(("", *_cost(expected, expected["unknown_steps"])) if costs else ()))
    console.print(table)
    low, high = expected["wall_seconds"]
    eta = Eta(low, high, expected["unknown_steps"], expected["steps"])
    if costs:
        told = "told from finished steps of the same models, data and settings"
        say(f"on these machines (--cpus, --gpus): {format_eta(eta)}; {told}")
    elif eta.steps:
        say(f"{format_eta(eta)}: none of the same models, data and settings has finished")
    reasons = [(name, reason, count) for name, each in steps.items() for reason, count in each["reasons"].items()]
    if any(reason != "never run" for _, reason, _ in reasons):
        say("why they are to be run:")
        for name, reason, count in reasons:
            say(f"  {name} {count:,}: {escape(reason)}")
    say(f"store: {session.outputs.store}")


def show_status(session: Session, watch: bool) -> None:
    """States of steps and cells, and errors in groups; redrawn until no driver is running if it is to be watched."""
    from orchestrator.explain.status import status, watch_status

    if not watch:
        console.print(_status(session, status(session)))
    elif not console.is_terminal:
        for report in watch_status(session):
            console.print(_status(session, report))
    else:
        with Live(console=console, auto_refresh=False) as live:
            for report in watch_status(session):
                live.update(_status(session, report), refresh=True)


def _status(session: Session, report: dict[str, Any]) -> Group:
    columns = ("total", "committed", "running", "pending", "failed", "blocked")
    timed = report["live"]
    table = _table("stage", *columns, *(("per minute", "each") if timed else ()))
    for name, each in report["steps"].items():
        rate = [f"{each['per_minute']:.3g}" if each["per_minute"] else ""]
        seconds = ["" if each["seconds"] is None else f"{each['seconds']:.3g} s"]
        row = (f"{each[column]:,}" if each[column] else "" for column in columns)
        table.add_row(name, *row, *(rate + seconds if timed else ()))
    cells = ", ".join(f"{count:,} {status}" for status, count in report["cells_by_status"].items())
    lines = [f"{report['cells']:,} cells: {cells}"]
    if timed:
        lines.append(f"a driver is running: {format_eta(Eta(**report['left']))}")
    for each in report["errors"]:
        reason = f"{escape(each['error_class'])}: {escape(_first(each['example']))}"
        lines.append(f"[red]{each['cells']} {each['status']}[/] {reason}")
        lines.append(f"    log: {each['log']}")
    lines.append(f"table: {session.outputs.results}")
    return Group(table, *(Text.from_markup(line) for line in lines))


def show_summary(session: Session, summary: pa.Table) -> None:
    """Mean ± spread, what that is, and what is not in it."""
    from orchestrator.results.summary import for_people, left_out, spread_of

    spelled = for_people(summary)
    table = _table(*spelled.column_names, left=spelled.column_names.index("cells"))
    for row in spelled.to_pylist():
        table.add_row(*(escape(str(value)) for value in row.values()))
    console.print(table)
    say(f"[dim]{spread_of(summary)}[/]")
    for note in left_out(summary):
        say(f"[yellow]{escape(note)}[/]")


def show_cells(session: Session, rows: Sequence[dict[str, Any]], metrics: Sequence[str] = ()) -> None:
    """One line per cell, with some metrics."""
    from orchestrator.results.format import spell

    table = _table("cell_id", *session.spec.axes, "status", *metrics, "seconds", left=len(session.spec.axes) + 2)
    for row in rows:
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
        coords = (str(row[axis]) for axis in session.spec.axes)
        table.add_row(row["cell_id"], *coords, row["status"], *(spell(row[name]) for name in metrics), seconds)
    console.print(table)


def show_missing(table: pa.Table, chosen: set[str]) -> None:
    """Cells that are missing, grouped by error, with an example and the path of its log."""
    from orchestrator.results.table import error_groups

    rows = table.select(["cell_id", "status", "error_class", "error", "log"]).to_pylist()
    kept = (tuple(row.values())[1:] for row in rows if row["cell_id"] in chosen)
    for status, kind, count, message, log in error_groups(kept):
        text = f": {escape(_first(message))}" if message else ""
        say(f"  {count} {status} [bold]{escape(kind)}[/]{text}")
        if log:
            say(f"    log: {log}")


def show_explanation(session: Session, explanation: dict[str, Any]) -> None:
    """All that is known of one cell."""
    say(f"[bold]{explanation['cell_id']}[/] {explanation['status']}  {escape(spell_coords(explanation['coords']))}")
    table = _table("stage", "state", "because", "key", "shared by", "attempts", "seconds", left=4)
    for step in explanation["steps"]:
        last = step["attempts"][-1] if step["attempts"] else None
        table.add_row(
            step["entry"],
            step["state"],
            step["because"] or "",
            step["key"][:16],
            f"{step['cells']} cells",
            str(len(step["attempts"]) or ""),
            f"{last['seconds']:.1f}" if last else "",
        )
    console.print(table)
    if explanation["error"]:
        say(f"[red]{escape(explanation['error_class'])}[/]: {escape(explanation['error'])}")
        say(f"log: {explanation['log']}")
    which = "last step here again, committing nothing" if explanation["status"] == "succeeded" else "next step here"
    say(f"run its {which}: {escape(session.command('debug', explanation['cell_id']))}")


def _table(*columns: str, left: int = 1) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right", no_wrap=True)
    return table


def _cost(cost: Mapping[str, Any], unknown: int) -> tuple[str, str, str]:
    """CPU-hours, GPU-hours and disk; what is unknown comes on top."""
    more = "≥ " if unknown else ""
    size, gpu_hours = cost["bytes"], cost["gpu_hours"]
    disk = f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
    return f"{more}{cost['cpu_hours']:.3g}", f"{more}{gpu_hours:.3g}" if gpu_hours or unknown else "", f"{more}{disk}"


def _first(text: str) -> str:
    lines = text.splitlines()
    return lines[0][:300] if lines else ""

"""What the commands that look after the store print for people."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from orchestrator.attempt.rerun import Rerun, Verdict
from orchestrator.cli import console as screen
from orchestrator.session import Session
from orchestrator.types import Step

say = screen.say


@contextlib.contextmanager
def bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the remaining time; gives a function of (done, total)."""
    with screen.bar(text) as advance:
        yield advance


def show_garbage(report: Mapping[str, Any], again: str) -> None:
    """Per stage what is kept and what goes, and the command that deletes it."""
    deleted = report["deleted"]
    table = _table("stage", "kept", "bytes", "deleted" if deleted else "to delete", "bytes")
    rows = report["stages"]
    total = {name: sum(row[name] for row in rows.values()) for name in ("kept", "kept_bytes", "delete", "delete_bytes")}
    for stage, row in rows.items():
        table.add_row(stage, *_counted(row))
    table.add_section()
    table.add_row("all", *_counted(total))
    screen.console.print(table)
    for name, count in report["pins"].items():
        say(f"pinned as {escape(name)}: {count:,} artifacts")
    if report["records"]:
        say(f"attempt records and logs of {report['records']:,} steps that no sweep has")
    if report["remains"]:
        size = decimal(report["remains_bytes"])
        say(f"{report['remains']:,} remains of damaged or unfinished artifacts, {size}")
    say(f"store: {report['store']}")
    nothing = not (total["delete"] or report["records"] or report["remains"])
    if nothing:
        say("nothing to delete")
    elif deleted:
        size = decimal(total["delete_bytes"] + report["remains_bytes"])
        say(f"{total['delete']:,} artifacts were deleted, {size}")
    else:
        say(f"nothing was deleted yet; this does it: {escape(again)}")
        say(
            "[dim]sweeps that are not named here, or were run with other values (-s), lose theirs; `sweep pin` keeps[/]"
        )


def show_pins(store: str, pins: Mapping[str, Mapping[str, int]]) -> None:
    """One line per pin."""
    if not pins:
        say(f"no pins in {store}; `sweep pin SWEEP.yaml` writes one")
        return
    table = _table("pin", "artifacts", "there")
    for name, row in pins.items():
        table.add_row(name, f"{row['artifacts']:,}", f"{row['there']:,}")
    screen.console.print(table)


def show_start(position: int, count: int, step: Step, seconds: float) -> None:
    """A step is about to run again; it prints nothing itself."""
    say(f"running again {position}/{count}: {step.entry} {step.key[:16]} (took {seconds:.1f} s)")


def show_reruns(reruns: Sequence[Rerun]) -> None:
    """How steps that ran again compare; metrics side by side where they differ."""
    for each in reruns:
        colour = "green" if each.verdict is Verdict.IDENTICAL else "yellow" if not each.metrics else "red"
        colour = "red" if each.error else colour
        say(f"[{colour}]{each.verdict}[/]  {each.entry} {each.stage}/{each.key}")
        if each.error:
            say(f"    {escape(each.error)}")
        if each.files:
            few = ", ".join(each.files[:5]) + (", …" if len(each.files) > 5 else "")
            say(f"    files that differ: {escape(few)}")
        if each.metrics:
            table = _table("    metric", "stored", "now")
            for name, (stored, now) in each.metrics.items():
                table.add_row(f"    {escape(name)}", _exact(stored), _exact(now))
            screen.console.print(table)
        if each.verdict is not Verdict.IDENTICAL:
            say(f"    made on {escape(each.host)} by code {each.code_commit}")


def show_findings(session: Session, report: Mapping[str, Any], reruns: Sequence[Rerun]) -> None:
    """What is damaged, what differs, and what to do."""
    for each in report["damaged"]:
        say(f"[red]damaged[/]  {each['entry']} {each['stage']}/{each['key']}: {escape(each['reason'])}")
    show_reruns(reruns)
    if not report["committed"]:
        say("nothing of it is committed yet")
        return
    read = f"{report['checked']:,} artifacts read ({decimal(report['bytes'])}), {len(report['damaged']):,} damaged"
    ran = Counter(str(each.verdict) for each in reruns)
    again = "; ".join(f"{count} {verdict}" for verdict, count in ran.items()) or "none"
    say(f"{read if report['checked'] else 'no bytes were read'}; steps run again: {again}")
    if len(reruns) < report["asked"]:
        say(f"{report['asked']} were asked for, but no other committed step has its inputs")
    if report["discarded"]:
        say(f"the damaged ones were set aside; this makes again what is needed: {escape(session.command('run'))}")
    elif report["damaged"]:
        say("with --discard the damaged ones are set aside, and the next `sweep run` makes again what is needed")
    if not report["fine"] and {each.verdict for each in reruns} & {Verdict.OTHER_BYTES, Verdict.DIFFERENT}:
        say("a --tolerance accepts metrics that differ by less, and other bytes")
    if report["fine"] and (report["checked"] or reruns):
        say("[green]all is as it was committed[/]")


def show_adoption(session: Session, report: Mapping[str, Any], reruns: Sequence[Rerun], again: str) -> None:
    """What can be taken over, the proof, and what became of it."""
    versions = f"{report['stage']} version {report['from_version']} → {report['to_version']}"
    if not report["to_adopt"]:
        say(f"{versions}: nothing to adopt; no step has an artifact of the old version and lacks the new one")
        return
    table = _table("stage", "to adopt")
    for name, count in report["to_adopt"].items():
        table.add_row(name, f"{count:,}")
    screen.console.print(table)
    show_reruns(reruns)
    for reason in report["damaged"]:
        say(f"[red]left out[/]: {escape(reason)}")
    run = escape(session.command("run"))
    if not report["proven"]:
        say(f"[red]{versions}: the output is not the same, nothing was adopted[/]; this makes it anew: {run}")
    elif report["adopted"]:
        say(f"{versions}: {report['adopted']:,} artifacts were adopted; check with: {escape(session.command('plan'))}")
    else:
        say(f"{versions}: the output is the same; nothing was adopted yet, this does it: {escape(again)}")


def _exact(value: float | None) -> str:
    return "none" if value is None else repr(value)


def _counted(row: Mapping[str, int]) -> tuple[str, ...]:
    return (
        f"{row['kept']:,}",
        decimal(row["kept_bytes"]),
        f"{row['delete']:,}" if row["delete"] else "",
        decimal(row["delete_bytes"]) if row["delete"] else "",
    )


def _table(*columns: str, left: int = 1) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right", no_wrap=True)
    return table

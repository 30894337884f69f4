"""What the commands that look after the store print for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.filesize import decimal

from orchestrator.attempt.rerun import Rerun, Verdict
from orchestrator.cli.console import console, say, step_name, table
from orchestrator.session import Session
from orchestrator.types import Artifact, Manifest, Step


def show_garbage(report: Mapping[str, Any], again: str) -> None:
    """Print per stage what is kept and what goes, and the command that deletes it."""
    deleted = report["deleted"]
    stages = report["stages"]
    total = {
        name: sum(row[name] for row in stages.values()) for name in ("kept", "kept_bytes", "delete", "delete_bytes")
    }
    rows = [[stage, *_counted(row)] for stage, row in (*stages.items(), ("all", total))]
    console.print(table(["stage", "kept", "bytes", "deleted" if deleted else "to delete", "bytes"], rows))
    for name, count in report["pins"].items():
        say(f"pinned as {name}: {count:,} artifacts")
    if report["records"]:
        say(f"attempt records and logs of {report['records']:,} steps that no named sweep has")
    if report["remains"]:
        size = decimal(report["remains_bytes"])
        say(f"remains of {report['remains']:,} damaged or unfinished artifacts, {size}")
    say(f"store: {report['store']}")
    nothing = not (total["delete"] or report["records"] or report["remains"])
    if nothing:
        say("nothing to delete")
    elif deleted:
        size = decimal(total["delete_bytes"] + report["remains_bytes"])
        say(f"{total['delete']:,} artifacts were deleted, {size}")
    else:
        say(f"nothing was deleted (dry run); to delete it: {again}")
        others = "artifacts of sweeps that are not named here, or were run with other values (-s), go too"
        say(f"{others}; `sweep pin` keeps them", style="dim")


def show_pins(store: str, pins: Mapping[str, Mapping[str, int]]) -> None:
    """Print one line per pin."""
    if not pins:
        say(f"no pins in {store}; `sweep pin SWEEP.yaml` writes one")
        return
    rows = [[name, f"{row['artifacts']:,}", f"{row['there']:,}"] for name, row in pins.items()]
    console.print(table(["pin", "artifacts", "there"], rows))


def show_rerun_start(position: int, count: int, step: Step, manifest: Manifest) -> None:
    """Print that a step is about to run again; it prints nothing itself."""
    name = step_name(step.entry, step.coords)
    say(f"running again {position}/{count}: {name} ({step.key[:16]}, took {manifest.seconds:.1f} s)")


def show_reruns(reruns: Sequence[Rerun]) -> None:
    """Print how steps that ran again compare; metrics side by side where they differ."""
    for each in reruns:
        colour = "green" if each.verdict is Verdict.IDENTICAL else "yellow" if not each.metrics else "red"
        colour = "red" if each.error else colour
        name = step_name(each.entry, each.coords)
        say((str(each.verdict), colour), f"  {name} ({each.stage}/{each.key})")
        if each.error:
            say(f"    {each.error}")
        if each.files:
            few = ", ".join(each.files[:5]) + (", …" if len(each.files) > 5 else "")
            say(f"    files that differ: {few}")
        if each.metrics:
            rows = [[f"    {metric}", _exact(stored), _exact(now)] for metric, (stored, now) in each.metrics.items()]
            console.print(table(["    metric", "stored", "now"], rows))
        if each.verdict is not Verdict.IDENTICAL:
            say(f"    made on {each.host} by code {each.code_commit}")


def show_findings(session: Session, report: Mapping[str, Any], reruns: Sequence[Rerun]) -> None:
    """Print what is damaged, what differs, and what to do."""
    for each in report["damaged"]:
        number = session.plan.number(Artifact(each["stage"], each["key"]))
        assert number is not None, "only steps of this plan are checked"
        name = step_name(each["entry"], session.plan.coords(number))
        say(("damaged", "red"), f"  {name} ({each['stage']}/{each['key']}): {each['reason']}")
    show_reruns(reruns)
    if not report["committed"]:
        say("none of its steps is committed yet")
        return
    read = f"{report['checked']:,} artifacts read ({decimal(report['bytes'])}), {len(report['damaged']):,} damaged"
    ran = Counter(str(each.verdict) for each in reruns)
    again = "; ".join(f"{count} {verdict}" for verdict, count in ran.items()) or "none"
    say(f"{read if report['checked'] else 'no bytes were read'}; steps run again: {again}")
    if len(reruns) < report["asked"]:
        why = "no other step is committed with all of its inputs and runs under this interpreter"
        say(f"{report['asked']} were requested, but {why}")
    if report["discarded"]:
        say(f"the damaged ones were set aside; to recompute what is needed: {session.command('run')}")
    elif report["damaged"]:
        say("--discard sets the damaged ones aside, and the next `sweep run` recomputes what is needed")
    if not report["fine"] and {each.verdict for each in reruns} & {Verdict.OTHER_BYTES, Verdict.DIFFERENT}:
        say("--tolerance accepts metrics that differ by less, and files that are not byte-identical")
    if report["fine"] and (report["checked"] or reruns):
        say("all is as it was committed", style="green")


def show_adoption(session: Session, report: Mapping[str, Any], reruns: Sequence[Rerun], again: str) -> None:
    """Print what can be taken over, the proof, and what became of it."""
    raised = f"{report['stage']} version {report['from_version']} → {report['to_version']}"
    lost = ", ".join(f"{entry}.{name}" for entry, fields in report["was"].items() for name in fields)
    edited = ", ".join(report["edited"])
    parts = (raised if report["stage"] else "", edited and f"before {edited} changed", lost and f"without {lost}")
    versions = "; ".join(part for part in parts if part)
    if not report["to_adopt"]:
        say(f"{versions}: nothing to adopt: every step either has its artifact or had none under its former key")
        return
    console.print(table(["stage", "to adopt"], [[name, f"{count:,}"] for name, count in report["to_adopt"].items()]))
    show_reruns(reruns)
    for reason in report["damaged"]:
        say(("left out", "red"), f": {reason}")
    run = session.command("run")
    if not report["proven"]:
        say((f"{versions}: the output is not the same, nothing was adopted", "red"), f"; to recompute it: {run}")
    elif report["adopted"]:
        say(f"{versions}: {report['adopted']:,} artifacts were adopted; check with: {session.command('plan')}")
    else:
        say(f"{versions}: the output is the same; nothing was adopted (dry run); to adopt it: {again}")


def _exact(value: float | None) -> str:
    return "none" if value is None else repr(value)


def _counted(row: Mapping[str, int]) -> tuple[str, ...]:
    return (
        f"{row['kept']:,}",
        decimal(row["kept_bytes"]),
        f"{row['delete']:,}" if row["delete"] else "",
        decimal(row["delete_bytes"]) if row["delete"] else "",
    )

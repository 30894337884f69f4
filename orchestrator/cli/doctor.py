"""`sweep doctor`."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.sweep_command import Json, OutputRoot, Set, StoreRoot, TrackingUri

if TYPE_CHECKING:
    from orchestrator.doctor.finding import Finding

app = typer.Typer()


@app.command(
    rich_help_panel="Run",
    epilog="Example:\nsweep doctor\nsweep doctor s3://bucket/folder --json"
    "\nsweep doctor sweeps/full.yaml --address auto",
)
def doctor(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="URI",
            help="A sweep file, or an output root: a folder or the URI of one in an object store; default: "
            "SWEEP_OUTPUTS, else outputs/.",
            show_default=False,
        ),
    ] = None,
    overrides: Set = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="ADDRESS", help="Ray cluster to look at; default: RAY_ADDRESS, else none."),
    ] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Look at what sweeps rely on: store, this machine, services, and all nodes of a cluster; change nothing.

    Each line is ok, warning or wrong, and says what was seen; below the last two is what to do about it.

    Exit code: 0 nothing is wrong, 1 something is, 2 the sweep file or the place cannot be read.
    """
    from orchestrator.doctor.examination import examinations
    from orchestrator.doctor.finding import State
    from orchestrator.doctor.patient import admit

    patient = admit(target, overrides, outputs, store, address, tracking_uri)
    found: list[tuple[str, Finding]] = []
    with examinations(patient.subjects()) as begun:
        for each in begun:
            if not as_json:
                _show_title(each.title)
            for finding in each.findings(_show_waiting):
                found.append((each.title, finding))
                if not as_json:
                    _show(finding)
    counts = {str(state): sum(each.state is state for _, each in found) for state in State}
    if as_json:
        rows = [{"subject": title, **_to_json(each)} for title, each in found]
        print(json.dumps({"findings": rows, **counts}))
    else:
        _show_end(counts)
    raise typer.Exit(1 if counts["wrong"] else 0)


def _to_json(finding: Finding) -> dict[str, str]:
    return {name: str(value) for name, value in dataclasses.asdict(finding).items() if name != "last"}


def _show_title(title: str) -> None:
    from orchestrator.cli.console import paragraph

    paragraph((title, "bold"))


def _show_waiting(what: str) -> None:
    # Not where the answer goes.
    print(f"waiting for {what} …", file=sys.stderr, flush=True)


def _show(finding: Finding) -> None:
    from orchestrator.cli.console import paragraph

    colour = {"ok": "green", "warning": "yellow", "wrong": "red"}[finding.state]
    paragraph((f"{finding.state:<7}", colour), f" {finding.name}: {finding.seen}", indent=2, hanging=8)
    if finding.remedy:
        paragraph(f"→ {finding.remedy}", indent=10)


def _show_end(counts: dict[str, int]) -> None:
    from orchestrator.cli.console import paragraph

    paragraph(", ".join(f"{count} {state}" for state, count in counts.items()))

"""`sweep run`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.sweep_command import ErrorClass, MaxCells, TrackingUri, sweep_command
from orchestrator.command import repeat_options

if TYPE_CHECKING:
    from orchestrator.session import Session

app = typer.Typer()


@sweep_command(
    app,
    up_to=True,
    rich_help_panel="Run",
    epilog="Example:\nsweep run sweeps/quickstart.yaml\nsweep run sweeps/full.yaml --address auto --only seed=0",
)
def run(
    session: Session,
    tracking_uri: TrackingUri = None,
    address: Annotated[
        str | None, typer.Option("--address", metavar="ADDRESS", help="Ray cluster; default: RAY_ADDRESS, else local.")
    ] = None,
    inline: Annotated[bool, typer.Option("--inline", help="Run the steps one by one on this machine, no Ray.")] = False,
    error: ErrorClass = None,
    max_cells: MaxCells = None,
) -> None:
    """Run what is missing. The same command again resumes, retries what failed, adds new cells, or finds nothing to do.

    Exit code: 0 all that was asked for is done (--only, --stage, --max-cells), 1 cells are missing, 2 the sweep or its
    surroundings are wrong, 130 interrupted (Ctrl-C), 143 told to stop (SIGTERM).
    """
    from orchestrator.cli.show_run import run_and_show

    if error is not None or max_cells is not None:
        session = session.narrow(error, max_cells)
    places = {"--address": address, "--inline": inline, "--tracking-uri": tracking_uri}
    chosen = {"--stage": session.entry, "--error": error, "--max-cells": max_cells}
    session = replace(session, options=tuple(repeat_options({**places, **chosen})))
    raise typer.Exit(run_and_show(session, address, inline, tracking_uri, apart=True))

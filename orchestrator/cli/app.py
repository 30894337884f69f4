"""The `sweep` command."""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Annotated

import typer

from orchestrator.cli import look as cli_look
from orchestrator.cli import tidy as cli_store
from orchestrator.cli.run import run
from orchestrator.cli.sweep_command import (
    CellName,
    ErrorClass,
    Exclude,
    Json,
    MaxCells,
    Only,
    OutputRoot,
    Set,
    StoreRoot,
    SweepFile,
    TrackingUri,
    UpTo,
)
from orchestrator.cli.sync import sync
from orchestrator.explain.preview import preview
from orchestrator.session import open_session
from orchestrator.store import StoreError
from orchestrator.sweep.document import SweepError

app = typer.Typer(
    name="sweep",
    help="Large ablation sweeps over language-model alignment. One YAML file is one sweep; giving the same command "
    "again resumes, extends or confirms it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(
    rich_help_panel="Run", epilog="Example:  sweep plan sweeps/full.yaml    sweep plan sweeps/quickstart.yaml --json"
)
def plan(
    file: SweepFile,
    set_: Set = None,
    only: Only = None,
    exclude: Exclude = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    cpus: Annotated[
        float | None, typer.Option("--cpus", metavar="N", min=1, help="Cores of the cluster, for the wall time.")
    ] = None,
    gpus: Annotated[float, typer.Option("--gpus", metavar="N", min=0, help="GPUs of the cluster, likewise.")] = 0,
    as_json: Json = False,
) -> None:
    """Say what would run, why, and at what cost. Runs nothing.

    Cells; per stage the steps that are committed, to run, failed before or blocked by a failure; what the rest will
    probably cost, told from steps that were run before; and why steps are not there.
    """
    session = open_session(file, set_, only, exclude, outputs, store)
    report = preview(session, cpus, gpus)
    if as_json:
        print(json.dumps(report))
        return
    from orchestrator.cli import console as screen

    screen.show_plan(session, report)


app.command(
    rich_help_panel="Run",
    epilog="Example:  sweep run sweeps/quickstart.yaml    sweep run sweeps/full.yaml --address auto --only seed=0",
)(run)


@app.command(
    rich_help_panel="Run",
    epilog="Example:  sweep submit sweeps/full.yaml --address http://HEAD:8265 --outputs /shared/sweeps",
)
def submit(
    file: SweepFile,
    set_: Set = None,
    only: Only = None,
    exclude: Exclude = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    tracking_uri: TrackingUri = None,
    address: Annotated[
        str | None, typer.Option("--address", metavar="URL", help="Ray's job server; default: RAY_ADDRESS.")
    ] = None,
    stage: UpTo = None,
    error: ErrorClass = None,
    max_cells: MaxCells = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return once the job is submitted.")] = False,
    grace: Annotated[
        int, typer.Option("--grace", metavar="SECONDS", min=1, help="For running steps to end when the job is stopped.")
    ] = 60,
) -> None:
    """Run on a cluster: upload the working directory, run the sweep there as a Ray job, and print the job's log.

    Exit code: 0 the job succeeded, else that of `sweep run` in the job, 1 if Ray reports none (e.g. the
    job was stopped), 2 nothing was run, 130 no longer watching (Ctrl-C; the job goes on).
    """
    from orchestrator.cli.submit import submit as submit_job

    session = open_session(file, set_, only, exclude, outputs, store, stage)
    options = {
        "-s": set_, "--only": only, "--exclude": exclude, "--outputs": outputs, "--store": store,
        "--tracking-uri": tracking_uri, "--stage": stage, "--error": error, "--max-cells": max_cells,
    }  # fmt: skip
    raise typer.Exit(submit_job(session, options, address, not no_wait, grace))


@app.command(
    rich_help_panel="Run",
    epilog="Example:  sweep debug sweeps/quickstart.yaml 3f2a --stage fit    python -m pdb -m orchestrator debug …",
)
def debug(
    file: SweepFile,
    cell: CellName,
    stage: Annotated[
        str | None, typer.Option("--stage", metavar="ENTRY", help="Which step; default: the first that is missing.")
    ] = None,
    pdb: Annotated[bool, typer.Option("--pdb", help="Drop into the debugger where the step raises.")] = False,
    set_: Set = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
) -> None:
    """Run one step of a cell in this very process, output on the terminal, nothing caught and nothing committed."""
    from orchestrator.cli.debug import debug_step

    debug_step(open_session(file, set_, None, None, outputs, store), cell, stage, pdb)


app.command(
    rich_help_panel="Run", epilog="Example:  sweep sync sweeps/quickstart.yaml --tracking-uri http://127.0.0.1:5000"
)(sync)

app.add_typer(cli_look.app)
app.add_typer(cli_store.app)


def main() -> None:
    """Entry point: every expected mistake ends in a message and exit code 2, never in a traceback."""
    # A plan is a hundred thousand long-lived values without cycles; looking for garbage among them took a quarter of
    # the time of `sweep plan`.
    gc.set_threshold(100_000, 50, 50)
    try:
        app()
    except SweepError as error:
        count = len(error.problems)
        for problem in error.problems:
            print(problem, file=sys.stderr)
        print(f"{count} mistake{'s' if count != 1 else ''}; nothing was run", file=sys.stderr)
        sys.exit(2)
    except StoreError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # `sweep results | head`: the reader has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)

"""The `sweep` command: all commands, and how their errors end."""

from __future__ import annotations

import gc
import os
import sys
from typing import Annotated

import typer

from orchestrator.cli import debug, look, submit, tidy
from orchestrator.cli.sweep_command import (
    ErrorClass,
    Exclude,
    MaxCells,
    Only,
    OutputRoot,
    Set,
    StoreRoot,
    SweepFile,
    TrackingUri,
    UpTo,
)
from orchestrator.command import repeat_options
from orchestrator.session import open_session
from orchestrator.store import StoreError
from orchestrator.sweep.problems import SweepError

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
    rich_help_panel="Run",
    epilog="Example:  sweep run sweeps/quickstart.yaml    sweep run sweeps/full.yaml --address auto --only seed=0",
)
def run(
    file: SweepFile,
    set_: Set = None,
    only: Only = None,
    exclude: Exclude = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    tracking_uri: TrackingUri = None,
    address: Annotated[
        str | None, typer.Option("--address", metavar="ADDRESS", help="Ray cluster; default: RAY_ADDRESS, else local.")
    ] = None,
    inline: Annotated[bool, typer.Option("--inline", help="Run the steps one by one in this process, no Ray.")] = False,
    stage: UpTo = None,
    error: ErrorClass = None,
    max_cells: MaxCells = None,
) -> None:
    """Run what is missing. The same command again resumes, retries what failed, adds new cells, or says nothing to do.

    Exit code: 0 all cells succeeded, 1 cells are missing, 2 the sweep or its surroundings are wrong, 130 interrupted
    (Ctrl-C), 143 told to stop (SIGTERM).
    """
    from orchestrator.drive import drive

    session = open_session(file, set_, only, exclude, outputs, store, stage)
    if error is not None or max_cells is not None:
        session.narrow(error, max_cells)
    told = {"--address": address, "--inline": inline, "--tracking-uri": tracking_uri}
    chosen = {"--stage": stage, "--error": error, "--max-cells": max_cells}
    session.options = tuple(repeat_options({**told, **chosen}))
    raise typer.Exit(drive(session, address, inline, tracking_uri))


@app.command(
    rich_help_panel="Run", epilog="Example:  sweep sync sweeps/quickstart.yaml --tracking-uri http://127.0.0.1:5000"
)
def sync(
    file: SweepFile,
    set_: Set = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    tracking_uri: TrackingUri = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Delete MLflow's experiment, and write it anew from the table.")
    ] = False,
) -> None:
    """Bring MLflow up to date with the store: what is missing is written, what is there stays, never a duplicate.

    Exit code: 0 MLflow shows the table, 2 MLflow does not answer.
    """
    from orchestrator.cli import console as screen
    from orchestrator.drive import synchronise
    from orchestrator.results.parquet import write_results

    session = open_session(file, set_, None, None, outputs, store)
    if session.spec.tracking is False:
        screen.say("tracking: false in the sweep, nothing to do")
        return
    table = session.results().table()
    write_results(table, session.outputs.results)
    raise typer.Exit(0 if synchronise(session, table, tracking_uri, rebuild) else 2)


# In the order of the help.
for commands in (look, submit, debug, tidy):
    app.add_typer(commands.app)


def main() -> None:
    """Run the command; every expected mistake ends in a message and exit code 2, never in a traceback."""
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

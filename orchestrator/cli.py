"""The `sweep` command: loads, plans, runs, prints. Printing, Parquet and MLflow live here, not in the loop."""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.document import SweepError
from orchestrator.session import open_session
from orchestrator.store import StoreError

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

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep file.", show_default=False)]
CellName = Annotated[
    str, typer.Argument(metavar="CELL", help="A cell id (or its beginning), or axis=value,axis=value.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("-s", "--set", metavar="PATH=VALUE", help="Override a value, e.g. -s axes.seed=[0,1]. Repeatable."),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="AXIS=V1,V2", help="Only the cells with these values. Repeatable: all must hold."),
]
Exclude = Annotated[
    list[str] | None, typer.Option("--exclude", metavar="AXIS=V1,V2", help="Leave out the cells with these values.")
]
OutputRoot = Annotated[
    str | None, typer.Option("--outputs", metavar="DIR", help="Output root; default: store:, SWEEP_OUTPUTS, outputs/.")
]
StoreRoot = Annotated[
    str | None, typer.Option("--store", metavar="DIR", help="Artifact store; default: store/ below the output root.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
TrackingUri = Annotated[
    str | None,
    typer.Option("--tracking-uri", metavar="URI", help="MLflow; default: tracking.uri, MLFLOW_TRACKING_URI, SQLite."),
]


@app.command(epilog="Example:  sweep plan sweeps/full.yaml    sweep plan sweeps/quickstart.yaml --json")
def plan(
    file: SweepFile,
    set_: Set = None,
    only: Only = None,
    exclude: Exclude = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    as_json: Json = False,
) -> None:
    """Say what would run: cells, and per stage the steps that are committed or to run. Runs nothing."""
    session = open_session(file, set_, only, exclude, outputs, store)
    counts = session.plan_counts()
    if as_json:
        print(json.dumps({"cells": len(session.chosen), "steps": counts}))
        return
    from orchestrator import screen

    screen.show_plan(session, counts)


@app.command(
    epilog="Example:  sweep run sweeps/quickstart.yaml    sweep run sweeps/full.yaml --address auto --only seed=0"
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
    stage: Annotated[
        str | None, typer.Option("--stage", metavar="NAME", help="Run only what this entry of `stages` needs, and it.")
    ] = None,
    error: Annotated[
        str | None, typer.Option("--error", metavar="CLASS", help="Only the cells that ended with this error class.")
    ] = None,
    max_cells: Annotated[
        int | None, typer.Option("--max-cells", metavar="N", min=1, help="At most so many of the unfinished cells.")
    ] = None,
) -> None:
    """Run what is missing. The same command again resumes, retries what failed, adds new cells, or says nothing to do.

    Exit code: 0 all cells succeeded, 1 cells are missing, 2 the sweep or its surroundings are wrong, 130 interrupted
    (Ctrl-C), 143 told to stop (SIGTERM).
    """
    from orchestrator.drive import drive

    session = open_session(file, set_, only, exclude, outputs, store, stage)
    if error is not None or max_cells is not None:
        session.narrow(error, max_cells)
    raise typer.Exit(drive(session, address, inline, tracking_uri))


@app.command(epilog="Example:  sweep status sweeps/quickstart.yaml --json")
def status(
    file: SweepFile,
    set_: Set = None,
    only: Only = None,
    exclude: Exclude = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    as_json: Json = False,
) -> None:
    """Say where the sweep stands: per stage the steps in each state, cells by status, errors in groups."""
    session = open_session(file, set_, only, exclude, outputs, store)
    report = session.status()
    if as_json:
        print(json.dumps(report))
        return
    from orchestrator import screen

    screen.show_status(session, report)


@app.command(
    epilog="Example:  sweep results sweeps/quickstart.yaml --by reward_model,beta --metrics improvement,spearman"
)
def results(
    file: SweepFile,
    set_: Set = None,
    only: Only = None,
    exclude: Exclude = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    by: Annotated[str, typer.Option("--by", metavar="AXIS,AXIS", help="Axes of the rows.")] = "",
    metrics: Annotated[str, typer.Option("--metrics", metavar="NAME,NAME", help="Metrics of the columns.")] = "",
    cells: Annotated[bool, typer.Option("--cells", help="One line per cell instead of means.")] = False,
    as_json: Json = False,
) -> None:
    """Rebuild the Parquet table from the store and show means ± spread over seeds."""
    from orchestrator import screen
    from orchestrator.results import write_results
    from orchestrator.summary import summarise

    session = open_session(file, set_, only, exclude, outputs, store)
    table = session.results().table()
    write_results(table, session.outputs.results)
    if cells:
        rows = table.to_pylist()
        if as_json:
            print(json.dumps(rows))
        else:
            screen.show_cells(session, rows)
        return
    summary = summarise(table, session.spec, _names(by), _names(metrics))
    if as_json:
        print(json.dumps(summary.to_pylist()))
    else:
        screen.show_summary(session, summary)
        screen.say(f"table: {session.outputs.results}")


@app.command(
    epilog="Example:  sweep why sweeps/quickstart.yaml 3f2a    sweep why sweeps/full.yaml policy=gemma-2b,seed=0,…"
)
def why(
    file: SweepFile,
    cell: CellName,
    set_: Set = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    as_json: Json = False,
) -> None:
    """Explain a cell: coordinates, steps, keys, states, attempts, error, and how to run its next step by hand."""
    session = open_session(file, set_, None, None, outputs, store)
    explanation = session.explain(cell)
    if as_json:
        print(json.dumps(explanation))
        return
    from orchestrator import screen

    screen.show_explanation(explanation, _repeat_options(set_, outputs, store))


@app.command(
    epilog="Example:  sweep debug sweeps/quickstart.yaml 3f2a --stage fit    python -m pdb -m orchestrator debug …"
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
    from orchestrator.debug import debug_step

    debug_step(open_session(file, set_, None, None, outputs, store), cell, stage, pdb)


@app.command(epilog="Example:  sweep sync sweeps/quickstart.yaml --tracking-uri http://127.0.0.1:5000")
def sync(
    file: SweepFile,
    set_: Set = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Bring MLflow up to date with the store: what is missing is written, what is there stays, never a duplicate."""
    from orchestrator import screen
    from orchestrator.drive import synchronise
    from orchestrator.results import write_results

    session = open_session(file, set_, None, None, outputs, store)
    if session.spec.tracking is False:
        screen.say("tracking: false in the sweep, nothing to do")
        return
    table = session.results().table()
    write_results(table, session.outputs.results)
    raise typer.Exit(0 if synchronise(session, table, tracking_uri, again=True) else 2)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _repeat_options(set_: list[str] | None, outputs: str | None, store: str | None) -> list[str]:
    options = [each for text in set_ or () for each in ("-s", text)]
    options += ["--outputs", outputs] if outputs else []
    return options + (["--store", store] if store else [])


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

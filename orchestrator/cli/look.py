"""Commands of `sweep` that look at what there is, and change nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.sweep_command import (
    CellName,
    Json,
    OutputRoot,
    Set,
    StoreRoot,
    SweepFile,
    TrackingUri,
    need_page,
    sweep_command,
)

if TYPE_CHECKING:
    from orchestrator.session import Session

app = typer.Typer()


@sweep_command(
    app,
    rich_help_panel="Run",
    epilog="Example:\nsweep plan sweeps/full.yaml\nsweep plan sweeps/quickstart.yaml --json",
)
def plan(
    session: Session,
    cpus: Annotated[
        float | None, typer.Option("--cpus", metavar="N", min=1, help="CPU cores of the cluster, for the wall time.")
    ] = None,
    gpus: Annotated[
        float, typer.Option("--gpus", metavar="N", min=0, help="GPUs of the cluster, for the wall time.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Show what would run, why, and at what cost; run nothing.

    Cells; per stage the steps that are committed, to run, failed before, blocked, or may come; the estimated cost of
    the rest, from steps that were run before; and why steps are not there.
    """
    from orchestrator.explain.preview import preview

    report = preview(session, cpus, gpus)
    if as_json:
        print(json.dumps(report))
        return
    from orchestrator.cli.show_plan import show_plan

    show_plan(session, report)


@sweep_command(
    app,
    rich_help_panel="Look",
    epilog="Example:\nsweep status sweeps/quickstart.yaml\nsweep status sweeps/full.yaml --watch",
)
def status(
    session: Session,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until no driver is running.")] = False,
    as_json: Json = False,
) -> None:
    """Show the progress of the sweep: steps by stage and state with their rate, time left, cells, groups of errors.

    With --watch --json every refresh is one line of JSON.
    """
    if as_json:
        from orchestrator.explain.status import status as look
        from orchestrator.explain.status import watch_status

        for report in watch_status(session) if watch else [look(session)]:
            print(json.dumps(report), flush=True)
        return
    from orchestrator.cli.show_status import show_status

    show_status(session, watch)


@app.command(
    rich_help_panel="Look",
    epilog="Example:\nsweep dashboard sweeps/quickstart.yaml\nsweep dashboard sweeps/full.yaml --port 9000",
)
def dashboard(
    file: SweepFile,
    set_: Set = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    tracking_uri: TrackingUri = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", metavar="N", min=1, max=65535, help="Port; default: 8501, or a free one if it is taken."
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option("--host", metavar="HOST", help="0.0.0.0 opens it to the whole network, without a password."),
    ] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
) -> None:
    """Show the sweep live in the browser: grid, stages with rates, errors, resources, every cell (read-only)."""
    need_page("sweep dashboard", "live")
    from dashboards.live.server import serve
    from dashboards.live.watch import Subject, watch
    from orchestrator.sweep.document import read_document

    # The page shows a file that is gone as such; here it is a mistake.
    read_document(file)
    subject = Subject(file, tuple(set_ or ()), outputs, store, tracking_uri).dump()
    serve(subject, watch(subject).look().session.spec.name, host, port, not no_browser)


@sweep_command(
    app,
    cells=False,
    rich_help_panel="Look",
    epilog="Example:\nsweep why sweeps/quickstart.yaml 3f2a\nsweep why sweeps/full.yaml policy=gemma-2b,seed=0,beta=1",
)
def why(session: Session, cell: CellName, as_json: Json = False) -> None:
    """Explain a cell: coordinates, steps, keys, states, attempts, error, and how to run its next step by hand."""
    from orchestrator.explain.why import explain

    explanation = explain(session, cell)
    if as_json:
        print(json.dumps(explanation))
        return
    from orchestrator.cli.show_plan import show_explanation

    show_explanation(session, explanation)


@sweep_command(
    app,
    cells=False,
    rich_help_panel="Look",
    epilog="Example:\nsweep show sweeps/quickstart.yaml 3f2a\nsweep show sweeps/quickstart.yaml 3f2a --stage fit",
)
def show(
    session: Session,
    cell: CellName,
    stage: Annotated[
        str | None, typer.Option("--stage", metavar="ENTRY", help="Show only this entry, and all of it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a cell made: configs, metrics, curves, and a few of its texts with rewards and judgments."""
    from orchestrator.explain.shown import show as look

    shown = look(session, cell, stage)
    if as_json:
        print(json.dumps(shown))
        return
    from orchestrator.cli.show_cell import show_cell

    show_cell(shown, whole=stage is not None)

"""`sweep sync`: MLflow is made to show the results table, and a report is kept beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.sweep_command import TrackingUri, sweep_command
from orchestrator.command import repeat_options
from orchestrator.store import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

    from orchestrator.session import Session

app = typer.Typer()


@sweep_command(
    app,
    cells=False,
    rich_help_panel="Run",
    epilog="Example:\nsweep sync sweeps/quickstart.yaml --tracking-uri http://127.0.0.1:5000",
)
def sync(
    session: Session,
    tracking_uri: TrackingUri = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Delete MLflow's experiment, and write it anew from the table.")
    ] = False,
) -> None:
    """Bring MLflow up to date with the store: what is missing is written, what is there stays, never a duplicate.

    Exit code: 0 MLflow shows the table, 2 MLflow does not answer.
    """
    from orchestrator.cli import console

    if session.spec.tracking is False:
        console.say("tracking: false in the sweep, nothing to do")
        return
    raise typer.Exit(0 if synchronise(session, session.table(), tracking_uri, rebuild) else 2)


def synchronise(session: Session, table: pa.Table, tracking_uri: str | None, rebuild: bool = False) -> bool:
    """Make MLflow show exactly the finished, failed and blocked rows of a table; returns whether that worked.

    Args:
        session: the sweep.
        table: its results table.
        tracking_uri: MLflow, if not that of the sweep.
        rebuild: delete MLflow's experiment first.

    Raises:
        StoreError: the outbox cannot be written.
    """

    from orchestrator.cli import console
    from orchestrator.drive import summary_of
    from orchestrator.results.best import find_best
    from orchestrator.tracking.client import TrackingError
    from orchestrator.tracking.experiment import experiment_of
    from orchestrator.tracking.outbox import Outbox
    from orchestrator.tracking.publisher import post_table
    from orchestrator.tracking.runs import Projection
    from orchestrator.tracking.studies import draw
    from orchestrator.tracking.sync import sync_runs

    outbox, projection = Outbox(session.outputs.outbox), Projection(session.plan, session.studies)
    results = session.results() if session.spec.searched else None
    best = find_best(session.studies, results, session.cells) if results else []
    studies = session.studies.views(results) if results else []
    uri, summary = session.tracking_uri(tracking_uri), summary_of(session, table, best)
    try:
        for study in studies:
            draw(study, session.outputs.figures)
        experiment = experiment_of(projection, session.file, session.outputs, uri, summary, studies)
        post_table(projection, outbox, session.store, session.schedule.committed, table, exact=True)
    except OSError as error:
        raise StoreError(f"{outbox.folder} cannot be written: {error.strerror or error}") from error
    try:
        with console.bar("writing MLflow runs") as advance:
            synced = sync_runs(outbox, experiment, advance, rebuild)
    except TrackingError as error:
        console.say(str(error), style="yellow")
        again = session.command("sync", *repeat_options({"--tracking-uri": tracking_uri, "--rebuild": rebuild}))
        console.say(f"then: {again}")
        return False
    console.say(f"MLflow: {synced.created} runs written, {synced.replaced} replaced, {synced.unchanged} unchanged")
    return True


def keep_report(session: Session, folder: Path, tracking_uri: str | None) -> bool:
    """Make the files of a report artifacts of the sweep's run in MLflow; returns whether that worked."""

    from orchestrator.cli import console
    from orchestrator.tracking.client import TrackingError
    from orchestrator.tracking.experiment import experiment_of
    from orchestrator.tracking.outbox import Outbox
    from orchestrator.tracking.runs import Projection
    from orchestrator.tracking.sync import attach

    outbox = Outbox(session.outputs.outbox)
    uri = session.tracking_uri(tracking_uri)
    experiment = experiment_of(Projection(session.plan), session.file, session.outputs, uri)
    try:
        # A report of few cells has no figures.
        for place in filter(Path.is_dir, (folder, folder / "figures", folder / "tables")):
            files = sorted(file for file in place.iterdir() if file.is_file())
            attach(outbox, experiment, files, str(Path("report") / place.relative_to(folder)))
    except TrackingError as error:
        console.say(str(error), style="yellow")
        return False
    console.say("MLflow: the report is with the run of the sweep")
    return True

"""Commands of `sweep` that look at what there is, and change nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.sweep_command import (
    CellName,
    Exclude,
    Json,
    Metrics,
    Only,
    OutputRoot,
    Set,
    StoreRoot,
    SweepFile,
    TrackingUri,
    names,
)
from orchestrator.explain.why import explain
from orchestrator.results.format import SUFFIXES, Format
from orchestrator.session import Session, open_session
from orchestrator.sweep.document import Problem, SweepError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

app = typer.Typer()


@app.command(
    rich_help_panel="Look",
    epilog="Example:  sweep status sweeps/quickstart.yaml --json",
)
def status(
    file: SweepFile,
    set_: Set = None,
    only: Only = None,
    exclude: Exclude = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until no driver is running.")] = False,
    as_json: Json = False,
) -> None:
    """Say where the sweep stands: per stage the steps in each state and their rate, time left, cells, groups of errors.

    With --watch --json each look is a line of its own.
    """
    session = open_session(file, set_, only, exclude, outputs, store)
    if as_json:
        from orchestrator.explain.status import status as look
        from orchestrator.explain.status import watch_status

        for report in watch_status(session) if watch else [look(session)]:
            print(json.dumps(report), flush=True)
        return
    from orchestrator.cli import console as screen

    screen.show_status(session, watch)


@app.command(
    rich_help_panel="Look",
    epilog="Example:  sweep dashboard sweeps/quickstart.yaml    sweep dashboard sweeps/full.yaml --port 9000",
)
def dashboard(
    file: SweepFile,
    set_: Set = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    tracking_uri: TrackingUri = None,
    port: Annotated[
        int | None, typer.Option("--port", metavar="N", min=1, max=65535, help="Default: 8501, else a free one.")
    ] = None,
    host: Annotated[
        str,
        typer.Option("--host", metavar="HOST", help="0.0.0.0 shows it to the whole network, without a password."),
    ] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
) -> None:
    """Show the sweep in the browser, live: grid, stages with rates, errors, resources, every cell. Writes nothing."""
    from dashboards.live_data import Subject, watch
    from dashboards.live_server import serve

    subject = Subject(file, tuple(set_ or ()), outputs, store, tracking_uri).dump()
    serve(subject, watch(subject).look().session.spec.name, host, port, not no_browser)


@app.command(
    rich_help_panel="Look",
    epilog="Example:  sweep results sweeps/quickstart.yaml --by reward_model,beta --metrics improvement --output t.tex"
    "    … --sql 'select dataset, max(improvement) from results group by 1'",
)
def results(
    file: SweepFile,
    set_: Set = None,
    only: Only = None,
    exclude: Exclude = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    by: Annotated[str, typer.Option("--by", metavar="AXIS,AXIS", help="Axes of the rows.")] = "",
    metrics: Metrics = "",
    cells: Annotated[bool, typer.Option("--cells", help="One line per cell instead of means.")] = False,
    sql: Annotated[
        str | None,
        typer.Option("--sql", metavar="QUERY", help="DuckDB, of the table `results` alone, one row per cell."),
    ] = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="Default: what the name of --output says, else table.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write there instead of to the terminal.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Rebuild the Parquet table from the store, and show or export means ± sd over seeds, or what SQL asks for.

    Means are over the seeds' means, from complete blocks: cells that differ in nothing but the axes of --by, where none
    of these is missing. --only and --exclude narrow what is shown, not the Parquet table beside the store.
    """
    from orchestrator.cli import console as screen
    from orchestrator.results.summary import for_people, left_out, query, summarise

    if sql is not None:
        given = {"--by": bool(by), "--metrics": bool(metrics), "--cells": cells}
        _refuse(given, "has no effect beside --sql; say it in the query")
    elif cells:
        _refuse({"--by": bool(by)}, "has no effect beside --cells, which averages nothing")
    session = open_session(file, set_, only, exclude, outputs, store)
    form = _format(form, output, as_json)
    table = _rebuilt(session)
    if sql is not None:
        shown = query(table, sql)
    elif cells:
        shown = _with_metrics(table, names(metrics))
    else:
        shown = summarise(table, session.spec, names(by) or None, names(metrics))
        if as_json or form is not None:
            # Not on standard output, which is for the table.
            for note in left_out(shown):
                print(note, file=sys.stderr)
    if as_json:
        print(json.dumps(shown.to_pylist(), default=str))
    elif form is not None:
        people = form not in (Format.CSV, Format.PARQUET) and sql is None and not cells
        _hand_over(for_people(shown) if people else shown, form, output)
    elif sql is not None:
        _hand_over(shown, Format.TABLE, None)
    elif cells:
        screen.show_cells(session, shown.to_pylist(), names(metrics))
    else:
        screen.show_summary(session, shown)
        screen.say(f"table: {session.outputs.results}")


@app.command(
    rich_help_panel="Look",
    epilog="Example:  sweep compare sweeps/quickstart.yaml reward_model=clf_mlp,bt_mlp --within beta    "
    "sweep compare sweeps/quickstart.yaml",
)
def compare(
    file: SweepFile,
    values: Annotated[
        str | None,
        typer.Argument(
            metavar="AXIS=V1,V2",
            help="Values of an axis; AXIS alone: all of them. None: the effects of all axes.",
        ),
    ] = None,
    set_: Set = None,
    only: Only = None,
    exclude: Exclude = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    metrics: Metrics = "",
    within: Annotated[
        str, typer.Option("--within", metavar="AXIS,AXIS", help="Compare at each value of these, not on average.")
    ] = "",
    confidence: Annotated[
        float | None,
        typer.Option("--confidence", metavar="SHARE", min=0.5, max=0.999, help="Of the intervals. Default: 0.95."),
    ] = None,
    width: Annotated[
        float | None,
        typer.Option("--width", metavar="X", min=0, help="Say how many seeds give an interval of this width."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the values of an axis: paired by seed, with intervals, and p values adjusted by Holm over all lines.

    The seeds are the sample: an effect is averaged within each seed over all other axes first. Without AXIS=…: how much
    each axis moves the metrics, against how much the seeds do.
    """
    from dataclasses import asdict

    from orchestrator.plan.select import read_values
    from orchestrator.results import statistics

    if not values:
        given = {"--within": bool(within), "--confidence": confidence is not None, "--width": width is not None}
        _refuse(given, "is for comparisons of the values of an axis; name it: AXIS=V1,V2")
    confidence = confidence or 0.95
    session = open_session(file, set_, only, exclude, outputs, store)
    axis, chosen = read_values(session.spec, "AXIS=V1,V2", values) if values and "=" in values else (values, [])
    table = _rebuilt(session)
    warnings = statistics.missing_cells(table)
    measured = names(metrics) or session.spec.summary.metrics
    found: list[statistics.Comparison] | list[statistics.AxisEffect]
    if axis is None:
        found = statistics.axis_effects(table, measured)
    else:
        found = statistics.compare(table, axis, chosen, measured, names(within), confidence, width)
    if as_json:
        print(json.dumps({"lines": [asdict(each) for each in found], "warnings": warnings}))
        return
    from orchestrator.cli import show_statistics as screen_statistics

    screen_statistics.show(found, warnings, confidence, width)


@app.command(
    rich_help_panel="Look",
    epilog="Example:  sweep report sweeps/quickstart.yaml    … --only dataset=helpful --output report",
)
def report(
    file: SweepFile,
    set_: Set = None,
    only: Only = None,
    exclude: Exclude = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Default: report/ beside the results table.")
    ] = None,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Keep it with the sweep's run in MLflow too.")] = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Write a report: one HTML file that needs nothing else, the figures as PNG and PDF, the tables as Markdown.

    What was run, figures, means ± sd, comparisons, winners, failures, cost, provenance. The same store gives the same
    bytes.
    """
    from dashboards.report import write_report
    from orchestrator.cli import console as screen

    if tracking_uri and not mlflow:
        _refuse({"--tracking-uri": True}, "has no effect without --mlflow")
    session = open_session(file, set_, only, exclude, outputs, store)
    folder = output or session.outputs.local / "sweeps" / session.spec.name / "report"
    with screen.bar("report") as progress:
        page = write_report(session, _rebuilt(session), folder, progress)
    screen.say(f"report: {page}")
    if mlflow:
        from orchestrator.cli.sync import keep_report

        raise typer.Exit(0 if keep_report(session, folder, tracking_uri) else 1)


@app.command(
    rich_help_panel="Look",
    epilog="Example:  sweep why sweeps/quickstart.yaml 3f2a    sweep why sweeps/full.yaml policy=gemma-2b,seed=0,…",
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
    explanation = explain(session, cell)
    if as_json:
        print(json.dumps(explanation))
        return
    from orchestrator.cli import console as screen

    screen.show_explanation(session, explanation)


def _refuse(given: Mapping[str, bool], why: str) -> None:
    """Refuse those options that were given, since they would have no effect."""
    problems = [Problem(option, "", why) for option, there in given.items() if there]
    if problems:
        raise SweepError(problems)


def _with_metrics(table: pa.Table, metrics: Sequence[str]) -> pa.Table:
    """The table with these metrics only; with all of them if none are named."""
    from orchestrator.results.table import reported_metrics

    known = reported_metrics(table)
    problems = [
        Problem("--metrics", "", f"there is no metric {name!r}; {nearest(name, known)}")
        for name in metrics
        if name not in known
    ]
    if problems:
        raise SweepError(problems)
    return table.select([name for name in table.column_names if not metrics or name not in known or name in metrics])


def _rebuilt(session: Session) -> pa.Table:
    """The results table as the store tells it, written down, and narrowed to the selected cells."""
    from orchestrator.results.table import write_results

    table = session.results().table()
    write_results(table, session.outputs.results)
    return table if session.cells is None else table.filter(session.cells)


def _format(form: Format | None, output: Path | None, as_json: bool) -> Format | None:
    if as_json and (form or output):
        raise SweepError([Problem("--json", "", "goes to the terminal; leave out --format and --output")])
    if form is None and output is not None:
        if output.suffix not in SUFFIXES:
            hint = f"ends with none of {', '.join(SUFFIXES)}; say --format"
            raise SweepError([Problem(f"--output {output}", "", hint)])
        form = SUFFIXES[output.suffix]
    if form == Format.PARQUET and output is None:
        raise SweepError([Problem("--format parquet", "", "is no text; name a file: --output FILE")])
    return form


def _hand_over(table: pa.Table, form: Format, output: Path | None) -> None:
    from orchestrator.cli import console as screen
    from orchestrator.results.format import export
    from orchestrator.sweep.outputs import replace_file

    content = export(table, form)
    if output is None:
        print(content.decode(), end="")
    else:
        replace_file(output, content)
        screen.say(f"{table.num_rows:,} rows: {output}")

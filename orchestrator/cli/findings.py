"""The commands that show what a sweep found: `results`, `claims`, `compare`, `best`, `report`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.sweep_command import (
    Json,
    Metrics,
    OutputFile,
    OutputFormat,
    TrackingUri,
    names,
    need_page,
    refuse,
    sweep_command,
)
from orchestrator.results.format import SUFFIXES, Format
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.texts import nearest, plain_text

if TYPE_CHECKING:
    import pyarrow as pa

    from orchestrator.session import Session

app = typer.Typer()


@sweep_command(
    app,
    rich_help_panel="Look",
    epilog="Example:\nsweep results sweeps/quickstart.yaml --by reward_model,beta --metrics improvement --output t.tex"
    "\nsweep results sweeps/quickstart.yaml --sql 'select dataset, max(improvement) from results group by 1'",
)
def results(
    session: Session,
    by: Annotated[str, typer.Option("--by", metavar="AXIS,AXIS", help="Axes whose values are compared.")] = "",
    metrics: Metrics = "",
    cells: Annotated[bool, typer.Option("--cells", help="Show one line per cell instead of means.")] = False,
    sql: Annotated[
        str | None,
        typer.Option("--sql", metavar="QUERY", help="A DuckDB query on the table `results`, one row per cell."),
    ] = None,
    form: OutputFormat = None,
    output: OutputFile = None,
    as_json: Json = False,
) -> None:
    """Rebuild the Parquet table from the store, and show or export means ± sd over seeds, or the answer to a query.

    Means are over the seeds' means and balanced: each combination of the other axes counts the same, and a missing cell
    is filled in from all pairs of cells that differ in nothing but the axes of --by. --only and --exclude narrow what
    is shown, not the Parquet table beside the store. Of a search: the best trial of each study; with --by or --metrics
    means over these at their fresh values.
    """
    from orchestrator.analysis.summary import format_summary, left_out, summarise
    from orchestrator.cli.console import say, say_json
    from orchestrator.cli.show_results import show_answer, show_cells, show_summary
    from orchestrator.results.best import best_table, find_best
    from orchestrator.results.metrics import reported_metrics
    from orchestrator.results.sql import query

    if sql is not None:
        given = {"--by": bool(by), "--metrics": bool(metrics), "--cells": cells}
        refuse(given, "has no effect beside --sql; put it into the query")
    elif cells:
        refuse({"--by": bool(by)}, "has no effect beside --cells, which averages nothing")
    form = _format(form, output, as_json)
    results = session.results()
    table = session.table(results)
    notes: list[str] = []
    if sql is not None:
        shown = query(table, sql)
    elif cells:
        shown = _with_metrics(table, names(metrics))
    elif session.spec.searched and not by and not metrics:
        shown = best_table(find_best(session.studies, results, session.cells))
    else:
        rows, notes = results.comparable(table, session.cells)
        shown = summarise(rows, session.spec, names(by) or None, names(metrics))
    if sql is None and not cells and (as_json or form is not None):
        # Not on standard output, which is for the table.
        for note in [*notes, *left_out(shown)]:
            print(plain_text(note), file=sys.stderr)
    if as_json:
        say_json(shown.to_pylist())
    elif form is not None:
        people = form not in (Format.CSV, Format.PARQUET) and sql is None and not cells
        _hand_over(format_summary(shown) if people else shown, form, output)
    elif sql is not None:
        show_answer(shown)
    elif cells:
        show_cells(
            session, shown.to_pylist(), names(metrics) or session.spec.summary.metrics or reported_metrics(shown)
        )
    else:
        show_summary(session, shown, notes)
        say(f"table: {session.outputs.results}")


@sweep_command(
    app,
    cells=False,
    rich_help_panel="Look",
    epilog="Example:\nsweep claims sweeps/quickstart.yaml\nsweep claims sweeps/synthetic.yaml --output claims.tex",
)
def claims(
    session: Session,
    confidence: Annotated[
        float, typer.Option("--confidence", metavar="SHARE", min=0.5, max=0.999, help="Confidence of the intervals.")
    ] = 0.95,
    form: OutputFormat = None,
    output: OutputFile = None,
    as_json: Json = False,
) -> None:
    """Test the claims that the sweep file declares (`analysis`): which hold, which do not, which are undecided.

    All are one family: p values are adjusted by Holm over every line. Where the sweep has values of single test
    prompts, verdicts speak of new prompts too; beside them stands what holds on these prompts only.
    """
    from orchestrator.analysis.tested import examine
    from orchestrator.cli.console import bar, say_json
    from orchestrator.cli.show_results import show_claims

    form = _format(form, output, as_json)
    with bar("prompts") as progress:
        tested = examine(session, confidence, progress)
    if as_json:
        say_json(tested.record())
        return
    if form is not None:
        for note in tested.notes:
            print(plain_text(note), file=sys.stderr)
        people = form not in (Format.CSV, Format.PARQUET)
        _hand_over(tested.table(people), form, output)
        return
    show_claims(tested)


@sweep_command(
    app,
    rich_help_panel="Look",
    epilog="Example:\nsweep compare sweeps/quickstart.yaml reward_model=clf_mlp,bt_mlp --within beta\n"
    "sweep compare sweeps/quickstart.yaml",
)
def compare(
    session: Session,
    values: Annotated[
        str | None,
        typer.Argument(
            metavar="AXIS=V1,V2",
            help="Values to compare; AXIS alone: all of its values; nothing: the effects of all axes.",
        ),
    ] = None,
    metrics: Metrics = "",
    within: Annotated[
        str, typer.Option("--within", metavar="AXIS,AXIS", help="Compare at each value of these, not on average.")
    ] = "",
    confidence: Annotated[
        float | None,
        typer.Option(
            "--confidence", metavar="SHARE", min=0.5, max=0.999, help="Confidence of the intervals; default: 0.95."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the values of an axis: differences with intervals, power, and p values adjusted by Holm over all lines.

    Each line says two things: what to expect of new seeds on these test prompts, and of new prompts too, where the
    sweep declares its tables of single prompts (`analysis`). Of two values it is also shown how their difference
    depends on the other axes. Without AXIS=…: how much each axis moves the metrics, against how much the seeds do. Of a
    search: each study's best trial at fresh values.
    """
    from dataclasses import asdict

    from orchestrator.analysis import axis_effects, comparisons, interactions
    from orchestrator.analysis.singles import sample_of
    from orchestrator.cli.console import bar, say_json
    from orchestrator.plan.select import read_values
    from orchestrator.results.comparable import refuse_trials
    from orchestrator.results.metrics import averaged_metrics, metric_problems

    if not values:
        given = {"--within": bool(within), "--confidence": confidence is not None}
        refuse(given, "is for comparisons of the values of an axis; name it: AXIS=V1,V2")
    refuse_trials(session.spec, ((values or "").partition("=")[0], *names(within)))
    axis, chosen = read_values(session.spec, "AXIS=V1,V2", values) if values and "=" in values else (values, [])
    results = session.results()
    table = session.table(results)
    table, warnings = results.comparable(table, session.cells)
    measured = names(metrics) or session.spec.summary.metrics or tuple(averaged_metrics(table))
    if problems := metric_problems(table, measured):
        raise SweepError(problems)
    with bar("prompts") as progress:
        sample = sample_of(session, table, measured, confidence or 0.95, progress)
        warnings += sample.missing_cells(table)
        if axis is None:
            effects = axis_effects.axis_effects(sample, measured)
        else:
            comparisons.check(table, axis, chosen, measured, names(within), sample.random)
            apart = [each for each in session.spec.apart if each != axis and len(sample.grid.labels(each)) > 1]
            held = tuple(dict.fromkeys((*names(within), *apart)))
            found = comparisons.compare(sample, axis, chosen, measured, held, bootstrap=as_json)
            depends = interactions.interactions(sample, found if len(set(chosen)) == 2 else [])
    if as_json:
        lines = map(asdict, effects) if axis is None else map(comparisons.record, found)
        more = {} if axis is None else {"interactions": [interactions.record(each) for each in depends]}
        say_json({"lines": list(lines), "warnings": warnings, **more})
        return
    from orchestrator.cli.show_results import show_comparisons, show_effects, show_interactions

    if axis is None:
        show_effects(effects, warnings)
    else:
        show_comparisons(found, sample, warnings)
        show_interactions(depends, sample)


@sweep_command(
    app,
    cells=False,
    rich_help_panel="Look",
    epilog="Example:\nsweep best sweeps/tune-quickstart.yaml\n"
    "sweep best sweeps/tune.yaml --study policy=gemma-2b,reward_model=bt_mlp --json",
)
def best(
    session: Session,
    name: Annotated[
        str | None,
        typer.Option(
            "--study",
            metavar="NAME",
            help="Only this study, e.g. tuning/bt_mlp, or those with axis=value,axis=value.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the best trial of each study of a search: its values, the metric, the metric at fresh values, trials, cost.

    The metric that trials are chosen by flatters the best of them; at fresh values (`fresh` in the search) it does not.
    Seconds and GPU-hours are of the finished steps of trials; what they share with others is not counted. Of several
    objectives every trial is shown that no other one beats in all of them.
    """
    from orchestrator.cli.console import say_json
    from orchestrator.explain.status import best_of
    from orchestrator.results.best import told

    found = best_of(session, name)
    if as_json:
        say_json(told(found))
        return
    from orchestrator.cli.show_results import show_best

    show_best(session, found)


@sweep_command(
    app,
    rich_help_panel="Look",
    epilog="Example:\nsweep report sweeps/quickstart.yaml\n"
    "sweep report sweeps/quickstart.yaml --only dataset=helpful --output report",
)
def report(
    session: Session,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="DIR", help="Folder of the report; default: report/ beside the results table."
        ),
    ] = None,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Also attach it to the sweep's run in MLflow.")] = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Write a report: one self-contained HTML file, the figures as PNG and PDF, the tables as Markdown.

    What was run, figures, means ± sd, comparisons, winners, failures, cost, provenance. The same store gives the same
    bytes.
    """
    need_page("sweep report", "report")
    from dashboards.report.write import write_report
    from orchestrator.cli.console import bar, say

    if tracking_uri and not mlflow:
        refuse({"--tracking-uri": True}, "has no effect without --mlflow")
    folder = output or session.outputs.local / "sweeps" / session.spec.name / "report"
    with bar("report") as progress:
        page = write_report(session, session.table(), folder, progress)
    say(f"report: {page}")
    if mlflow:
        from orchestrator.cli.sync import keep_report

        raise typer.Exit(0 if keep_report(session, folder, tracking_uri) else 1)


def _with_metrics(table: pa.Table, metrics: Sequence[str]) -> pa.Table:
    """Keep only these metrics; all of them if none are named."""
    from orchestrator.results.metrics import reported_metrics

    known = reported_metrics(table)
    problems = [
        Problem("--metrics", "", f"there is no metric {name!r}; {nearest(name, known)}")
        for name in metrics
        if name not in known
    ]
    if problems:
        raise SweepError(problems)
    return table.select([name for name in table.column_names if not metrics or name not in known or name in metrics])


def _format(form: Format | None, output: Path | None, as_json: bool) -> Format | None:
    """Choose the format of --format, --output and --json; None where the table is shown to people."""
    if as_json and (form or output):
        raise SweepError([Problem("--json", "", "goes to the terminal; leave out --format and --output")])
    if form is None and output is not None:
        if output.suffix not in SUFFIXES:
            hint = f"ends with none of {', '.join(SUFFIXES)}; give --format"
            raise SweepError([Problem(f"--output {output}", "", hint)])
        form = SUFFIXES[output.suffix]
    if form == Format.PARQUET and output is None:
        raise SweepError([Problem("--format parquet", "", "is not text; name a file: --output FILE")])
    return form


def _hand_over(table: pa.Table, form: Format, output: Path | None) -> None:
    """Write a table to a file, or else print it."""
    from orchestrator.cli.console import say
    from orchestrator.results.format import export
    from orchestrator.store.atomic import replace_file

    content = export(table, form)
    if output is None:
        print(content.decode(), end="")
    else:
        replace_file(output, content)
        say(f"{table.num_rows:,} rows: {output}")

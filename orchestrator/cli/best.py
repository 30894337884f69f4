"""`sweep best`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.sweep_command import Json, sweep_command
from orchestrator.sweep.problems import Problem, SweepError

if TYPE_CHECKING:
    from orchestrator.session import Session

app = typer.Typer()


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
    from orchestrator.results.best import best_rows, find_best, importances
    from orchestrator.results.choose import choose_studies
    from orchestrator.results.table import Results

    if session.spec.searched is None:
        message = "has no `search`, so there are no trials; `sweep results` shows its means"
        raise SweepError([Problem(str(session.file), "", message)])
    results = Results(session.plan, session.store, session.schedule, session.studies)
    results.look()
    results.read_failures()
    found = find_best(session.studies, results)
    if name is not None:
        chosen = {study.name for study in choose_studies([each.study for each in found], name)}
        found = [each for each in found if each.study.name in chosen]
    if as_json:
        told = [row | {"importances": importances(each.study)} for each in found for row in best_rows(each)]
        print(json.dumps(told))
        return
    from orchestrator.cli.show_best import show_best

    show_best(session, found)

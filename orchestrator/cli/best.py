"""`sweep best`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.sweep_command import Json, sweep_command

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
    from orchestrator.explain.status import best_of
    from orchestrator.results.best import told

    found = best_of(session, name)
    if as_json:
        print(json.dumps(told(found)))
        return
    from orchestrator.cli.show_results import show_best

    show_best(session, found)

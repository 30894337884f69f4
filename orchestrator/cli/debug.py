"""`sweep debug`: run one step in this very process, for the debugger."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.sweep_command import CellName, sweep_command
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.texts import nearest

if TYPE_CHECKING:
    from orchestrator.session import Session

app = typer.Typer()


@sweep_command(
    app,
    cells=False,
    rich_help_panel="Run",
    epilog="Example:\nsweep debug sweeps/quickstart.yaml 3f2a --stage fit\n"
    "sweep debug sweeps/quickstart.yaml 3f2a --stage fit --pdb",
)
def debug(
    session: Session,
    cell: CellName,
    stage: Annotated[
        str | None, typer.Option("--stage", metavar="ENTRY", help="The step to run; default: the first missing one.")
    ] = None,
    pdb: Annotated[bool, typer.Option("--pdb", help="Drop into the debugger where the step raises.")] = False,
) -> None:
    """Run one step of a cell in this very process, its output on the terminal; nothing is caught or committed."""
    from orchestrator.attempt.request import Request
    from orchestrator.attempt.stage_call import call_stage, stage_source
    from orchestrator.cli.console import say, step_name
    from orchestrator.code import code_commit
    from orchestrator.run.schedule import State
    from workers.metric import Undefined

    number = _choose(session, cell, stage)
    step = session.plan.step(number)
    states = session.schedule.states
    missing = [parent for parent in session.plan.parents(number) if states[parent] != State.COMMITTED]
    if missing:
        first = session.plan.entry_of(missing[0])
        run = session.command("run", "--stage", first)
        message = f"needs {first!r} first, which is not there yet; to debug that: --stage {first}; to run it: {run}"
        raise SweepError([Problem(f"step {step.entry}", "", message)])
    runtime = session.spec.runtime_of(step.entry, step.coords)
    account = f"{session.spec.name}/{step.entry}"
    request = Request(step, 0, runtime, session.outputs.store, code_commit(), "debug", account=account)
    out = Path(tempfile.mkdtemp(prefix=f"sweep-debug-{step.stage}-"))
    say(f"{step_name(step.entry, step.coords)} ({step.key}): {stage_source(step)}")
    say(f"files go to {out}; nothing is committed")
    try:
        metrics = call_stage(request, session.store, out)
    except Exception:
        if pdb:
            import pdb as debugger  # noqa: T100 (the purpose of this option)

            debugger.post_mortem(sys.exc_info()[2])
        raise
    for name, value in metrics.items():
        say(f"{name} is undefined: {value.reason}" if isinstance(value, Undefined) else f"{name} = {value}")


def _choose(session: Session, text: str, entry: str | None) -> int:
    """Choose the step of an entry, or the first that is missing; the last one where none is."""
    from orchestrator.plan.select import find_cell
    from orchestrator.run.schedule import State

    cell = session.plan.cell(find_cell(session.plan, text))
    if entry is not None and entry not in cell.steps:
        raise SweepError([Problem("--stage", "", f"the cell has no entry {entry!r}; {nearest(entry, cell.steps)}")])
    artifacts = [artifact for name, group in cell.steps.items() for artifact in group if entry in (None, name)]
    numbers = [number for each in artifacts if (number := session.plan.number(each)) is not None]
    finished = (State.COMMITTED, State.UNNEEDED)
    unfinished = [each for each in numbers if session.schedule.states[each] not in finished]
    return (unfinished or numbers[-1:])[0]

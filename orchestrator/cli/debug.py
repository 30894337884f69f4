"""`sweep debug`: one step in this very process, for the debugger."""

from __future__ import annotations

import pdb as debugger  # noqa: T100 (the purpose of this command)
import sys
import tempfile
from pathlib import Path

from orchestrator.attempt.request import Request
from orchestrator.attempt.stage_call import call_stage, stage_source
from orchestrator.cli import console as screen
from orchestrator.plan.select import find_cell
from orchestrator.run.schedule import State
from orchestrator.session import Session
from orchestrator.sweep.document import Problem, SweepError, nearest
from orchestrator.sweep.outputs import code_commit
from workers.metric import Undefined


def debug_step(session: Session, text: str, entry: str | None, pdb: bool) -> None:
    """Run a step of a cell in the foreground: nothing captured, caught, committed or recorded.

    Raises:
        SweepError: there is no such cell or entry, or an input of the step is not there yet.
        Exception: whatever the stage raises.
    """
    number = _choose(session, text, entry)
    step = session.plan.step(number)
    states = session.schedule.states
    missing = [parent for parent in session.plan.parents(number) if states[parent] != State.COMMITTED]
    if missing:
        first = session.plan.entry_of(missing[0])
        message = f"needs {first!r} first, which is not there yet; debug that with --stage {first}, or run the sweep"
        raise SweepError([Problem(f"step {step.entry}", "", message)])
    runtime = session.spec.runtime_of(step.entry, step.coords)
    account = f"{session.spec.name}/{step.entry}"
    request = Request(step, 0, runtime, session.outputs.store, code_commit(), "debug", account=account)
    out = Path(tempfile.mkdtemp(prefix=f"sweep-debug-{step.stage}-"))
    screen.say(f"{step.entry} {step.key}: {stage_source(step)}")
    screen.say(f"files go to {out}; nothing is committed")
    try:
        metrics = call_stage(request, session.store, out)
    except Exception:
        if pdb:
            debugger.post_mortem(sys.exc_info()[2])
        raise
    for name, value in metrics.items():
        screen.say(f"{name} is undefined: {value.reason}" if isinstance(value, Undefined) else f"{name} = {value}")


def _choose(session: Session, text: str, entry: str | None) -> int:
    cell = session.plan.cell(find_cell(session.plan, text))
    if entry is not None and entry not in cell.steps:
        raise SweepError([Problem("--stage", "", f"the cell has no entry {entry!r}; {nearest(entry, cell.steps)}")])
    artifacts = [artifact for name, group in cell.steps.items() for artifact in group if entry in (None, name)]
    numbers = [number for each in artifacts if (number := session.plan.number(each)) is not None]
    finished = (State.COMMITTED, State.UNNEEDED)
    unfinished = [each for each in numbers if session.schedule.states[each] not in finished]
    return (unfinished or numbers[-1:])[0]

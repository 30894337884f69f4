"""What `sweep run` prints: the events of a run in words, and how it ended."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from orchestrator.cli import console
from orchestrator.cli.progress import Progress
from orchestrator.cli.show_results import show_missing, show_summary
from orchestrator.command import format_command, repeat_options
from orchestrator.drive import drive
from orchestrator.events import (
    DamageFound,
    Event,
    Finished,
    LoopEnded,
    LoopStarted,
    MadeByOtherCode,
    MlflowDelayed,
    NothingToDo,
    Progressed,
    Published,
    Publishing,
    StageBroken,
    Started,
    Stopping,
    StudyEnded,
    Troubled,
    Unschedulable,
    warning,
)
from orchestrator.executor import UnreachableError
from orchestrator.explain.other_code import format_other_code
from orchestrator.plan.needed import needed_steps
from orchestrator.redact import redact
from orchestrator.results.format import format_value
from orchestrator.search.trial import Study
from orchestrator.session import Session
from orchestrator.texts import few


def run_and_show(
    session: Session,
    address: str | None = None,
    inline: bool = False,
    tracking_uri: str | None = None,
    apart: bool = False,
) -> int:
    """Run what a sweep lacks, and print what happens; arguments and exit code as those of `drive`.

    Raises:
        StoreError: the store cannot be used, or the table could not be written.
        OSError: what was to be printed at the end could not be.
    """
    console.say((session.spec.name, "bold"), f": {session.spec.question}")
    console.say(f"outputs: {session.outputs.root} ({session.outputs.reason})")
    local = not (address or os.environ.get("RAY_ADDRESS"))
    connecting = "" if inline else "starting Ray" if local else "connecting to Ray"
    printer = _Printer(session, tracking_uri, connecting)
    try:
        code = drive(session, address, inline, tracking_uri, printer, apart)
    except UnreachableError as error:
        printer.close()
        console.say(str(error), style="red")
        return 2
    finally:
        printer.close()
    if printer.unprinted:
        raise printer.unprinted
    return code


class _Printer:
    """Prints each event of a run. The run does not end with its terminal, or with the disk of its log."""

    def __init__(self, session: Session, tracking_uri: str | None, connecting: str) -> None:
        """Prepare to print.

        Args:
            session: the sweep.
            tracking_uri: MLflow, if not that of the sweep.
            connecting: what is shown while the executor is started.
        """
        self._session = session
        self._tracking_uri = tracking_uri
        self._connecting = connecting
        self._display = contextlib.ExitStack()
        """What is drawn at the moment and goes away: a spinner, the live table, or a bar."""
        self._progress: Progress | None = None
        self._advance: Callable[[int, int], None] | None = None
        self._ran = self._stopping = False
        self.unprinted: OSError | None = None
        """Why the final words could not be printed."""

    def __call__(self, event: Event) -> None:
        try:
            self._print(event)
        except OSError as error:
            # Whoever closes a pipe has seen enough.
            lost = isinstance(event, Finished) and not isinstance(error, BrokenPipeError)
            self.unprinted = error if lost else None

    def close(self) -> None:
        """Take away what is drawn."""
        self._progress = self._advance = None
        self._display.close()

    def _print(self, event: Event) -> None:
        match event:
            case MadeByOtherCode(found):
                console.say(format_other_code(self._session, found), style="yellow")
            case DamageFound() | Unschedulable() | Troubled() | MlflowDelayed():
                console.say(warning(event) or "", style="yellow")
            case StageBroken():
                console.say(warning(event) or "", style="red")
            case NothingToDo(unfinished):
                console.say(f"nothing to do: {_all_done(self._session, unfinished)}")
            case Started(cells, steps, studies, may_come):
                self._ran = True
                open_studies = console.counted(studies, "study") if studies == 1 else f"{studies:,} studies"
                more = f"{open_studies} to finish, up to {cells + may_come:,} cells; " if studies else ""
                decided = " decided" if studies else ""
                console.say(f"{more}{console.counted(cells, 'cell')}{decided}, {console.counted(steps, 'step')} to run")
                if self._connecting:
                    self._display.enter_context(console.spinner(self._connecting))
            case LoopStarted(estimator, watch):
                self.close()
                self._progress = Progress(
                    self._session.schedule, console.console, estimator, lambda: len(watch.may_come())
                )
                self._display.enter_context(self._progress)
            case Progressed(attempt):
                if self._progress:
                    self._progress.advance(attempt)
            case StudyEnded(study):
                console.say(_study_line(study))
            case Stopping(reason):
                # Now: whoever stops a job may leave it no time for the end.
                self._stopping = True
                console.say(f"stopped: {reason}; the same command goes on: {_command(self._session)}", style="yellow")
            case LoopEnded():
                self.close()
                if not (event.how == "stopped" and self._stopping):
                    _say_how_it_ended(event)
            case Publishing(done, total):
                if self._advance is None:
                    self._advance = self._display.enter_context(console.bar("writing MLflow runs"))
                elif total:
                    self._advance(done, total)
            case Published():
                self.close()
                _say_what_mlflow_has(self._session, event, self._tracking_uri)
            case Finished():
                if self._session.entry and self._session.schedule.done and self._ran:
                    console.say(_all_done(self._session, 0))
                _conclude(self._session, event, self._tracking_uri)


def _command(session: Session) -> str:
    """Format the command that goes on where this run ends."""
    return session.command("run", *session.selection, *session.options)


def _say_how_it_ended(event: LoopEnded) -> None:
    match event.how:
        case "stopped":
            console.say(f"stopped: {event.reason}", style="red")
        case "interrupted":
            console.say("interrupted; what was running is abandoned, the rest is kept", style="yellow")
        case "lost":
            console.say(f"{event.reason}; what was running is lost, the rest is kept", style="red")


def _say_what_mlflow_has(session: Session, event: Published, tracking_uri: str | None) -> None:
    found = event.delivered
    if found.created or found.replaced:
        console.say(f"MLflow: {found.created} runs written, {found.replaced} replaced, {found.unchanged} unchanged")
    if found.error:
        console.say(found.error, style="yellow")
        waiting = f"{found.left} of {event.runs} runs wait in {session.outputs.outbox}; "
        sync = session.command("sync", *repeat_options({"--tracking-uri": tracking_uri}))
        then = f"the next run writes them, or then: {sync}"
        console.say(f"{waiting if found.left else ''}{then}")


def _all_done(session: Session, unfinished: int) -> str:
    """Say what is finished, where nothing of what was asked for is left to run; no word on more than that.

    Args:
        session: the sweep.
        unfinished: cells that were not chosen and are not finished.
    """
    plan, chosen = session.plan, session.chosen
    if session.entry:
        remain = int(needed_steps(plan, session.schedule.committed, session.cells).sum())
        cells = _format_cells(session, _count_lacking(session)[1])
        return f"{session.entry} is done for all {cells}; {remain or 'no'} steps of other stages remain"
    if not len(chosen):
        chosen_of = "" if session.considered == plan.decided.sum() else "chosen "
        return f"all {session.considered} {chosen_of}cells are finished"
    if session.cells is None:
        return f"all {len(chosen)} cells are finished"
    others = int(plan.decided.sum()) - len(chosen)
    rest = f"of the other {others}, {unfinished} are not" if unfinished else f"so are the other {others}"
    return f"all {len(chosen)} chosen cells are finished" + (f"; {rest}" if others else "")


def _count_lacking(session: Session) -> tuple[int, int]:
    """Count the chosen cells that lack the entry that is to be reached, and those that have such an entry at all."""
    assert session.entry is not None, "only then"
    plan = session.plan
    firsts = plan.groups(session.entry)
    firsts = firsts if session.cells is None else firsts[session.cells]
    firsts = firsts[firsts >= 0]
    lacks = np.concatenate([[0], np.cumsum(~session.schedule.committed)])
    return int((lacks[firsts + plan.size[firsts]] > lacks[firsts]).sum()), len(firsts)


def _format_cells(session: Session, having: int) -> str:
    """Format how many cells an entry that is to be reached concerns."""
    chosen = "cells" if session.cells is None else "chosen cells"
    return f"{having} {chosen}" + ("" if having == len(session.chosen) else f" that have {session.entry}")


def _conclude(session: Session, event: Finished, tracking_uri: str | None) -> None:
    """Print the means, where the results are, and what is missing."""
    if event.summary is not None:
        show_summary(session, event.summary)
    if event.written:
        console.say(f"table:  {session.outputs.results}")
    if session.spec.tracking is not False:
        uri = session.tracking_uri(tracking_uri)
        mlflow = str(Path(sys.executable).with_name("mlflow"))
        served = uri.startswith(("http://", "https://"))
        show = redact(uri) if served or "://" not in uri else format_command([mlflow, "ui", "--backend-store-uri", uri])
        console.say(f"MLflow: {show}")
    chosen = session.chosen_rows(event.table)
    ids, statuses = (chosen[name].to_pylist() for name in ("cell_id", "status"))
    missing = [(id_, status) for id_, status in zip(ids, statuses, strict=True) if status != "succeeded"]
    command = _command(session)
    for sentence in _unfinished_studies(session, event.studies, event.exit_code, bool(missing)):
        console.say(sentence, style="red" if event.exit_code else "yellow")
    if not missing:
        if event.exit_code:
            console.say(f"the same command goes on: {command}")
        return
    if session.entry and session.schedule.done:
        console.say(f"without --stage the same command finishes the {len(missing)} cells that are missing")
        return
    show_missing(chosen)
    tried = [cell for cell, status in missing if status in ("failed", "blocked")]
    again = "the same command tries them again" if tried and not event.ended_early else "the same command goes on"
    what = f"{len(missing)} of {len(session.chosen)} cells are missing"
    if session.entry:
        lacking, of_cells = _count_lacking(session)
        what = f"{session.entry} is missing for {lacking} of {_format_cells(session, of_cells)}"
    console.say((what, "red"), f"; {again}: {command}")
    first = tried[0] if tried else missing[0][0]
    console.say(f"explain one: {session.command('why', first)}")


def _study_line(study: Study) -> str:
    """Say how a study ended: "tuning/bt_mlp: best improvement 0.61 (trial 2 of 4)"."""
    of = f"of {study.budget}"
    metrics = study.search.objective.metrics
    if len(metrics) > 1 and study.front:
        return f"{study.name}: {len(study.front)} best compromises of {', '.join(metrics)} ({study.budget} trials)"
    if study.best and study.best.objectives:
        return (
            f"{study.name}: best {metrics[0]} {format_value(study.best.objectives[0])} (trial {study.best.number} {of})"
        )
    states = Counter(trial.state for trial in study.trials)
    ended = ", ".join(f"{count} {state}" for state, count in states.items())
    return f"{study.name}: no best trial ({ended})"


def _unfinished_studies(session: Session, studies: Sequence[Study], exit_code: int, missing: bool) -> Iterator[str]:
    """Say which studies are not finished when a run ends, and what becomes of trials that failed.

    Args:
        session: the sweep.
        studies: those that were chosen.
        exit_code: of the run.
        missing: whether cells are missing.
    """
    left = [study for study in studies if not study.finished]
    if left:
        ended = {study.name: sum(trial.state != "running" for trial in study.trials) for study in left}
        some = few([f"{study.name} ({ended[study.name]} of {study.budget} trials)" for study in left])
        are = "1 study is" if len(left) == 1 else f"{len(left):,} studies are"
        yield f"{are} not finished: {some}"
        if not exit_code and session.cells is not None:
            yield "a trial is run only where all of its repetitions are chosen (--only, --exclude, --max-cells)"
    failed = sum(trial.state == "failed" for study in studies for trial in study.trials)
    if failed and missing:
        yield f"{console.counted(failed, 'trial')} failed, as the sampler was told; another try may still complete them"

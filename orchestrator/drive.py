"""Runs a sweep from start to end. Prints nothing, reports events.

The one loop (`run_plan`) yields attempts; this module does what goes on beside it: the results table, the heartbeat,
MLflow, the hooks, scratch space, and signals.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

# Imported here, so that the import does not count as time that the first table takes.
import pyarrow.parquet

from orchestrator.analysis.declared import declare
from orchestrator.analysis.summary import summarise
from orchestrator.attempt.outage import OUTAGE
from orchestrator.code import code_commit
from orchestrator.doctor.before_run import shortcomings
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
)
from orchestrator.executor import choose_executor, refuse_edited_stages
from orchestrator.explain.estimator import Estimator
from orchestrator.explain.other_code import made_by_other_code
from orchestrator.mirror import Mirror
from orchestrator.pulse import Pulse
from orchestrator.results.best import Found, best_table, find_best
from orchestrator.results.heartbeat import HEARTBEAT_EVERY, remove_heartbeat, write_heartbeat
from orchestrator.results.parquet import write_results
from orchestrator.results.status import STATUSES
from orchestrator.results.study_watch import StudyWatch
from orchestrator.results.table import Results
from orchestrator.run.executors import Executor, ExecutorLostError
from orchestrator.run.hooks import call_hook
from orchestrator.run.late_records import LateRecords
from orchestrator.run.loop import run_plan
from orchestrator.run.schedule import State
from orchestrator.run.shutdown import Shutdown
from orchestrator.run.trouble import Troubles
from orchestrator.search.growth import Growth
from orchestrator.session import Session
from orchestrator.store import StoreError
from orchestrator.store.lease import BEAT
from orchestrator.tracking.publisher import Publisher
from orchestrator.types import Attempt

T = TypeVar("T")

#: The share of wall time that rewriting the table during the run may take.
_SHARE = 0.01
_DECLARING = "writing down what the sweep is to show"
_MIRRORING = "writing Optuna's copy of the studies"


def drive(
    session: Session,
    address: str | None = None,
    inline: bool = False,
    tracking_uri: str | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    apart: bool = False,
) -> int:
    """Run the missing steps of a sweep, and keep its table, its heartbeat and MLflow up to date meanwhile.

    Args:
        session: the sweep; its schedule is updated during the run.
        address: address of the Ray cluster; None takes RAY_ADDRESS, or else starts Ray on this machine.
        inline: run the steps one by one, without Ray.
        tracking_uri: MLflow's tracking URI; None takes that of the sweep.
        on_event: called with every event, in this thread; may raise KeyboardInterrupt while the loop runs.
        apart: with `inline`, run the steps in a child process, whose death is a step's outcome; else in this process.

    Returns:
        The exit code: 0 if all chosen cells succeeded, 1 if some are missing, 130 or 143 if a signal ended the run.

    Raises:
        SweepError: a stage that is not this package's was edited since the sweep was opened, or the storage of its
            search has somebody else's study of the same name; nothing was run.
        UnreachableError: no cluster answers at the address; nothing was run.
        StoreError: the store cannot be used; or it was away for too long, takes no writes any more, or the table could
            not be written: then all else is done.
    """
    refuse_edited_stages(session)
    # Not waited for: where nothing was reached yet, a wrong address is likelier than an outage.
    warning = session.store.prepare()
    for message in [*([warning] if warning else []), *shortcomings(session.store.location)]:
        on_event(Troubled(message))
    with OUTAGE.telling(lambda message: on_event(Troubled(message))):
        return _drive_prepared(
            session, lambda: choose_executor(session, address, inline, apart), tracking_uri, on_event
        )


def _drive_prepared(
    session: Session,
    executor: Callable[[], Executor],
    tracking_uri: str | None,
    on_event: Callable[[Event], None],
) -> int:
    results = Results(session.plan, session.store, session.schedule, session.studies)
    for damage in OUTAGE.endure(results.set_damaged_aside):
        on_event(DamageFound(damage))
    OUTAGE.endure(results.read_failures)
    for note in OUTAGE.endure(session.search_notes):
        on_event(Troubled(note))
    for found in OUTAGE.endure(lambda: made_by_other_code(session)):
        on_event(MadeByOtherCode(found))
    with Troubles(lambda message: on_event(Troubled(message))).contained(_DECLARING):
        declare(session, int((results.codes() == STATUSES.index("succeeded")).sum()))
    mirror = Mirror(session.studies, results, session.outputs)
    mirror.check()
    tracked = session.spec.tracking is not False
    uri = session.tracking_uri(tracking_uri)
    publisher = Publisher(results, session.file, session.outputs, uri) if tracked else None
    with contextlib.closing(publisher) if publisher else contextlib.nullcontext():
        return _drive(session, results, publisher, mirror, executor, on_event)


def _drive(
    session: Session,
    results: Results,
    publisher: Publisher | None,
    mirror: Mirror,
    executor: Callable[[], Executor],
    on_event: Callable[[Event], None],
) -> int:
    signalled: int | None = None
    # Two errors that are raised when all else is done.
    store_error: StoreError | None = None
    earlier = session.opening.earlier
    growth = Growth(session.studies, session.schedule, session.store, results, lambda study: earlier.get(study.id, ()))
    if session.schedule.done and not growth.pending:
        left = int((results.codes()[session.plan.decided] != STATUSES.index("succeeded")).sum())
        # If all cells were chosen, there are no others to count.
        on_event(NothingToDo(left if session.cells is not None else 0))
    else:
        watch = StudyWatch(session.studies, results, session.cells)
        steps = int(session.schedule.needed.sum())
        on_event(Started(len(session.chosen), steps, len(watch.open), len(watch.may_come())))
        run = _Run(session, results, executor(), publisher, growth, watch, mirror, on_event)
        signalled, store_error = run.run(), run.store_error
    write_error: StoreError | None = None
    # Whoever sent a signal does not wait for the store.
    wait = _at_once if signalled else OUTAGE.endure
    try:
        table = wait(results.table, proof=False)
    except StoreError as error:
        raise _joined(store_error, _table_error(session, error)) from error
    try:
        wait(lambda: write_results(table, session.outputs.results))
    except StoreError as error:
        write_error = _table_error(session, error)
    if not signalled:
        with Troubles(lambda message: on_event(Troubled(message))).contained(_MIRRORING):
            mirror.update()
    best = find_best(session.studies, results, session.cells)
    summary = summary_of(session, table, best)
    if publisher:
        on_event(Publishing(0, 0))
        delivered = publisher.finish(
            table, summary, signalled is not None, lambda done, total: on_event(Publishing(done, total))
        )
        on_event(Published(delivered, len(publisher.outbox.digests)))
    code = signalled or (2 if store_error else _exit_code(session, table, growth))
    studies = [each.study for each in best]
    on_event(Finished(table, summary, write_error is None, code, signalled is not None, studies))
    facts = {"sweep": session.spec.name, "exit_code": 2 if write_error else code}
    facts |= {"cells": Counter(table["status"].to_pylist()), "table": str(session.outputs.results)}
    _call_hook(session.spec.hooks.finish, "finish", facts, on_event)
    if store_error or write_error:
        raise _joined(store_error, write_error)
    return code


def _joined(*errors: StoreError | None) -> StoreError:
    return StoreError("\n".join(str(error) for error in errors if error))


def _at_once(action: Callable[[], T], proof: bool = True) -> T:
    return action()


def summary_of(session: Session, table: pa.Table, best: Sequence[Found]) -> pa.Table | None:
    """Return the means that the sweep file asks for, of a search the best trials; None if no cell succeeded.

    Args:
        session: the sweep.
        table: its results table.
        best: what `find_best` found of its studies.
    """
    if session.spec.searched:
        return best_table(best) if best else None
    return summarise(table, session.spec) if "succeeded" in table["status"].to_pylist() else None


def _table_error(session: Session, error: StoreError) -> StoreError:
    return StoreError(
        f"the table {session.outputs.results} was not written: {error}. What was computed is kept; once the place can "
        f"be read and written, this makes the table: {session.command('results')}"
    )


def _exit_code(session: Session, table: pa.Table, growth: Growth) -> int:
    if session.entry and session.schedule.done:
        return 0
    statuses = session.chosen_rows(table)["status"].to_pylist()
    return int(growth.pending or any(status != "succeeded" for status in statuses))


def _call_hook(command: str | None, event: str, facts: Mapping[str, Any], on_event: Callable[[Event], None]) -> None:
    failure = call_hook(command, event, facts)
    if failure:
        on_event(Troubled(failure))


class _Run:
    """The loop of a run, and the periodic work beside it."""

    def __init__(
        self,
        session: Session,
        results: Results,
        executor: Executor,
        publisher: Publisher | None,
        growth: Growth,
        watch: StudyWatch,
        mirror: Mirror,
        on_event: Callable[[Event], None],
    ) -> None:
        self._session = session
        self._mirror = mirror
        self._growth = growth
        self._watch = watch
        self._schedule = session.schedule
        self._results = results
        self._executor = executor
        self._publisher = publisher
        self._on_event = on_event
        self._driver = secrets.token_hex(8)
        self._troubles = Troubles(lambda message: on_event(Troubled(message)), self._store_answers)
        self._late_records = LateRecords(session.store)
        self.store_error: StoreError | None = None
        """Why no step can be committed any more, so that the loop ended."""
        self._reported: set[str] = set()
        """Broken entries and other events that are reported once only."""
        self._estimator: Estimator
        self._pulse = Pulse(session, results, executor)

    def run(self) -> int | None:
        """Run the loop; return the exit code if a signal ended it early, else None."""
        schedule, store = self._schedule, self._session.store
        shutdown = Shutdown(schedule, drains=self._executor.bundle_seconds > 0)
        heartbeat_due = time.monotonic()
        table_due, scratch_due = heartbeat_due + HEARTBEAT_EVERY, heartbeat_due + BEAT
        # Steps that failed in an earlier command are tried again now; failures outside the selection stay on record.
        schedule.codes[schedule.needed] = State.PENDING
        for number in [number for number in self._results.failures if schedule.needed[number]]:
            del self._results.failures[number]
        try:
            self._estimator = Estimator(schedule, self._executor.slots)
            with self._troubles.contained("reading how long steps took before"):
                self._estimator.read_finished(store)
            # Before SIGTERM is listened to: this may wait for the store.
            attempts = run_plan(schedule, store, self._executor, code_commit(), self._driver, self._grow)
            with shutdown:
                self._on_event(LoopStarted(self._estimator, self._watch))
                for attempt in attempts:
                    self._note(attempt)
                    shutdown.check()
                    self._report_stages_and_studies()
                    now = time.monotonic()
                    if now >= min(heartbeat_due, scratch_due, table_due) and not self._store_answers():
                        # What goes on beside the steps would fail one by one.
                        heartbeat_due = scratch_due = time.monotonic() + HEARTBEAT_EVERY
                        table_due = max(table_due, heartbeat_due)
                        continue
                    if now >= heartbeat_due:
                        self._write_heartbeat()
                        # If writing blocks for long, pause as long: steps come first.
                        heartbeat_due = time.monotonic() + max(HEARTBEAT_EVERY, time.monotonic() - now)
                    if now >= scratch_due:
                        scratch_due = now + BEAT
                        self._sweep_scratch()
                    if now >= table_due:
                        table_due = self._write_table(now)
            self._report_stages_and_studies()
            self._on_event(LoopEnded("stopped" if schedule.stopped else "done", schedule.stopped or ""))
        except KeyboardInterrupt:
            shutdown.interrupt()
            self._on_event(LoopEnded("interrupted"))
        except ExecutorLostError as error:
            self._on_event(LoopEnded("lost", str(error)))
        except StoreError as error:
            self.store_error = error
            self._on_event(LoopEnded("stopped", str(error)))
        finally:
            schedule.codes[np.isin(schedule.codes, (State.RUNNING, State.ELSEWHERE))] = State.PENDING
            # All of it, whoever interrupts once more meanwhile.
            with contextlib.ExitStack() as ending:
                ending.callback(self._write_late_records)
                ending.callback(remove_heartbeat, self._session.outputs.folder)
                ending.callback(self._sweep_scratch, self._driver)
                ending.callback(self._executor.stop)
        return shutdown.exit_code

    def _note(self, attempt: Attempt | None) -> None:
        if attempt:
            self._results.note(attempt)
            self._late_records.keep(attempt)
            if self._publisher:
                self._publisher.note(attempt)
            self._estimator.note(attempt)
            self._growth.note(attempt)
        self._on_event(Progressed(attempt))

    def _grow(self) -> list[int]:
        # Whatever is endured tells that the store answers, so that it must have been asked.
        return OUTAGE.endure(self._growth.advance) if self._growth.due else []

    def _store_answers(self) -> bool:
        """Tell whether the store can be reached now; that it cannot is told once, also where only workers need it."""
        return OUTAGE.look(lambda: self._session.store.manifests([self._session.plan.address(0)]))

    def _write_late_records(self) -> None:
        with self._troubles.contained("recording the attempts that failed"):
            self._late_records.write()

    def _report_stages_and_studies(self) -> None:
        for study in self._watch.ended():
            self._on_event(StudyEnded(study))
        for name in self._schedule.broken.keys() - self._reported:
            self._reported.add(name)
            reason = self._schedule.broken[name]
            self._on_event(StageBroken(name, reason))
            facts = {"sweep": self._session.spec.name, "stage": name, "reason": reason}
            _call_hook(self._session.spec.hooks.breaker, "breaker", facts, self._on_event)
        if self._schedule.stopped and "stopping" not in self._reported:
            self._reported.add("stopping")
            self._on_event(Stopping(self._schedule.stopped))

    def _write_heartbeat(self) -> None:
        """Write the heartbeat, publish the cells that ended, and report steps that no node can run."""
        self._estimator.read_logs(self._session.store)
        self._write_late_records()
        with self._troubles.contained("writing the heartbeat (running.json)"):
            content = {"plan": self._session.plan.digest, **self._pulse.take(), **self._estimator.to_json()}
            write_heartbeat(self._session.outputs.folder, content)
        if self._publisher:
            with self._troubles.contained("writing the outbox (runs for MLflow)"):
                self._publisher.publish()
            if self._publisher.trouble and "MLflow" not in self._reported:
                self._reported.add("MLflow")
                self._on_event(MlflowDelayed(self._publisher.trouble))
        for sentence in self._executor.silent():
            self._on_event(Troubled(sentence))
        self._troubles.places(self._executor.sick())
        resources = self._executor.unschedulable()
        if resources and resources not in self._reported:
            self._reported.add(resources)
            self._on_event(Unschedulable(resources))

    def _write_table(self, now: float) -> float:
        """Rewrite the table; return the monotonic time when that is due again."""
        written = False
        with self._troubles.contained("writing the table"):
            write_results(self._results.table(), self._session.outputs.results)
            written = True
        took = time.monotonic() - now
        with self._troubles.contained(_MIRRORING):
            self._mirror.tick()
        return time.monotonic() + max(HEARTBEAT_EVERY, took / _SHARE if written else took)

    def _sweep_scratch(self, ended: str | None = None) -> None:
        """Delete abandoned unfinished work; a failure of that does not end the run."""
        with contextlib.suppress(StoreError):
            self._session.store.sweep(ended, running=self._driver)

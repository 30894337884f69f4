"""`sweep run`: drives the loop and keeps table, display and MLflow up with it."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from rich.markup import escape

from orchestrator.cli import console as screen
from orchestrator.cli.progress import Progress
from orchestrator.cli.show_results import show_missing, show_summary
from orchestrator.code import code_commit
from orchestrator.command import repeat_options, spell
from orchestrator.explain.eta import Pace
from orchestrator.explain.forecast import past_steps
from orchestrator.explain.progress import listen
from orchestrator.plan.needed import needed_steps
from orchestrator.redact import redact
from orchestrator.results.heartbeat import pack_codes
from orchestrator.results.parquet import write_results
from orchestrator.results.status import STATUSES
from orchestrator.results.summary import summarise
from orchestrator.results.table import Results
from orchestrator.run.executors import Executor, ExecutorLostError, Standing
from orchestrator.run.failures import error_groups
from orchestrator.run.hooks import call_hook
from orchestrator.run.loop import run_plan
from orchestrator.run.schedule import State
from orchestrator.run.shutdown import Stop
from orchestrator.run.trouble import Troubles
from orchestrator.session import PULSE_EVERY, Session
from orchestrator.store import StoreError
from orchestrator.store.claims import PATIENCE
from orchestrator.store.scratch import BEAT
from orchestrator.tracking.experiment import experiment_of
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.publisher import Publisher, post_table
from orchestrator.tracking.runs import Projection

#: The share of wall time that telling others may take: rewriting the table in mid-run, and the statuses of all cells.
_SHARE = 0.01
#: Of so many kinds of error the pulse tells.
_ERRORS = 50


def drive(session: Session, address: str | None, inline: bool, tracking_uri: str | None) -> int:
    """Run what is missing of a sweep; returns the exit code."""
    screen.say(f"[bold]{session.spec.name}[/]: {escape(session.spec.question)}")
    screen.say(f"outputs: {escape(str(session.outputs.root))} ({session.outputs.reason})")
    session.store.prepare()
    results = Results(session.plan, session.store, session.schedule)
    for damage in results.set_damaged_aside():
        screen.say(f"[yellow]{damage}; it is made again[/]")
    results.read_failures()
    stopped: int | None = None
    tracked = session.spec.tracking is not False
    uri = session.tracking_uri(tracking_uri)
    courier = Publisher(results, session.file, session.outputs, uri) if tracked else None
    ran = not session.schedule.done
    if not ran:
        screen.say(f"nothing to do: {_finished(session, results)}")
    else:
        screen.say(f"{len(session.chosen)} cells, {int(session.schedule.needed.sum())} steps to run")
        executor = _executor(address, inline, session.spec.modules)
        if executor is None:
            return 2
        stopped = _run(session, results, executor, courier)
    unwritten: StoreError | None = None
    try:
        table = results.table()
    except StoreError as error:
        raise _unwritten(session, error) from error
    try:
        write_results(table, session.outputs.results)
    except StoreError as error:
        # It is told when all else is done.
        unwritten = _unwritten(session, error)
    if courier:
        _deliver(session, courier, table, stopped is not None, tracking_uri)
    if session.entry and session.schedule.done and ran:
        screen.say(_finished(session, results))
    code = _conclude(session, table, tracking_uri, stopped, unwritten is None)
    facts = {"sweep": session.spec.name, "exit_code": 2 if unwritten else code}
    facts |= {"cells": Counter(table["status"].to_pylist()), "table": str(session.outputs.results)}
    _tell(session.spec.hooks.finish, "finish", facts)
    if unwritten:
        raise unwritten
    return code


def _unwritten(session: Session, error: StoreError) -> StoreError:
    return StoreError(
        f"the table {session.outputs.results} was not written: {error}. What was computed is kept; once the place can "
        f"be read and written, this makes the table: {session.command('results')}"
    )


def synchronise(session: Session, table: pa.Table, tracking_uri: str | None, rebuild: bool = False) -> bool:
    """`sweep sync`: make MLflow show exactly the finished, failed and blocked rows of a table; whether that worked.

    Args:
        session: the sweep.
        table: its results table.
        tracking_uri: MLflow, if another than the sweep's.
        rebuild: delete MLflow's experiment first.

    Raises:
        StoreError: the outbox cannot be written.
    """
    from orchestrator.tracking.client import TrackingError
    from orchestrator.tracking.sync import sync_runs

    outbox, projection = Outbox(session.outputs.outbox), Projection(session.plan)
    summary = _summary(session, table)
    uri = session.tracking_uri(tracking_uri)
    experiment = experiment_of(projection, session.file, session.outputs, uri, summary)
    try:
        post_table(projection, outbox, session.store, session.schedule.committed, table, exact=True)
    except OSError as error:
        raise StoreError(f"{outbox.folder} cannot be written: {error.strerror or error}") from error
    try:
        with screen.bar("writing MLflow runs") as advance:
            synced = sync_runs(outbox, experiment, advance, rebuild)
    except TrackingError as error:
        screen.say(f"[yellow]{escape(str(error))}[/]")
        again = session.command("sync", *repeat_options({"--tracking-uri": tracking_uri, "--rebuild": rebuild}))
        screen.say(f"then: {escape(again)}")
        return False
    screen.say(f"MLflow: {synced.created} runs written, {synced.replaced} replaced, {synced.unchanged} unchanged")
    return True


def keep_report(session: Session, folder: Path, tracking_uri: str | None) -> bool:
    """Make the files of a report artifacts of the sweep's run in MLflow; whether that worked."""
    from orchestrator.tracking.client import TrackingError
    from orchestrator.tracking.sync import attach

    outbox = Outbox(session.outputs.outbox)
    uri = session.tracking_uri(tracking_uri)
    experiment = experiment_of(Projection(session.plan), session.file, session.outputs, uri)
    try:
        for place in (folder, folder / "figures", folder / "tables"):
            files = sorted(file for file in place.iterdir() if file.is_file())
            attach(outbox, experiment, files, str(Path("report") / place.relative_to(folder)))
    except TrackingError as error:
        screen.say(f"[yellow]{escape(str(error))}[/]")
        return False
    screen.say("MLflow: the report is with the run of the sweep")
    return True


def _deliver(session: Session, courier: Publisher, table: pa.Table, stopped: bool, tracking_uri: str | None) -> None:
    """Tell MLflow the rest of a run. A sweep does not fail for want of MLflow."""
    with screen.bar("writing MLflow runs") as advance:
        found = courier.finish(table, _summary(session, table), stopped, advance)
    if found.created or found.replaced:
        screen.say(f"MLflow: {found.created} runs written, {found.replaced} replaced, {found.unchanged} unchanged")
    if found.error:
        screen.say(f"[yellow]{escape(found.error)}[/]")
        waiting = f"{found.left} of {len(courier.outbox.digests)} runs wait in {session.outputs.outbox}; "
        sync = session.command("sync", *repeat_options({"--tracking-uri": tracking_uri}))
        then = f"the next run writes them, or then: {sync}"
        screen.say(escape(f"{waiting if found.left else ''}{then}"))


def _summary(session: Session, table: pa.Table) -> pa.Table | None:
    done = any(status == "succeeded" for status in table["status"].to_pylist())
    return summarise(table, session.spec) if done else None


def _executor(address: str | None, inline: bool, modules: Collection[str]) -> Executor | None:
    if inline:
        from orchestrator.run.executors.inline import InlineExecutor

        return InlineExecutor()
    from orchestrator.run.executors.ray_cluster import RayExecutor
    from orchestrator.run.executors.ray_start import RayUnreachableError

    try:
        with screen.spinner("starting Ray" if not (address or os.environ.get("RAY_ADDRESS")) else "connecting to Ray"):
            return RayExecutor(address, modules)
    except RayUnreachableError as error:
        screen.say(f"[red]{escape(str(error))}[/]")
        return None


def _run(session: Session, results: Results, executor: Executor, courier: Publisher | None) -> int | None:
    """Run the loop; returns the exit code if it was told to end early."""
    stop = Stop(session.schedule, drains=executor.bundle_seconds > 0)
    told: set[str] = set()
    troubles = Troubles(lambda line: _say(f"[yellow]{escape(line)}[/]"))
    driver = secrets.token_hex(8)
    pulse_due = time.monotonic()
    # Importing it must not count as the time that the first table takes.
    import pyarrow.parquet  # noqa: F401

    table_due = pulse_due + PULSE_EVERY
    sweep_due = pulse_due + BEAT
    heart = _Heart(session, results, executor)
    # What failed in an earlier command is tried again now; failures outside the selection stay on record.
    session.schedule.codes[session.schedule.needed] = State.PENDING
    for number in [number for number in results.failures if session.schedule.needed[number]]:
        del results.failures[number]
    try:
        pace = _pace(session, executor, troubles)
        with stop, Progress(session.schedule, screen.console, pace) as progress:
            for attempt in run_plan(session.schedule, session.store, executor, code_commit(), driver):
                if attempt:
                    results.note(attempt)
                    if courier:
                        courier.note(attempt)
                progress.advance(attempt)
                stop.check()
                for name in session.schedule.broken.keys() - told:
                    told.add(name)
                    reason = session.schedule.broken[name]
                    _say(f"[red]{escape(reason)}[/]")
                    facts = {"sweep": session.spec.name, "stage": name, "reason": reason}
                    _tell(session.spec.hooks.breaker, "breaker", facts)
                now = time.monotonic()
                if now >= pulse_due:
                    listen(session.schedule, session.store, pace)
                    with troubles.contained("telling others where the sweep stands (running.json)"):
                        heart.beat(pace)
                    if courier:
                        with troubles.contained("writing down what MLflow is to be told"):
                            courier.publish()
                        if courier.trouble and "MLflow" not in told:
                            told.add("MLflow")
                            _say(f"[yellow]{escape(courier.trouble)}; the sweep goes on, MLflow is told later[/]")
                    lacks = executor.lacks()
                    if lacks and lacks not in told:
                        told.add(lacks)
                        _say(f"[yellow]no node of the cluster has {lacks}; steps wait until one joins[/]")
                    # Where a place does not answer, steps still come first.
                    pulse_due = time.monotonic() + max(PULSE_EVERY, time.monotonic() - now)
                if now >= sweep_due:
                    sweep_due = now + BEAT
                    _sweep(session)
                if now >= table_due:
                    written = False
                    with troubles.contained("writing the table"):
                        write_results(results.table(), session.outputs.results)
                        written = True
                    took = time.monotonic() - now
                    table_due = time.monotonic() + max(PULSE_EVERY, took / _SHARE if written else took)
        if session.schedule.stopped:
            screen.say(f"[red]stopped: {escape(session.schedule.stopped)}[/]")
    except KeyboardInterrupt:
        stop.interrupt()
        screen.say("[yellow]interrupted; what was running is abandoned, the rest is kept[/]")
    except ExecutorLostError as error:
        screen.say(f"[red]{escape(str(error))}; what was running is lost, the rest is kept[/]")
    finally:
        under_way = np.isin(session.schedule.codes, (State.RUNNING, State.ELSEWHERE))
        session.schedule.codes[under_way] = State.PENDING
        executor.stop()
        _sweep(session, driver)
        session.stop_pulse()
    return stop.exit_code


def _sweep(session: Session, ended: str | None = None) -> None:
    """Drop unfinished work that is nobody's. A run does not end for want of that."""
    with contextlib.suppress(StoreError):
        session.store.sweep(PATIENCE, ended)


class _Heart:
    """Tells other processes, and the cluster's monitoring, where the sweep stands."""

    def __init__(self, session: Session, results: Results, executor: Executor) -> None:
        self._session = session
        self._results = results
        self._executor = executor
        self._cells: Mapping[str, int] = {}
        self._packed: str | None = None
        self._errors: list[dict[str, Any]] = []
        self._cells_due = time.monotonic()

    def beat(self, pace: Pace) -> None:
        now = time.monotonic()
        if now >= self._cells_due:
            statuses = self._results.statuses()
            codes = np.array([STATUSES.index(status) for status, _ in statuses], np.uint8)
            counts = np.bincount(codes, minlength=len(STATUSES)).tolist()
            self._cells, self._packed = dict(zip(STATUSES, counts, strict=True)), pack_codes(codes)
            ended = ((status, each.error_class, each.error, each.log) for status, each in statuses if each)
            self._errors = [group._asdict() for group in error_groups(ended)[:_ERRORS]]
            self._cells_due = time.monotonic() + (time.monotonic() - now) / _SHARE
        steps = {
            name: {str(state): each[state] for state in each} for name, each in self._session.schedule.counts().items()
        }
        memory = psutil.virtual_memory()
        machine = {"host": socket.gethostname(), "cpus": psutil.cpu_count() or 1, "cpu_percent": psutil.cpu_percent()}
        machine |= {"memory_used": memory.total - memory.available, "memory": memory.total}
        usage = {"cluster": self._executor.usage(), "machine": machine}
        failures = Counter((each.entry, each.error_class or "") for each in self._results.failures.values())
        self._executor.publish(self._session.spec.name, Standing(steps, self._cells, failures))
        standing = {"steps": steps, "cells": self._packed, "errors": self._errors, "usage": usage}
        self._session.write_pulse(standing, pace, self._session.schedule.ahead())


def _say(text: str) -> None:
    """Print a line in mid-run: a sweep does not end with its terminal, or with the disk of its log."""
    with contextlib.suppress(OSError):
        screen.say(text)


def _pace(session: Session, executor: Executor, troubles: Troubles) -> Pace:
    """What is known of the speed before the first step ends: from steps of earlier commands and sweeps."""
    plan = session.plan
    runtimes = {
        name: session.spec.runtime_of(name, plan.coords(plan.by_entry[name].first) if len(plan) else {})
        for name in plan.entries
    }
    slots = {name: float(executor.slots(runtime)) for name, runtime in runtimes.items()}
    pace = Pace(slots, frozenset(name for name, runtime in runtimes.items() if runtime.gpus))
    with troubles.contained("reading how long steps took before"):
        for name, kinds in past_steps(session.schedule, session.store).items():
            for kind, manifests in kinds.items():
                for manifest in manifests:
                    pace.note(name, kind, manifest.seconds)
    return pace


def _tell(command: str | None, event: str, facts: Mapping[str, Any]) -> None:
    trouble = call_hook(command, event, facts)
    if trouble:
        _say(f"[yellow]{escape(trouble)}[/]")


def _finished(session: Session, results: Results) -> str:
    """What is finished, where nothing of what was asked for is left to run; no word on more than that."""
    plan, chosen = session.plan, session.chosen
    if session.entry:
        remain = int(needed_steps(plan, session.schedule.committed, session.cells).sum())
        cells = _spell_cells(session, _lacking(session)[1])
        return f"{session.entry} is done for all {cells}; {remain or 'no'} steps of other stages remain"
    if not len(chosen):
        return f"none of the {session.considered} cells is unfinished"
    if session.cells is None:
        return f"all {len(chosen)} cells are finished"
    others = len(plan.points) - len(chosen)
    unfinished = sum(status != "succeeded" for status, _ in results.statuses())
    return f"all {len(chosen)} chosen cells are finished; of the other {others}, {unfinished or 'none'} are not"


def _lacking(session: Session) -> tuple[int, int]:
    """How many of the chosen cells lack the entry that is to be reached, and how many of them have it at all."""
    assert session.entry is not None, "only then"
    plan = session.plan
    firsts = plan.groups(session.entry)
    firsts = firsts if session.cells is None else firsts[session.cells]
    firsts = firsts[firsts >= 0]
    lacks = np.concatenate([[0], np.cumsum(~session.schedule.committed)])
    return int((lacks[firsts + plan.size[firsts]] > lacks[firsts]).sum()), len(firsts)


def _spell_cells(session: Session, having: int) -> str:
    """How many cells an entry that is to be reached concerns, in words."""
    chosen = "cells" if session.cells is None else "chosen cells"
    return f"{having} {chosen}" + ("" if having == len(session.chosen) else f" that have {session.entry}")


def _conclude(session: Session, table: pa.Table, tracking_uri: str | None, stopped: int | None, written: bool) -> int:
    succeeded = sum(status == "succeeded" for status in table["status"].to_pylist())
    if succeeded:
        show_summary(session, summarise(table, session.spec))
    ids = table["cell_id"].to_pylist()
    chosen = {ids[index] for index in session.chosen}
    missing = [
        row
        for row in table.select(["cell_id", "status"]).to_pylist()
        if row["cell_id"] in chosen and row["status"] != "succeeded"
    ]
    if written:
        screen.say(f"table:  {session.outputs.results}")
    if session.spec.tracking is not False:
        uri = session.tracking_uri(tracking_uri)
        mlflow = str(Path(sys.executable).with_name("mlflow"))
        served = uri.startswith(("http://", "https://"))
        show = redact(uri) if served or "://" not in uri else spell([mlflow, "ui", "--backend-store-uri", uri])
        screen.say(f"MLflow: {escape(show)}")
    if missing and session.entry and session.schedule.done:
        screen.say(f"without --stage the same command finishes the {len(missing)} cells that are missing")
        return stopped or 0
    if missing:
        show_missing(table, chosen)
        tried = any(row["status"] in ("failed", "blocked") for row in missing)
        again = "the same command tries them again" if tried and not stopped else "the same command goes on"
        command = escape(session.command("run", *session.selection, *session.options))
        what = f"{len(missing)} of {len(chosen)} cells are missing"
        if session.entry:
            lacking, of_cells = _lacking(session)
            what = f"{session.entry} is missing for {lacking} of {_spell_cells(session, of_cells)}"
        screen.say(f"[red]{what}[/]; {again}: {command}")
        first = next((row for row in missing if row["status"] in ("failed", "blocked")), missing[0])
        screen.say(f"explain one: {escape(session.command('why', first['cell_id']))}")
    if stopped:
        return stopped
    return 1 if missing else 0

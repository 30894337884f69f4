"""`sweep status`: where a sweep stands."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from orchestrator.explain.other_code import made_by_other_code
from orchestrator.results.best import STATES, Found, find_best
from orchestrator.results.choose import choose_studies
from orchestrator.results.heartbeat import HEARTBEAT_EVERY, read_heartbeat
from orchestrator.results.study_watch import StudyWatch, chosen_studies
from orchestrator.results.table import Results
from orchestrator.run.failures import error_groups
from orchestrator.run.schedule import State
from orchestrator.session import Session
from orchestrator.sweep.problems import Problem, SweepError


def status(session: Session) -> dict[str, Any]:
    """Return steps by state, statuses of the chosen cells and their errors in groups, as JSON.

    A living driver tells rates, the time left, and the devices and nodes that get no work; one that runs another
    version of the sweep tells nothing of these steps: `left` is None then.

    Raises:
        StoreError: the store cannot be read.
    """
    results = Results(session.plan, session.store, session.schedule, session.studies)
    results.read_failures()
    studies = _studies(session, results)
    of_all = results.statuses()
    statuses = [of_all[index] for index in session.chosen]
    heartbeat = read_heartbeat(session.outputs.folder, session.plan.entries)
    live = bool(heartbeat)
    if heartbeat and heartbeat.get("plan") != session.plan.digest:
        heartbeat = None
    steps: dict[str, dict[str, Any]] = {}
    for name, counts in session.schedule.counts().items():
        running = heartbeat["steps"].get(name, {}).get("running", 0) if heartbeat else 0
        steps[name] = {
            "total": sum(counts.values()),
            "committed": counts[State.COMMITTED],
            "running": running,
            "pending": max(counts[State.PENDING] - running, 0),
            "failed": counts[State.FAILED],
            "blocked": counts[State.BLOCKED],
            "per_minute": heartbeat["pace"][name]["per_minute"] if heartbeat else None,
            "seconds": heartbeat["pace"][name]["seconds"] if heartbeat else None,
        }
    rows = (
        (status, each.error_class, each.error, each.log) if each else (status, None, None, None)
        for status, each in statuses
    )
    return {
        "cells": len(statuses),
        "cells_by_status": dict(Counter(status for status, _ in statuses)),
        "may_come": sum(each["may_come"] for each in studies),
        "studies": studies,
        "steps": steps,
        "errors": [group._asdict() for group in error_groups(rows) if group.example],
        "other_code": [asdict(each) for each in made_by_other_code(session)],
        "sick": heartbeat.get("sick", {}) if heartbeat else {},
        "live": live,
        "left": heartbeat["left"] if heartbeat else None,
    }


def _studies(session: Session, results: Results) -> list[dict[str, Any]]:
    """Return the chosen studies of a search: how many of their trials are in which state, and what may come."""
    if not session.studies.all:
        return []
    results.look()
    watch = StudyWatch(session.studies, results, session.cells)
    found = []
    for study in chosen_studies(session.studies, session.cells):
        states = Counter(trial.state for trial in study.trials(results))
        trials = {state: states[state] for state in STATES}
        found.append(
            {"study": study.name, "budget": study.budget, "trials": trials, "may_come": len(watch.may_come_of(study))}
        )
    return found


def best_of(session: Session, name: str | None = None) -> list[Found]:
    """Return the studies of a search with their best trials; changes nothing.

    Args:
        session: the sweep.
        name: names the studies that are meant, as `choose_studies` reads it; None for all.

    Raises:
        SweepError: the sweep has no search, or no study of that name.
        StoreError: the store cannot be read.
    """
    if session.spec.searched is None:
        message = "has no `search`, so there are no trials; `sweep results` shows its means"
        raise SweepError([Problem(str(session.file), "", message)])
    results = Results(session.plan, session.store, session.schedule, session.studies)
    results.look()
    results.read_failures()
    found = find_best(session.studies, results, session.cells)
    if name is None:
        return found
    chosen = {study.name for study in choose_studies([each.study for each in found], name)}
    return [each for each in found if each.study.name in chosen]


def watch_status(session: Session) -> Iterator[dict[str, Any]]:
    """Yield the status again and again, until no driver is running; looking takes at most a fifth of the time.

    Raises:
        StoreError: the store cannot be read.
    """
    while True:
        started = time.monotonic()
        report = status(replace(session))
        yield report
        if not report["live"]:
            return
        time.sleep(max(HEARTBEAT_EVERY, 4 * (time.monotonic() - started)))

"""`sweep plan`: what would run, why, and at what cost."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from orchestrator.explain.eta import Eta
from orchestrator.explain.forecast import Cost, forecast
from orchestrator.explain.other_code import made_by_other_code
from orchestrator.explain.why import Reasons
from orchestrator.plan.grid import Mask
from orchestrator.run.failures import read_failures
from orchestrator.run.schedule import State
from orchestrator.search.rounds import coming_steps
from orchestrator.session import Session


def preview(session: Session, cpus: float | None = None, gpus: float = 0) -> dict[str, Any]:
    """Return, per entry, the steps, why they are not there, and what they will probably cost, as JSON.

    Args:
        session: the sweep.
        cpus: cores of the cluster; None for those of this machine.
        gpus: GPUs of the cluster.

    Raises:
        StoreError: the store cannot be read.
    """
    schedule, store = session.schedule, session.store
    steps: dict[str, dict[str, Any]] = {name: dict(each) for name, each in schedule.totals().items()}
    failures = read_failures(schedule, store)
    counts = schedule.counts()
    reasons = Reasons(schedule, store, failures)
    search, coming = _search(session)
    expected = forecast(schedule, store, cpus or os.cpu_count() or 1, gpus, coming)
    may_come = np.bincount(session.plan.home[coming], minlength=len(steps)).tolist()
    for (name, each), more in zip(steps.items(), may_come, strict=True):
        each |= {"failed": counts[name][State.FAILED], "blocked": counts[name][State.BLOCKED]}
        cost = expected.costs.get(name)
        if cost:
            each["expected"] = asdict(cost)
        if search:
            each["may_come"] = more
            if name in expected.coming:
                each["expected_to_come"] = asdict(expected.coming[name])
        each["reasons"] = dict(reasons.of_entry(name).most_common()) if each["to_run"] else {}
    return {
        "other_code": [asdict(each) for each in made_by_other_code(session)],
        "cells": len(session.chosen),
        "steps": steps,
        "expected": _sum(expected.costs, expected.eta),
        **({"search": search} if search else {}),
        **({"expected_to_come": _sum(expected.coming, expected.coming_eta)} if search else {}),
    }


def _sum(costs: Mapping[str, Cost], eta: Eta) -> dict[str, Any]:
    return {
        "cpu_hours": sum(each.cpu_hours for each in costs.values()),
        "gpu_hours": sum(each.gpu_hours for each in costs.values()),
        "bytes": sum(each.bytes for each in costs.values()),
        "wall_seconds": [eta.low, eta.high],
        "unknown_steps": eta.unknown,
        "steps": eta.steps,
    }


def _search(session: Session) -> tuple[dict[str, Any] | None, Mask]:
    """Return what is known of the search of a sweep before it is run, as JSON, and the steps that may come."""
    plan, schedule = session.plan, session.schedule
    if not session.studies.all:
        return None, np.zeros(len(plan), np.bool_)
    # They import Arrow.
    from orchestrator.results.study_watch import StudyWatch, chosen_studies
    from orchestrator.results.table import Results

    results = Results(plan, session.store, schedule, session.studies)
    results.look()
    results.read_failures()
    watch = StudyWatch(session.studies, results, session.cells)
    studies, cells = chosen_studies(session.studies, session.cells), watch.may_come()
    search = {
        "name": session.spec.search_name,
        "studies": len(studies),
        "unfinished": len(watch.open),
        "trials": max((study.budget for study in studies), default=0),
        "repetitions": max((len(study.over[0]) for study in studies), default=0),
        "fresh": max((len(study.fresh[0]) for study in studies), default=0),
        "may_come": len(cells),
        "notes": session.search_notes(),
    }
    # What is there already, or is to be run in any case, costs nothing more.
    return search, coming_steps(plan, cells) & ~schedule.committed & ~schedule.needed

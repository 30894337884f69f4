"""`sweep plan`: what would run, why, and at what cost."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from orchestrator.explain.forecast import forecast
from orchestrator.explain.other_code import made_by_other_code
from orchestrator.explain.why import Reasons
from orchestrator.run.failures import read_failures
from orchestrator.run.schedule import State
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
    expected = forecast(schedule, store, cpus or os.cpu_count() or 1, gpus)
    for name, each in steps.items():
        each |= {"failed": counts[name][State.FAILED], "blocked": counts[name][State.BLOCKED]}
        cost = expected.costs.get(name)
        if cost:
            each["expected"] = asdict(cost)
        each["reasons"] = dict(reasons.of_entry(name).most_common()) if each["to_run"] else {}
    return {
        "other_code": [asdict(each) for each in made_by_other_code(session)],
        "cells": len(session.chosen),
        "steps": steps,
        "expected": {
            "cpu_hours": sum(each.cpu_hours for each in expected.costs.values()),
            "gpu_hours": sum(each.gpu_hours for each in expected.costs.values()),
            "bytes": sum(each.bytes for each in expected.costs.values()),
            "wall_seconds": [expected.eta.low, expected.eta.high],
            "unknown_steps": expected.eta.unknown,
            "steps": expected.eta.steps,
        },
    }

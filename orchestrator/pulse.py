"""What a run tells of itself: to the heartbeat beside its table, and to the monitoring of its cluster."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import psutil

from orchestrator.results.heartbeat import pack_codes
from orchestrator.results.status import STATUSES
from orchestrator.results.table import Results
from orchestrator.run.executors import Executor, Snapshot
from orchestrator.run.failures import error_groups
from orchestrator.session import Session

#: The share of wall time that counting cells by status may take.
_SHARE = 0.01
#: Maximal number of error groups in the heartbeat.
_ERROR_GROUPS = 50


class Pulse:
    """The state of a run, for its heartbeat and for the cluster's monitoring."""

    def __init__(self, session: Session, results: Results, executor: Executor) -> None:
        """Start with nothing counted."""
        self._session = session
        self._results = results
        self._executor = executor
        self._cells: Mapping[str, int] = {}
        self._packed: str | None = None
        self._errors: list[dict[str, Any]] = []
        self._cells_due = time.monotonic()

    def take(self) -> dict[str, Any]:
        """Return the state as JSON, and publish it to the cluster.

        Counting cells by status takes at most 1 % of wall time, so these numbers may be older than the others.
        """
        now = time.monotonic()
        if now >= self._cells_due:
            self._count_cells()
            self._cells_due = time.monotonic() + (time.monotonic() - now) / _SHARE
        counts = self._session.schedule.counts()
        steps = {name: {str(state): each[state] for state in each} for name, each in counts.items()}
        failures = Counter((each.entry, each.error_class or "") for each in self._results.failures.values())
        self._executor.publish(self._session.spec.name, Snapshot(steps, self._cells, failures))
        memory = psutil.virtual_memory()
        machine = {"host": socket.gethostname(), "cpus": psutil.cpu_count() or 1, "cpu_percent": psutil.cpu_percent()}
        machine |= {"memory_used": memory.total - memory.available, "memory": memory.total}
        usage = {"cluster": self._executor.usage(), "machine": machine}
        sick = dict(self._executor.sick())
        return {"steps": steps, "cells": self._packed, "errors": self._errors, "usage": usage, "sick": sick}

    def _count_cells(self) -> None:
        codes = self._results.codes()
        counts = np.bincount(codes, minlength=len(STATUSES)).tolist()
        self._cells, self._packed = dict(zip(STATUSES, counts, strict=True)), pack_codes(codes)
        statuses = self._results.statuses() if self._results.failures else []
        ended = ((status, each.error_class, each.error, each.log) for status, each in statuses if each)
        self._errors = [group._asdict() for group in error_groups(ended)[:_ERROR_GROUPS]]

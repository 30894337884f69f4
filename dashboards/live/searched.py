"""The studies of a search as the live page follows them. Nothing here knows Streamlit, and nothing writes.

Their records say which cells there are; the results table, what came of them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.results.status import STATUSES
from orchestrator.search.record_files import read_history
from orchestrator.search.rounds import may_come
from orchestrator.search.studies import Measured, Studies
from orchestrator.search.trial import Study
from orchestrator.session import Session
from orchestrator.store import StoreError


class Searched:
    """A follower of the studies of a sweep. It lets the sweep's plan grow, so its callers hold a lock."""

    def __init__(self, session: Session) -> None:
        """Start with nothing read."""
        self._session = session
        self._studies = Studies(session.plan)
        self._read = False
        self._known = np.zeros(len(session.plan.points), np.bool_)
        """The cells that a driver told of, and whose records were read."""
        self._version: object = None
        self._seen: tuple[object, tuple[Study, ...], int] | None = None

    def grow(self, codes: np.ndarray | None, version: object) -> None:
        """Decide the cells that there are now.

        Args:
            codes: the status of each cell, as a living driver tells; None without one.
            version: changes with the results table.

        Raises:
            StoreError: the store cannot be read, or a record is damaged.
        """
        plan, every = self._session.plan, range(len(self._studies.all))
        changed, self._version = version != self._version, version
        if codes is None:
            if changed or not self._read:
                # What cannot be read is told, and tried again, at every look.
                self._read = False
                self._read_records(every)
                # Results say where the best trial is measured again.
                assert replace(self._session).schedule.plan is plan
                self._read = True
            return
        there = codes != STATUSES.index("undecided")
        missing = np.flatnonzero(there & ~self._known).tolist()
        # A verdict of a pruner need not bring a cell.
        whole = not self._read or (changed and plan.spec.searched and plan.spec.searched.pruner)
        self._read = False
        self._read_records(every if whole else sorted({self._studies.of_cell[cell][0] for cell in missing}))
        self._read = True
        for cell in missing:
            position, trial = self._studies.of_cell[cell]
            study = self._studies.all[position]
            # An object store may tell of a record after it was written.
            if trial in study.history.suggestions:
                self._studies.join(study, study.history.suggestions[trial], [cell])
                self._known[cell] = True

    def _read_records(self, positions: Collection[int]) -> None:
        """Read the records of some studies, also where those of one are damaged; that is raised in the end."""
        store, damage = self._session.store, None
        known = set(store.studies()) if positions else set()
        for position in positions:
            study = self._studies.all[position]
            try:
                if study.id in known:
                    study.history = read_history(store, study.id)
            except StoreError as error:
                damage = damage or error
            for suggestion in study.history.suggestions.values():
                self._studies.join(study, suggestion, study.recorded(suggestion.number))
        if damage:
            raise damage

    def values(self, cells: Sequence[int]) -> dict[str, list[Any]]:
        """Return for each field that is searched its value in some decided cells; None where it does not exist."""
        search = self._session.spec.searched
        found: dict[str, list[Any]] = {name: [] for name in (search.fields if search else ())}
        for cell in cells:
            position, trial = self._studies.of_cell[cell]
            suggestion = self._studies.all[position].history.suggestions.get(trial)
            for name, column in found.items():
                column.append(suggestion.values.get(name) if suggestion else None)
        return found

    def views(self, cells: pd.DataFrame, metrics: Collection[str], version: object) -> tuple[tuple[Study, ...], int]:
        """Return the studies as the table knows them, and how many cells may still come.

        Args:
            cells: `Look.cells` as the table has them.
            metrics: those of its columns that are metrics.
            version: of the table.
        """
        trials = [len(study.history.suggestions) + len(study.history.verdicts) for study in self._studies.all]
        if self._seen is None or self._seen[0] != (version, len(cells), trials):
            told, more = _Told(cells, metrics), 0
            for study in self._studies.all:
                # What failed may have been tried again since.
                study.ended.clear()
                # Which says of each trial whether it has ended.
                list(study.trials(told))
                more += len(may_come(study, self._studies.plan.decided))
            self._seen = (version, len(cells), trials), tuple(self._studies.views(told)), more
        return self._seen[1:]


class _Told:
    """What a table tells of cells, as `orchestrator.search.studies.Measurements`."""

    def __init__(self, cells: pd.DataFrame, metrics: Collection[str]) -> None:
        self._places = {index: place for place, index in enumerate(cells.index.tolist())}
        self._columns = {name: cells[name].tolist() for name in ("status", "trial_state", "error_class", "seconds")}
        self._metrics = {name: cells[name].tolist() for name in metrics}

    def measured(self, cell: int) -> Measured:
        """Return what is known of a cell."""
        place = self._places.get(cell)
        if place is None:
            return Measured("waiting")
        status, state, error, seconds = (column[place] for column in self._columns.values())
        took = {} if math.isnan(seconds) else {cell: seconds}
        if status == "succeeded":
            metrics = {name: values[place] for name, values in self._metrics.items() if not math.isnan(values[place])}
            return Measured("succeeded", metrics, seconds=took)
        if status in ("failed", "blocked") and state == "failed":
            return Measured("failed", why=error or "unknown", seconds=took)
        return Measured("waiting", seconds=took)

    def join(self, steps: Sequence[int]) -> None:
        """A table knows of no steps."""

"""Optuna's own copy of the studies of a sweep, kept up beside a run. Nothing reads it back."""

from __future__ import annotations

import time

from orchestrator.search.studies import Measurements, Studies
from orchestrator.store import StoreError
from orchestrator.sweep.outputs import Outputs
from orchestrator.sweep.problems import SweepError

#: The share of wall time that bringing it up to date during a run may take.
_SHARE = 0.01


class Mirror:
    """The copy of some studies in a storage of Optuna (`orchestrator.search.projection`); of none, there is none."""

    def __init__(self, studies: Studies, measurements: Measurements, outputs: Outputs) -> None:
        """Remember the studies; nothing is read or written yet.

        Args:
            studies: all of a plan.
            measurements: what became of their cells.
            outputs: the places of the sweep; the storage is a journal there unless the search names another one.
        """
        self._studies = studies
        self._measurements = measurements
        search = studies.plan.spec.searched
        self._storage = (search and search.storage) or str(outputs.journal)
        self._due = 0.0

    def check(self) -> None:
        """Bring the copy up to date, so that nothing is run if the storage is another sweep's; other errors can wait.

        Raises:
            SweepError: the storage has a study of somebody else's with the name of one of these.
        """
        if not self._studies.all:
            return
        from orchestrator.search.projection import StudyTakenError

        try:
            self.update()
        except StoreError as error:
            if isinstance(error.__cause__, StudyTakenError):
                spec = self._studies.plan.spec
                message = str(error.__cause__)
                raise SweepError([spec.problem(("search", str(spec.search_name), "storage"), message)]) from error

    def tick(self) -> None:
        """Bring the copy up to date if enough time has passed since the last time; raises what `update` does."""
        started = time.monotonic()
        if started >= self._due:
            try:
                self.update()
            finally:
                self._due = time.monotonic() + (time.monotonic() - started) / _SHARE

    def update(self) -> None:
        """Bring the copy up to date.

        Raises:
            StoreError: the storage cannot be used, with the remedy; the next call does what is left.
        """
        if not self._studies.all:
            return
        # Not before it is needed: it imports Optuna.
        from orchestrator.search.projection import ProjectionError, project

        try:
            project(self._studies.views(self._measurements), self._storage)
        except ProjectionError as error:
            raise StoreError(str(error)) from error

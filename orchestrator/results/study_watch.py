"""Follows the studies of a sweep: which of them end, and how many cells may still come."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from orchestrator.plan.grid import Mask
from orchestrator.search.rounds import has_ended, may_come
from orchestrator.search.studies import Measurements, OpenStudy, Studies
from orchestrator.search.trial import Study


class StudyWatch:
    """The chosen studies of a sweep, as far as they are not finished."""

    def __init__(self, studies: Studies, measurements: Measurements, cells: Mask | None = None) -> None:
        """Look at the trials as they are now.

        Args:
            studies: with their records.
            measurements: what became of their cells.
            cells: mask of the chosen cells; None for all.
        """
        self._plan = studies.plan
        self._measurements = measurements
        self._chosen = None if cells is None else frozenset(np.flatnonzero(cells).tolist())
        self.open: list[OpenStudy] = []
        """The chosen studies that have trials which have not ended, or are tried again because they failed."""
        for study in chosen_studies(studies, cells):
            for trial in list(study.trials(measurements)):
                if trial.state == "failed":
                    del study.ended[trial.number]
            if not has_ended(study):
                self.open.append(study)

    def may_come(self) -> list[int]:
        """Return the cells that may still come at most (`rounds.may_come`)."""
        return [cell for study in self.open for cell in self.may_come_of(study)]

    def may_come_of(self, study: OpenStudy) -> list[int]:
        """Return those of one study."""
        return may_come(study, self._plan.decided, self._chosen)

    def ended(self) -> Iterator[Study]:
        """Yield the studies of which all trials have ended since this was asked last."""
        over = [study for study in self.open if has_ended(study)]
        if over:
            self.open = [study for study in self.open if not has_ended(study)]
        for study in over:
            yield study.view(self._measurements)


def chosen_studies(studies: Studies, cells: Mask | None) -> list[OpenStudy]:
    """Return the studies of which some cell is chosen.

    Args:
        studies: all studies of a sweep.
        cells: mask of the chosen cells; None for all.
    """
    if cells is None:
        return studies.all
    positions = {studies.of_cell[cell][0] for cell in np.flatnonzero(cells).tolist()} if studies.all else set()
    return [studies.all[position] for position in sorted(positions)]

"""Lets the plan of a search grow while it is run: carries out what each round of its studies finds due."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.run.schedule import Schedule
from orchestrator.search.record_files import add_earlier, add_suggestion, add_verdict, describe
from orchestrator.search.records import Earlier, Suggestion, Verdict
from orchestrator.search.rounds import news, next_round
from orchestrator.search.start import start_trials
from orchestrator.search.studies import Measurements, OpenStudy, Studies
from orchestrator.search.trial import Trial
from orchestrator.store import Store
from orchestrator.types import Attempt

if TYPE_CHECKING:
    from orchestrator.search.sampling import Sampling


def catch_up(studies: Studies, schedule: Schedule, measurements: Measurements) -> None:
    """Decide all cells that are due by the records and the results so far; nothing is suggested, nothing recorded.

    Raises:
        StoreError: the store cannot be read.
    """
    for study in studies.all:
        while True:
            due = next_round(study, list(study.trials(measurements))).cells
            new = [(number, cell) for number, cells in due for cell in cells if not schedule.plan.decided[cell]]
            for number, cell in new:
                made = studies.join(study, study.history.suggestions[number], [cell])
                schedule.join([cell], made)
                measurements.join(made)
            if not new:
                break
        # What failed in an earlier command may be tried again.
        study.ended.clear()


class Growth:
    """What a driver does for the studies of its sweep."""

    def __init__(
        self,
        studies: Studies,
        schedule: Schedule,
        store: Store,
        measurements: Measurements,
        earlier: Callable[[OpenStudy], tuple[Earlier, ...]],
    ) -> None:
        """Start with all studies to be looked at.

        Args:
            studies: with the records as they were read.
            schedule: takes up the cells that join.
            store: where suggestions are recorded.
            measurements: what became of cells; it is told of steps that are new in the plan.
            earlier: returns what a study is told before its first trial; called once in the life of a study.
        """
        self._studies = studies
        self._schedule = schedule
        self._store = store
        self._measurements = measurements
        self._earlier = earlier
        self._samplings: dict[str, Sampling] = {}
        self._watchers: dict[int, set[int]] = {}
        """Step of a trial -> the studies that it belongs to."""
        self._due = set(range(len(studies.all)))
        self._chosen: Collection[int] | None = None
        if schedule.cells is not None:
            self._chosen = frozenset(np.flatnonzero(schedule.cells).tolist())
        for position, study in enumerate(studies.all):
            # A trial that failed in an earlier command is tried again in this one.
            study.ended.clear()
            for cells in (*study.over, *study.fresh):
                self._watch(position, [cell for cell in cells if schedule.plan.decided[cell]])

    def note(self, attempt: Attempt) -> None:
        """Take in an attempt that ended."""
        number = self._schedule.plan.number(attempt.address)
        self._due |= self._watchers.get(-1 if number is None else number, set())

    @property
    def pending(self) -> bool:
        """Whether something is due, so that the sweep is not over."""
        plan = self._schedule.plan
        for study in self._studies.all if self._schedule.entry is None else ():
            due = next_round(study, list(study.trials(self._measurements)), self._chosen)
            new = any(not plan.decided[cell] for _, cells in due.cells for cell in cells)
            if new or due.judge or due.suggest is not None:
                return True
        return False

    def advance(self) -> list[int]:
        """Carry out what is due, and return the steps that are to be run for it.

        Raises:
            StoreError: a suggestion cannot be recorded; the next call does what is left.
        """
        steps: list[int] = []
        while self._due:
            position = min(self._due)
            steps += self._advance(position)
            self._due.discard(position)
        return steps

    def _advance(self, position: int) -> list[int]:
        study, steps = self._studies.all[position], []
        while self._schedule.entry is None:
            trials = list(study.trials(self._measurements))
            due = next_round(study, trials, self._chosen)
            joined = False
            for number, cells in due.cells:
                new = [cell for cell in cells if not self._schedule.plan.decided[cell]]
                if new:
                    joined = True
                    steps += self._join(position, number, new)
            if due.judge:
                self._judge(study, trials, due.judge)
            elif due.suggest is not None and self._open_for_more():
                self._suggest(study, trials, due.suggest)
            elif not joined:
                if len(trials) >= study.budget:
                    self._samplings.pop(study.id, None)
                break
        return steps

    def _open_for_more(self) -> bool:
        """Whether trials make sense: not once a stage of theirs is stopped, or nothing is started any more."""
        broken = self._schedule.broken.keys() & set(self._schedule.plan.open_entries)
        return not broken and self._schedule.stopped is None

    def _join(self, position: int, number: int, cells: list[int]) -> list[int]:
        study = self._studies.all[position]
        made = self._studies.join(study, study.history.suggestions[number], cells)
        steps = self._schedule.join(cells, made)
        self._measurements.join(made)
        self._watch(position, cells)
        return steps

    def _watch(self, position: int, cells: Collection[int]) -> None:
        plan = self._schedule.plan
        for name in plan.open_entries:
            for first in plan.groups(name)[list(cells)].tolist():
                for number in range(first, first + int(plan.size[first]) if first >= 0 else first):
                    self._watchers.setdefault(number, set()).add(position)

    # --- the sampler

    def _suggest(self, study: OpenStudy, trials: list[Trial], number: int) -> None:
        sampling = self._sampling(study, trials)
        told = news(study, trials)
        for each in told:
            sampling.tell(each)
        wanted, origin = None, ""
        starts = start_trials(self._schedule.plan, study) if number < len(study.search.start) else []
        if number < len(starts):
            origin, wanted = starts[number]
        values, attributes = sampling.suggest(number, wanted)
        suggestion = Suggestion(number, values, told, attributes, origin, time.time())
        recorded = add_suggestion(self._store, study.id, suggestion)
        study.history.suggestions[number] = recorded
        if recorded != suggestion:
            # Another driver was first; its sampler was told what the record says.
            self._samplings.pop(study.id)

    def _judge(self, study: OpenStudy, trials: list[Trial], trial: Trial) -> None:
        sampling, step = self._sampling(study, trials), len(trial.steps) - 1
        for each in news(study, trials):
            sampling.tell(each)
        prune, attributes = sampling.judge(trial.number, trial.steps)
        verdict = Verdict(trial.number, step, prune, attributes)
        recorded = add_verdict(self._store, study.id, verdict)
        study.history.verdicts[trial.number, step] = recorded
        if recorded != verdict:
            self._samplings.pop(study.id)

    def _sampling(self, study: OpenStudy, trials: Sequence[Trial]) -> Sampling:
        """Return the sampler of a study in memory, made anew from the records where there is none."""
        found = self._samplings.get(study.id)
        if found is None:
            if study.history.earlier is None:
                describe(self._store, study.id, self._studies.description(study))
                study.history.earlier = add_earlier(self._store, study.id, self._earlier(study))
            # Not before it is needed: it imports Optuna.
            from orchestrator.search.sampling import Sampling

            found = Sampling(study.search, study.coords, study.id, study.history.earlier)
            told, verdicts = study.history.told, sorted(study.history.verdicts.items())
            for number, suggestion in study.history.suggestions.items():
                found.adopt(suggestion)
                steps = told[number].steps if number in told else trials[number].steps
                for (trial, step), verdict in verdicts:
                    if trial == number:
                        found.adopt_verdict(verdict, steps[: step + 1])
            self._samplings[study.id] = found
        return found

"""Lets the plan of a search grow while it is run: carries out what each round of its studies finds due."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.run.schedule import Schedule
from orchestrator.search.record_files import add_earlier, add_suggestion, add_verdict, describe, find_verdict
from orchestrator.search.records import Earlier, Suggestion, Verdict
from orchestrator.search.rounds import news, next_round
from orchestrator.search.start import start_trials
from orchestrator.search.studies import Measurements, OpenStudy, Studies
from orchestrator.search.trial import Trial
from orchestrator.store import Store
from orchestrator.types import Attempt, Outcome

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
                if number not in study.invalid:
                    schedule.join([cell], made)
                    measurements.join(made)
            if not new:
                break
        # What failed in an earlier command may be tried again.
        study.ended.clear()


@dataclass
class _Sampler:
    """The sampler of a study in memory."""

    sampling: Sampling
    told: set[int]
    """The trials that it was told of."""
    valid: bool = True
    """Whether the records say what it says."""


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
        self._samplers: dict[str, _Sampler] = {}
        self._watchers: dict[int, set[int]] = {}
        """Step of a trial -> the studies that it belongs to."""
        self._due = set(range(len(studies.all)))
        self._joining: list[tuple[int, list[int], list[int]]] = []
        """(Study, cells that the plan has gained, steps that are new with them) that are not scheduled yet."""
        self._unread: list[int] = []
        """New steps, some of which may have been committed before."""
        self._steps: list[int] = []
        """Steps that are to be run for them, and are not returned yet."""
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
        if number is not None and attempt.outcome is Outcome.SUCCEEDED:
            self._due |= self._watchers.pop(number, set())
        elif number is not None:
            self._due |= self._watchers.get(number, set())

    @property
    def due(self) -> bool:
        """Whether `advance` has something to look at."""
        return bool(self._due or self._joining or self._steps)

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
        while self._due:
            position = min(self._due)
            self._advance(position)
            self._due.discard(position)
        steps, self._steps = self._steps, []
        return steps

    def _advance(self, position: int) -> None:
        study = self._studies.all[position]
        while self._schedule.entry is None:
            self._take_in()
            trials = list(study.trials(self._measurements))
            due = next_round(study, trials, self._chosen)
            joined = False
            for number, cells in due.cells:
                new = [cell for cell in cells if not self._schedule.plan.decided[cell]]
                if new:
                    joined = True
                    made = self._studies.join(study, study.history.suggestions[number], new)
                    if number not in study.invalid:
                        self._joining.append((position, new, made))
            if due.judge:
                self._judge(study, trials, due.judge)
            elif due.suggest is not None and self._open_for_more():
                self._suggest(study, trials, due.suggest)
            elif not joined:
                if len(trials) >= study.budget:
                    self._samplers.pop(study.id, None)
                break

    def _open_for_more(self) -> bool:
        """Whether trials make sense: not once a stage of theirs is stopped, or nothing is started any more."""
        broken = self._schedule.broken.keys() & set(self._schedule.plan.open_entries)
        return not broken and self._schedule.stopped is None

    def _take_in(self) -> None:
        """Schedule the cells that the plan has gained; whatever fails is done by the next call."""
        while self._joining:
            position, cells, made = self._joining[0]
            steps = self._schedule.join(cells, made)
            self._joining.pop(0)
            self._steps += steps
            self._watch(position, cells)
            self._unread += made
        self._measurements.join(self._unread)
        self._unread = []

    def _watch(self, position: int, cells: Collection[int]) -> None:
        plan = self._schedule.plan
        for name in plan.open_entries:
            for first in plan.groups(name)[list(cells)].tolist():
                for number in range(first, first + int(plan.size[first]) if first >= 0 else first):
                    self._watchers.setdefault(number, set()).add(position)

    # --- the sampler

    def _suggest(self, study: OpenStudy, trials: list[Trial], number: int) -> None:
        told = news(study, trials)
        wanted, origin = None, ""
        starts = start_trials(self._schedule.plan, study) if number < len(study.search.start) else []
        if number < len(starts):
            origin, wanted = starts[number]
        with self._sampler(study, trials) as sampler:
            values, attributes = sampler.sampling.suggest(number, wanted)
            suggestion = Suggestion(number, values, told, attributes, origin, time.time())
            recorded = add_suggestion(self._store, study.id, suggestion)
            sampler.valid = recorded == suggestion
        study.history.add(recorded)

    def _judge(self, study: OpenStudy, trials: list[Trial], trial: Trial) -> None:
        step = len(trial.steps) - 1
        # Another driver may have gone on with the trial, and its sampler been told how it ended.
        recorded = find_verdict(self._store, study.id, trial.number, step)
        if recorded:
            self._samplers.pop(study.id, None)
        else:
            with self._sampler(study, trials) as sampler:
                prune, attributes = sampler.sampling.judge(trial.number, trial.steps)
                verdict = Verdict(trial.number, step, prune, attributes)
                recorded = add_verdict(self._store, study.id, verdict)
                sampler.valid = recorded == verdict
        study.history.verdicts[trial.number, step] = recorded

    @contextlib.contextmanager
    def _sampler(self, study: OpenStudy, trials: Sequence[Trial]) -> Iterator[_Sampler]:
        """Lend the sampler of a study, which has been told of all trials that ended.

        It is made anew from the records where there is none. It is kept if it is `valid` afterwards: not where another
        driver's record came first, nor where something failed.
        """
        sampler = self._samplers.pop(study.id, None)
        if sampler is None:
            sampler = _Sampler(self._rebuilt(study, trials), set(study.history.told))
        for each in news(study, trials):
            if each.number not in sampler.told:
                sampler.sampling.tell(each)
                sampler.told.add(each.number)
        sampler.valid = False
        yield sampler
        if sampler.valid:
            self._samplers[study.id] = sampler

    def _rebuilt(self, study: OpenStudy, trials: Sequence[Trial]) -> Sampling:
        """Make the sampler of a study anew, from the records."""
        # Not before it is needed: it imports Optuna.
        from orchestrator.search.sampling import Sampling

        if study.history.earlier is None:
            describe(self._store, study.id, self._studies.description(study))
            study.history.earlier = add_earlier(self._store, study.id, self._earlier(study))
        sampling = Sampling(study.search, study.coords, study.id, study.history.earlier)
        told = study.history.told
        for number, suggestion in study.history.suggestions.items():
            sampling.adopt(suggestion)
            steps = told[number].steps if number in told else trials[number].steps
            for verdict in study.verdicts(number):
                sampling.adopt_verdict(verdict, steps[: verdict.step + 1])
        return sampling

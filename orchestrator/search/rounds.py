"""A round: what follows from the records of a study and the results so far. Pure; `growth` carries it out.

A round adds cells; it waits for nothing, and nothing waits for it. Given the same records and results it adds the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.plan.columns import Plan
from orchestrator.plan.grid import Mask
from orchestrator.search.records import Told
from orchestrator.search.studies import OpenStudy
from orchestrator.search.trial import Study, Trial


@dataclass(frozen=True, slots=True)
class Round:
    """What is due in a study now."""

    cells: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """(Trial, its cells that are to be decided)."""
    judge: Trial | None = None
    """A trial of which the pruner is to say whether it goes on."""
    suggest: int | None = None
    """The number of the trial that is to be suggested."""


def next_round(study: OpenStudy, trials: Sequence[Trial], chosen: Collection[int] | None = None) -> Round:
    """Return what is due in a study.

    Args:
        study: with its records.
        trials: its trials as they are now.
        chosen: the cells that may be run; None for all. A trial is suggested only if all of its cells may be.
    """
    cells = [(trial.number, _cells(study, trial)) for trial in trials if trial.number not in study.invalid]
    view = Study(study.name, study.id, study.search, study.coords, tuple(trials), budget=study.budget)
    if view.finished:
        # Of several objectives each trial of the front is measured again.
        cells += [(trial.number, study.fresh[trial.number]) for trial in view.front]
    due = tuple(
        (number, kept)
        for number, each in cells
        if (kept := tuple(cell for cell in each if chosen is None or cell in chosen))
    )
    judge = next((trial for trial in trials if _awaits_verdict(study, trial)), None)
    return Round(due, judge, _suggest(study, trials, chosen))


def _cells(study: OpenStudy, trial: Trial) -> Sequence[int]:
    """Return the cells of a trial that are due: those by the records, or all where the pruner has no say any more."""
    ended = trial.state == "complete" or (_was_told_failed(study, trial) and not study.is_judged(trial.number))
    return study.over[trial.number] if ended else study.recorded(trial.number)


def _awaits_verdict(study: OpenStudy, trial: Trial) -> bool:
    """Tell whether a trial has a repetition that the pruner has not looked at, and others that it may spare."""
    if study.search.pruner is None or trial.state != "running" or not trial.steps or _was_told_failed(study, trial):
        return False
    return (trial.number, len(trial.steps) - 1) not in study.history.verdicts


def _was_told_failed(study: OpenStudy, trial: Trial) -> bool:
    """Tell whether the sampler knows a trial as failed, which is tried again: to the pruner it is over."""
    told = study.history.told.get(trial.number)
    return told is not None and told.state == "failed"


def _suggest(study: OpenStudy, trials: Sequence[Trial], chosen: Collection[int] | None) -> int | None:
    number = len(trials)
    if number >= study.budget:
        return None
    under_way = sum(trial.state == "running" for trial in trials)
    # With one trial at a time each is told before the next, so that the study can be repeated.
    if under_way >= study.search.concurrency:
        return None
    if chosen is not None and any(cell not in chosen for cell in study.over[number]):
        return None
    return number


def news(study: OpenStudy, trials: Sequence[Trial]) -> tuple[Told, ...]:
    """Return what the sampler is to be told before the next suggestion: the trials that ended since the last one."""
    told = study.history.told
    return tuple(
        Told(trial.number, trial.state, trial.objectives or (), trial.excesses, trial.steps, trial.why)
        for trial in trials
        if trial.state != "running" and trial.number not in told
    )


def may_come(study: OpenStudy, decided: Mask, chosen: Collection[int] | None = None) -> list[int]:
    """Return the cells that may still come, at most: of trials not suggested yet or going on, and fresh measurements.

    Which trial will be measured again is not known; the cells of one stand for those of whichever it is. Measures
    nothing: `study.ended` says which trials have ended. One that failed may be tried again, and go on then.

    Args:
        study: with its records.
        decided: mask over the cells of the plan.
        chosen: the cells that may be run; None for all.
    """

    def allowed(cells: Sequence[int]) -> list[int]:
        return [cell for cell in cells if not decided[cell] and (chosen is None or cell in chosen)]

    coming: list[int] = []
    for number in study.history.suggestions:
        ended = study.ended.get(number)
        if ended is None or ended.state == "failed":
            coming += allowed(study.over[number])
    number = len(study.history.suggestions)
    while number < study.budget and (chosen is None or all(cell in chosen for cell in study.over[number])):
        coming += allowed(study.over[number])
        number += 1
    if number == study.budget and not has_ended(study):
        several = len(study.search.objective.metrics) > 1
        for cells in study.fresh if several else study.fresh[:1]:
            coming += allowed(cells)
    return coming


def coming_steps(plan: Plan, cells: Sequence[int]) -> Mask:
    """Return the mask of the steps that some cells would consist of at most, were they decided."""
    marked: Mask = np.zeros(len(plan), np.bool_)
    for name in plan.entries:
        plan.mark(marked, plan.by_entry[name].places[plan.points_of(name)[list(cells)]])
    return marked


def has_ended(study: OpenStudy) -> bool:
    """Tell whether all trials of a study have ended, as far as `study.ended` says."""
    return len(study.ended) >= study.budget

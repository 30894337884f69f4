"""The studies of a plan: where their cells are, what was recorded of them, and what became of their trials."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from orchestrator.keys import canonical_json, digest_of
from orchestrator.plan.columns import Plan
from orchestrator.plan.join import join, keys_at
from orchestrator.search.record_files import History, read_history
from orchestrator.search.records import Suggestion, Verdict
from orchestrator.search.trial import Study, Trial, TrialState
from orchestrator.store import Store
from orchestrator.sweep.part import matches
from orchestrator.sweep.problems import SweepError
from orchestrator.sweep.search import TRIAL, Search, reduced
from orchestrator.types import Scalar


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of one cell."""

    status: str
    """`succeeded`; `failed` where a step of its trial failed; else `waiting`."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of a cell that succeeded; those that are undefined are left out."""
    why: str = ""
    """The error class of a failed cell."""
    seconds: Mapping[int, float] = field(default_factory=dict)
    """Finished step of its trial -> what it took; the repetitions of a trial may share some."""


class Measurements(Protocol):
    """Knows what became of cells (`orchestrator.results.table.Results`)."""

    def measured(self, cell: int) -> Measured:
        """Return what is known of a cell."""

    def join(self, steps: Sequence[int]) -> None:
        """Look at steps that are new in the plan, some of which may be committed."""


@dataclass
class OpenStudy:
    """A study as it is run: its cells in the plan, and its records."""

    name: str
    id: str
    search: Search
    coords: Mapping[str, Scalar]
    budget: int
    over: Sequence[Sequence[int]]
    """For each trial its cells, one for each repetition in order of `over`."""
    fresh: Sequence[Sequence[int]]
    """For each trial the cells at which it is measured again if it is the best."""
    history: History = field(default_factory=History)
    invalid: dict[int, str] = field(default_factory=dict)
    """Trial whose values together make no valid config, though each by itself does -> what is wrong with them."""
    ended: dict[int, Trial] = field(default_factory=dict)
    """The trials of which nothing more will be known."""

    def trials(self, measurements: Measurements) -> Iterator[Trial]:
        """Yield the trials as they are now, by number."""
        for number, suggestion in self.history.suggestions.items():
            found = self.ended.get(number) or self.trial(suggestion, measurements)
            if found.state != "running":
                self.ended[number] = found
            yield found

    def trial(self, suggestion: Suggestion, measurements: Measurements) -> Trial:
        """Return one trial as it is now."""
        objective, number = self.search.objective, suggestion.number
        if number in self.invalid:
            origin, made = suggestion.origin, suggestion.made
            why = f"its values make no valid config: {self.invalid[number]}"
            return Trial(number, suggestion.values, "failed", None, suggested=made, origin=origin, why=why)
        cells = [measurements.measured(cell) for cell in self.over[number]]
        known: list[tuple[float, ...]] = []
        excesses: list[tuple[float, ...]] = []
        state: TrialState = "running"
        why = ""
        for cell in cells:
            if cell.status == "failed":
                state, why = "failed", cell.why
            if cell.status != "succeeded" or state == "failed":
                break
            worst = [-math.inf if better == "higher" else math.inf for better in objective.directions]
            absent = [metric for metric in (*objective.metrics, *self.search.constraints) if metric not in cell.metrics]
            if absent and objective.null == "fail":
                state, why = "failed", f"{absent[0]} is undefined"
                break
            known.append(tuple(cell.metrics.get(m, w) for m, w in zip(objective.metrics, worst, strict=True)))
            bounds = self.search.constraints.items()
            # What is not defined keeps no bound.
            excesses.append(tuple(b.excess(cell.metrics[m]) if m in cell.metrics else math.inf for m, b in bounds))
        if any(cell.status == "failed" for cell in cells) and state == "running":
            # A later repetition may fail before an earlier one ends.
            state, why = "failed", next(cell.why for cell in cells if cell.status == "failed")
        pruned = any(verdict.prune for verdict in self.verdicts(number))
        if state == "running" and (pruned or len(known) == len(cells)):
            state = "pruned" if pruned else "complete"
        return Trial(
            number,
            suggestion.values,
            state,
            self._reduced(known) if state in ("complete", "pruned") else None,
            self._reduced_excesses(excesses) if state in ("complete", "pruned") else (),
            tuple(known),
            self._steps(known),
            sum({number: took for cell in cells for number, took in cell.seconds.items()}.values()),
            suggestion.made,
            suggestion.origin,
            why,
        )

    def verdicts(self, number: int) -> list[Verdict]:
        """Return what the pruner said of a trial, in order."""
        steps = range(len(self.over[number]) if self.search.pruner else 0)
        return [verdict for step in steps if (verdict := self.history.verdicts.get((number, step)))]

    def recorded(self, number: int) -> Sequence[int]:
        """Return the cells of a trial that are due by the records: with a pruner, one more than it let pass."""
        if self.search.pruner is None:
            return self.over[number]
        return self.over[number][: self._passed(number) + 1]

    def is_judged(self, number: int) -> bool:
        """Tell whether the pruner has ended a trial."""
        verdict = self.history.verdicts.get((number, self._passed(number)))
        return verdict is not None and verdict.prune

    def _passed(self, number: int) -> int:
        """Return how many repetitions of a trial the pruner let pass."""
        passed = 0
        while (verdict := self.history.verdicts.get((number, passed))) and not verdict.prune:
            passed += 1
        return passed

    def _reduced(self, known: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
        objective = self.search.objective
        return tuple(
            reduced([each[position] for each in known], objective.reduce, better)
            for position, better in enumerate(objective.directions)
        )

    def _reduced_excesses(self, excesses: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
        count = len(self.search.constraints)
        reduce = self.search.objective.reduce
        # Excesses are the better the lower they are.
        return tuple(reduced([each[position] for each in excesses], reduce, "lower") for position in range(count))

    def _steps(self, known: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
        if self.search.pruner is None:
            return ()
        if self.search.compares_repetitions:
            return tuple(each[0] for each in known)
        return tuple(self._reduced(known[: count + 1])[0] for count in range(len(known)))

    def view(self, measurements: Measurements) -> Study:
        """Return the study as it is now, for people."""
        trials = tuple(self.trials(measurements))
        study = Study(self.name, self.id, self.search, self.coords, trials, self.history.earlier or (), self.budget)
        if study.best is None or not study.finished or not self.search.fresh:
            return study
        cells = [measurements.measured(cell) for cell in self.fresh[study.best.number]]
        metrics = self.search.objective.metrics
        if not cells or any(metric not in cell.metrics for cell in cells for metric in metrics):
            return study
        found = self._reduced([tuple(cell.metrics[metric] for metric in metrics) for cell in cells])
        return Study(self.name, self.id, self.search, self.coords, trials, study.earlier, self.budget, found)


class Studies:
    """The studies of a plan; none where nothing is searched for."""

    def __init__(self, plan: Plan) -> None:
        """Find the studies of a plan; nothing is read yet."""
        self.plan = plan
        self.all: list[OpenStudy] = list(_studies(plan)) if plan.spec.searched else []
        self.of_cell: dict[int, tuple[int, int]] = {
            cell: (position, trial)
            for position, study in enumerate(self.all)
            for part in (study.over, study.fresh)
            for trial, cells in enumerate(part)
            for cell in cells
        }
        """Cell -> (its study, its trial)."""

    def read(self, store: Store) -> None:
        """Read the records, and decide the cells of all suggested trials that are due by them.

        Raises:
            StoreError: the store cannot be read, or a record is damaged.
        """
        known = set(store.studies() if self.all else ())
        for study in self.all:
            if study.id in known:
                study.history = read_history(store, study.id)
                for suggestion in study.history.suggestions.values():
                    self.join(study, suggestion, study.recorded(suggestion.number))

    def join(self, study: OpenStudy, suggestion: Suggestion, cells: Sequence[int]) -> list[int]:
        """Decide cells of a suggested trial; return the steps that are new in the plan.

        Where the values make a config that is not valid none is decided, and the trial has failed.
        """
        try:
            return join(self.plan, cells, study.search.meant(suggestion.values))
        except SweepError as error:
            first = error.problems[0]
            study.invalid[suggestion.number] = f"{first.path}: {first.message}"
            return []

    def superseded(self, measurements: Measurements) -> set[int]:
        """Return the decided cells of trials that were the best and are not, since a failed one was tried again."""
        found: set[int] = set()
        for study in self.all:
            view = study.view(measurements)
            best = {trial.number for trial in view.front}
            others = [trial.number for trial in view.trials if view.finished and trial.number not in best]
            found |= {cell for number in others for cell in study.fresh[number]}
        return found

    def description(self, study: OpenStudy) -> dict[str, Any]:
        """Return what a study searches for, for people and for `edited`."""
        search = study.search.model_dump(mode="json", by_alias=True, exclude_none=True)
        where = {"sweep": self.plan.spec.name, "search_name": self.plan.spec.search_name}
        return {**where, "name": study.name, "coords": dict(study.coords), "search": search}

    def views(self, measurements: Measurements) -> list[Study]:
        """Return all studies as they are now."""
        return [study.view(measurements) for study in self.all]


def _studies(plan: Plan) -> Iterator[OpenStudy]:
    spec, grid, search = plan.spec, plan.grid, plan.spec.searched
    assert search is not None, "only asked where there is one"
    axes = grid.axes(frozenset(spec.study_axes))
    over, fresh = grid.where(search.objective.over)[plan.points], np.zeros(len(plan.points), np.bool_)
    if search.fresh:
        fresh = grid.where(search.again)[plan.points]
    of_study = grid.project(grid.all, axes)[plan.points]
    of_trial = grid.project(grid.all, grid.axes(frozenset({TRIAL})))[plan.points]
    several = len(np.unique(of_study)) > 1
    seen: dict[str, str] = {}
    for point in np.unique(of_study).tolist():
        coords = grid.coords(axes, point)
        mine = np.flatnonzero(of_study == point)
        budget = int(of_trial[mine].max()) + 1
        over_of, fresh_of = (
            [mine[(of_trial[mine] == trial) & part[mine]].tolist() for trial in range(budget)] for part in (over, fresh)
        )
        name = str(spec.search_name)
        if several:
            # Like the names of runs: texts say by themselves of what they are.
            labels = (each if isinstance(each, str) else f"{axis}={each}" for axis, each in coords.items())
            name = f"{name}/{','.join(labels)}"
        id_ = _identity(plan, search, coords, over_of[0])
        if (other := seen.setdefault(id_, name)) != name:
            message = f"{other} and {name} search for the same thing: leave one out, or say in what they differ"
            raise SweepError([spec.problem(("search", str(spec.search_name)), message)])
        yield OpenStudy(name, id_, search, coords, budget, over_of, fresh_of)


def _identity(plan: Plan, search: Search, coords: Mapping[str, Scalar], cells: Sequence[int]) -> str:
    """Return the id of a study: what is searched for, where, and by which sampler, but not for how long."""
    values = next(search.samples(coords))
    space = {}
    for name, each in search.fields.items():
        if matches({axis: wanted for axis, wanted in each.when.items() if axis in coords}, coords):
            written = each.model_dump(mode="json", by_alias=True, exclude={"default", "when"}, exclude_none=True)
            # Names of axes are no part of what is asked.
            space[name] = written | {"when": {other: each.when[other] for other in each.when if other not in coords}}
    parts = search.model_dump(
        mode="json", by_alias=True, include={"objective", "sampler", "pruner", "seed", "constraints"}, exclude_none=True
    )
    del parts["objective"]["over"]
    identity = {**parts, "space": space, "order": list(space), "tries": keys_at(plan, cells, search.meant(values))}
    return digest_of(canonical_json(identity))

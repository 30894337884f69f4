"""The sampler and the pruner of one study, in memory.

A suggestion is a function of what is recorded: of the search, the earlier results, the suggestions before it with what
each was told, and its number. So the sampler is made anew for each suggestion, seeded by the search and the number.
What some samplers keep in the meantime (the optimizer of CMA-ES, generations, parents, places in a sequence) are
attributes of trials and of the study, and recorded with the suggestion that changed them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from orchestrator.search.distribution import constraints, directions, distribution, parameters
from orchestrator.search.parts import core, make_pruner, make_sampler
from orchestrator.search.quiet import quiet
from orchestrator.search.records import Earlier, Suggestion, Told, Verdict
from orchestrator.sweep.search import Search
from orchestrator.types import Scalar

#: The attribute of a suggestion that holds the attributes of the study which it changed.
_OF_STUDY = "sweep:study"


class Sampling:
    """One study's trials as Optuna knows them, and what its sampler and its pruner say next.

    It lives on from trial to trial, or is made anew by adopting what is recorded; both suggest the same, bit for bit.
    Not for several threads at once. A driver whose suggestion another one recorded first, or whose call raised, makes
    a new one.
    """

    def __init__(self, search: Search, coords: Mapping[str, Scalar], id: str, earlier: Sequence[Earlier] = ()) -> None:
        """Begin a study.

        Args:
            search: what is searched for.
            coords: the study's combination of the axes in `per`.
            id: of the study; some pruners make their choices by it.
            earlier: results that it is told before its first trial; they have a number for each constraint.

        Raises:
            ValueError: an earlier result does not fit the search.
        """
        self._search = search
        self._coords = dict(coords)
        self._distributions = {name: distribution(field) for name, field in search.fields.items()}
        self._storage = InMemoryStorage()
        self._earlier = len(earlier)
        self._next = 0
        with quiet():
            self._study = optuna.create_study(
                storage=self._storage, study_name=id, directions=directions(search), sampler=_IDLE
            )
        self._study_id = self._storage.get_study_id_from_name(id)
        for each in earlier:
            self._add(TrialState.COMPLETE, each.values, constraints(search, each.excesses), each.objectives)

    def tell(self, told: Told) -> None:
        """Tell how a trial ended, once.

        Raises:
            ValueError: there is no such trial under way, or its numbers do not fit the search.
        """
        trial = self._trial_id(told.number)
        state, values = self._ended(told)
        if any(math.isnan(each) for each in told.excesses):
            raise ValueError(
                f"trial {told.number} of study {self._study.study_name} has a constraint that is no number"
            )
        for step, value in enumerate(told.steps):
            self._storage.set_trial_intermediate_value(trial, step, value)
        if told.excesses or (self._search.constraints and state == TrialState.COMPLETE):
            self._set(trial, constraints(self._search, told.excesses))
        # Not `Study.tell`: it asks the sampler what is to happen after the trial. Two samplers then end the study, when
        # they have tried everything; the others do nothing.
        self._storage.set_trial_state_values(trial, state, values)

    def suggest(
        self, number: int, wanted: Mapping[str, Scalar] | None = None
    ) -> tuple[dict[str, Scalar], dict[str, Any]]:
        """Choose the values of the next trial, which is under way from now on.

        Args:
            number: of the trial.
            wanted: values that a trial of the start is to have; the sampler chooses those that are not there.

        Returns:
            The values, of choices the labels, in order of the space; and the attributes, as JSON takes them.

        Raises:
            ValueError: it is not the turn of this number.
        """
        self._take(number)
        of_study = dict(self._storage.get_study_system_attrs(self._study_id))
        with quiet():
            sampler = make_sampler(self._search, number)
            self._study.sampler = sampler
            if wanted is not None:
                self._study.enqueue_trial(dict(wanted))
            trial = self._study.ask()
            if wanted is not None and core(self._search)[0].startswith("NSGA"):
                # Optuna asks a sampler only where a value is left to choose, and genetic ones would then never look at
                # this trial, as it belongs to no generation.
                trial.relative_params  # noqa: B018
            values: dict[str, Scalar] = {}
            for name in self._search.fields:
                if self._search.exists(name, self._coords, values):
                    values[name] = _chosen(trial, name, self._distributions[name])
                    if name not in (wanted or {}):
                        values[name] = self._within(number, name, values[name])
            self._study.sampler = _IDLE
        frozen = self._storage.get_trial(self._trial_id(number))
        attributes = dict(frozen.system_attrs)
        changed = _changed(of_study, self._storage.get_study_system_attrs(self._study_id))
        if changed:
            attributes[_OF_STUDY] = changed
        return dict(frozen.params), copy.deepcopy(attributes)

    def adopt(self, suggestion: Suggestion) -> None:
        """Repeat a recorded suggestion, with what the sampler was told before it.

        The pruner's verdicts on the trial are adopted right after it, before a later suggestion tells how it ended.

        Raises:
            ValueError: it is not the turn of this number, or what was told does not fit.
        """
        for told in suggestion.told:
            self.tell(told)
        self._take(suggestion.number)
        attributes = dict(suggestion.attributes)
        for key, value in attributes.pop(_OF_STUDY, {}).items():
            self._storage.set_study_system_attr(self._study_id, key, value)
        self._add(TrialState.RUNNING, suggestion.values, attributes)

    def judge(self, number: int, steps: Sequence[float]) -> tuple[bool, dict[str, Any]]:
        """Ask the pruner whether a trial is to end.

        Args:
            number: of the trial, which is under way.
            steps: what is known of it after each repetition so far, at least one number.

        Returns:
            Whether it is to end; and the attributes of the trial that changed by the question.

        Raises:
            ValueError: there is no such trial under way.
        """
        trial = self._trial_id(number)
        self._report(trial, steps)
        before = dict(self._storage.get_trial(trial).system_attrs)
        with quiet():
            pruner = make_pruner(self._search)
            prune = pruner is not None and pruner.prune(self._study, self._storage.get_trial(trial))
        return bool(prune), _changed(before, self._storage.get_trial(trial).system_attrs)

    def adopt_verdict(self, verdict: Verdict, steps: Sequence[float]) -> None:
        """Repeat a recorded verdict on a trial that is under way.

        Args:
            verdict: what the pruner said.
            steps: what it was told before, a number for each repetition.

        Raises:
            ValueError: there is no such trial under way.
        """
        trial = self._trial_id(verdict.number)
        self._report(trial, steps)
        self._set(trial, verdict.attributes)

    def _within(self, number: int, name: str, value: Scalar) -> Scalar:
        """Move a value that was rounded out of its field, by a logarithm and back, to the field's bound."""
        field = self._distributions[name]
        if not isinstance(field, FloatDistribution) or field.low <= float(value) <= field.high:
            return value
        value = min(max(float(value), field.low), field.high)
        self._storage.set_trial_param(self._trial_id(number), name, value, field)
        return value

    def _take(self, number: int) -> None:
        if number != self._next:
            raise ValueError(f"trial {number} of study {self._study.study_name} is not next: {self._next} is")
        self._next += 1

    def _trial_id(self, number: int) -> int:
        """Return Optuna's id of a trial that is under way."""
        if 0 <= number < self._next:
            trial = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, self._earlier + number)
            if self._storage.get_trial(trial).state == TrialState.RUNNING:
                return trial
        raise ValueError(f"trial {number} of study {self._study.study_name} is not under way")

    def _add(
        self,
        state: TrialState,
        values: Mapping[str, Scalar],
        attributes: Mapping[str, Any],
        objectives: tuple[float, ...] | None = None,
    ) -> None:
        if objectives is not None:
            self._check(objectives)
        now = datetime.now()
        trial = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=state,
            value=None,
            values=objectives,
            **parameters(self._search, values),
            system_attrs=copy.deepcopy(dict(attributes)),
            user_attrs={},
            intermediate_values={},
            datetime_start=now,
            datetime_complete=None if objectives is None else now,
        )
        self._storage.create_new_trial(self._study_id, template_trial=trial)

    def _ended(self, told: Told) -> tuple[TrialState, list[float] | None]:
        if told.state == "failed":
            return TrialState.FAIL, None
        if told.state == "pruned" and not self._search.compares_repetitions:
            return TrialState.PRUNED, list(told.steps[-1:]) or None
        # As the documentation of WilcoxonPruner advises: a pruned trial has the mean of what there is.
        self._check(told.objectives)
        return TrialState.COMPLETE, list(told.objectives)

    def _check(self, objectives: tuple[float, ...]) -> None:
        if len(objectives) != len(self._search.objective.metrics) or any(math.isnan(each) for each in objectives):
            raise ValueError(f"study {self._study.study_name} needs a number for each metric, found {objectives}")

    def _report(self, trial: int, steps: Sequence[float]) -> None:
        for step, value in enumerate(steps):
            self._storage.set_trial_intermediate_value(trial, step, value)

    def _set(self, trial: int, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            self._storage.set_trial_system_attr(trial, key, copy.deepcopy(value))


#: The sampler of a study between two suggestions: it is never asked.
_IDLE = optuna.samplers.RandomSampler(seed=0)


def _chosen(trial: optuna.Trial, name: str, field: object) -> Scalar:
    if isinstance(field, FloatDistribution):
        return trial.suggest_float(name, field.low, field.high, step=field.step, log=field.log)
    if isinstance(field, IntDistribution):
        return trial.suggest_int(name, field.low, field.high, step=field.step, log=field.log)
    assert isinstance(field, CategoricalDistribution), "a field has one of the three"
    label = trial.suggest_categorical(name, field.choices)
    assert label is not None, "no choice is None"
    return label


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    return {key: copy.deepcopy(value) for key, value in after.items() if key not in before or before[key] != value}

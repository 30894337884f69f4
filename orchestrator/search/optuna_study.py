"""Our studies as studies of Optuna, for its figures, its dashboard, and whoever knows its interface."""

from __future__ import annotations

from datetime import datetime

import optuna
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from orchestrator.search.distribution import constraints, directions, parameters
from orchestrator.search.quiet import quiet
from orchestrator.search.trial import Study, Trial

#: Attribute of a study of Optuna: the id of the study that it shows.
STUDY = "sweep.study"
#: Attribute of a trial of Optuna: the number of the trial that it shows.
NUMBER = "sweep.trial"

_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
}


def as_optuna(study: Study) -> optuna.Study:
    """Return a study as an ordinary one of Optuna, in memory: what is done to it changes nothing of ours.

    Its trials have our numbers and, as attributes, our state and what asked for them; of choices they have the labels.
    Results that the study was told before its first trial are not among them.
    """
    storage = InMemoryStorage()
    create(study, storage)
    for trial in study.trials:
        storage.create_new_trial(storage.get_study_id_from_name(study.name), frozen(study, trial))
    with quiet():
        return optuna.load_study(study_name=study.name, storage=storage)


def create(study: Study, storage: BaseStorage) -> None:
    """Make a study of Optuna that shows one of ours, without its trials.

    Raises:
        optuna.exceptions.DuplicatedStudyError: the storage has a study of its name.
    """
    with quiet():
        optuna.create_study(storage=storage, study_name=study.name, directions=directions(study.search))
    describe(study, storage)


def describe(study: Study, storage: BaseStorage) -> None:
    """Write down in a study of Optuna which one of ours it shows."""
    with quiet():
        shown = optuna.load_study(study_name=study.name, storage=storage)
        shown.set_metric_names(list(study.search.objective.metrics))
        for name, value in {**study.coords, STUDY: study.id}.items():
            shown.set_user_attr(name, value)


def frozen(study: Study, trial: Trial) -> FrozenTrial:
    """Return a trial as one of Optuna; the storage that it is put into gives it a number."""
    started = datetime.fromtimestamp(trial.suggested)
    running = trial.state == "running"
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=_STATES[trial.state],
        value=None,
        values=trial.objectives,
        **parameters(study.search, trial.values),
        # Repetitions may be known of a trial that failed, or goes on.
        intermediate_values=dict(enumerate(trial.steps)),
        system_attrs=constraints(study.search, trial.excesses) if trial.excesses else {},
        user_attrs={NUMBER: trial.number, "state": trial.state, "origin": trial.origin, "seconds": trial.seconds},
        datetime_start=started,
        datetime_complete=None if running else datetime.fromtimestamp(trial.suggested + trial.seconds),
    )

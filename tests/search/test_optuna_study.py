"""A study is an ordinary one of Optuna for whoever looks at it, and as figures."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState
from search_studies import MEDIAN, a_search, a_study

from orchestrator.search import figures
from orchestrator.search.optuna_study import as_optuna

TWO = {"metric": ["score", "length"], "better": ["higher", "lower"]}
INFINITY = float("inf")


def test_trials_have_our_numbers_labels_steps_states_and_constraints() -> None:
    study = a_study(a_search(pruner=MEDIAN), 20, running=2)
    shown = as_optuna(study)
    assert [each.number for each in shown.trials] == [each.number for each in study.trials]
    assert [each.params for each in shown.trials] == [each.values for each in study.trials]
    assert (shown.trials[3].state, shown.trials[5].state) == (TrialState.FAIL, TrialState.PRUNED)
    assert [each.state for each in shown.trials[-2:]] == [TrialState.RUNNING] * 2
    assert shown.trials[5].intermediate_values == dict(enumerate(study.trials[5].steps))
    assert shown.trials[5].constraints == {"cost": study.trials[5].excesses[0]}
    assert shown.trials[0].datetime_start is not None
    assert shown.trials[0].datetime_start.timestamp() == 1.7e9
    assert shown.trials[3].user_attrs == {"sweep.trial": 3, "state": "failed", "origin": "", "seconds": 1.5}
    assert shown.user_attrs == {"policy": "helpful", "sweep.study": "1f2e3d"}
    assert shown.metric_names == ["score"]


def test_it_names_the_same_best_trial() -> None:
    study = a_study(a_search())
    assert study.best is not None
    assert as_optuna(study).best_trial.number == study.best.number
    several = a_study(a_search(objective=TWO))
    assert {each.number for each in as_optuna(several).best_trials} == {each.number for each in several.front}


def test_changing_it_changes_nothing_of_ours() -> None:
    study = a_study(a_search())
    shown = as_optuna(study)
    shown.trials[0].params["lr"] = 7
    shown.add_trial(optuna.trial.create_trial(value=9.0))
    shown.ask()
    assert len(as_optuna(study).trials) == len(study.trials) == 20
    assert study.trials[0].values["lr"] != 7


def test_values_that_optuna_would_not_have_chosen_are_shown_as_they_are() -> None:
    study = a_study(a_search(), 1)
    odd = replace(study.trials[0], values={**study.trials[0].values, "model": "large", "width": 0.3})
    assert as_optuna(replace(study, trials=(odd,))).trials[0].params["width"] == 0.3


def test_optuna_neither_logs_nor_warns(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    before = optuna.logging.get_verbosity()
    study = a_study(a_search(pruner=MEDIAN))
    as_optuna(study)
    assert figures.history_png(study)
    assert figures.importance_png(study)
    assert capfd.readouterr() == ("", "")
    assert list(recwarn) == []
    assert optuna.logging.get_verbosity() == before


@pytest.mark.parametrize("metrics", [1, 2, 3])
def test_figures_are_pictures_that_leave_nothing_behind(metrics: int) -> None:
    import matplotlib
    from matplotlib import pyplot

    three = {"metric": ["score", "length", "cost"][:metrics], "better": ["higher", "lower", "lower"][:metrics]}
    study = a_study(a_search(objective=three))
    style = dict(matplotlib.rcParams)
    for picture in (figures.history_png(study), figures.importance_png(study)):
        assert picture is not None
        assert picture.startswith(b"\x89PNG")
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == style
    assert figures.history(study) is not None
    assert figures.parallel_coordinates(study) is not None


@pytest.mark.parametrize("evaluator", ["PedAnova", "Fanova", "MeanDecreaseImpurity"])
def test_importances_are_shares_by_the_evaluator_of_the_search(evaluator: str) -> None:
    told = figures.importances(a_study(a_search(importance={"name": f"{evaluator}ImportanceEvaluator"}), 30))
    assert told is not None
    assert sum(told.values()) == pytest.approx(1.0)
    assert {type(share) for share in told.values()} == {float}
    assert list(told.values()) == sorted(told.values(), reverse=True)
    assert ("width" in told) == (evaluator == "PedAnova")  # The others see only fields that all trials have.


def test_what_cannot_be_drawn_yet_is_none() -> None:
    study = a_study(a_search())
    one, running = replace(study, trials=study.trials[:1]), a_study(a_search(), 4, running=4)
    for few in (replace(study, trials=()), one, running):
        assert figures.history_png(few) is None
        assert figures.importance_png(few) is None
        assert figures.importances(few) is None
        assert figures.history(few) is None
        assert figures.parallel_coordinates(few) is None
    for value in (1.0, -INFINITY):
        same = tuple(replace(each, objectives=(value,)) if each.objectives else each for each in study.trials)
        assert figures.importances(replace(study, trials=same)) is None
        assert (figures.history_png(replace(study, trials=same)) is None) == (value == -INFINITY)
    fixed = tuple(replace(each, values={}) for each in study.trials)
    assert figures.importance_png(replace(study, trials=fixed)) is None


def test_some_infinite_objectives_are_no_hindrance() -> None:
    study = a_study(a_search())
    some = tuple(
        replace(each, objectives=(-INFINITY,)) if each.objectives and each.number % 2 else each for each in study.trials
    )
    assert figures.history_png(replace(study, trials=some)) is not None
    assert figures.importance_png(replace(study, trials=some)) is not None


def test_planning_a_sweep_without_search_does_not_import_optuna() -> None:
    code = "import sys, orchestrator.sweep.spec, orchestrator.search.trial; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

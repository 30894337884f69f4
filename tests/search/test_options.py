"""Mistakes in what a search says of Optuna are told before anything runs, and so is what does less than it seems."""

from __future__ import annotations

from typing import Any

import pytest
from search_studies import a_search

from orchestrator.search import options
from orchestrator.search.options import notes, problems
from orchestrator.search.parts import PRUNERS, SAMPLERS, make_importance

REPEATED = {"metric": "score", "better": "higher", "over": {"seed": [0, 1, 2, 3, 4]}}
TWO = {"metric": ["score", "length"], "better": ["higher", "lower"]}
NUMBERS = {"a": {"int": [1, 3]}, "b": {"float": [0, 1]}}


def told(**changed: Any) -> list[str]:
    """The problems of a search, each after its place."""
    parts = {"constraints": {}, "space": NUMBERS, "objective": REPEATED} | changed
    return [f"{'.'.join(map(str, path))}: {message}" for path, message in problems(a_search(**parts))]


def noted(**changed: Any) -> list[str]:
    parts = {"constraints": {}, "space": NUMBERS, "objective": REPEATED} | changed
    assert told(**changed) == []
    return notes(a_search(**parts))


@pytest.mark.parametrize("name", ["TPESampler", "GPSampler", "RandomSampler", "QMCSampler", "NSGAIISampler"])
def test_samplers_need_no_options(name: str) -> None:
    assert told(sampler={"name": name}) == []


def test_names_and_options_that_optuna_does_not_have_get_the_nearest_one() -> None:
    assert told(sampler={"name": "TPEsampler"}) == [
        "sampler.name: Optuna has no sampler 'TPEsampler'; did you mean 'TPESampler'?"
    ]
    assert told(pruner={"name": "Wilcoxon"}) == [
        "pruner.name: Optuna has no pruner 'Wilcoxon'; did you mean 'WilcoxonPruner'?"
    ]
    assert told(importance={"name": "Fanova"})[0].startswith("importance.name: Optuna has no importance evaluator")
    assert told(sampler={"name": "TPESampler", "startup_trials": 3}) == [
        "sampler.startup_trials: TPESampler has no option 'startup_trials'; did you mean 'n_startup_trials'?"
    ]
    assert "BaseSampler" not in SAMPLERS.parts
    assert "BasePruner" not in PRUNERS.parts


def test_options_that_a_file_cannot_say_or_that_are_ours_are_refused() -> None:
    assert told(sampler={"name": "TPESampler", "seed": 3, "gamma": "x", "constraints_func": "x"}) == [
        "sampler.seed: follows from `seed` of the search; remove it",
        "sampler.gamma: is code, which cannot be written in a sweep file; remove it",
        "sampler.constraints_func: cannot be written in a sweep file; write `constraints` of the search",
    ]


@pytest.mark.parametrize(
    ("chooser", "message"),
    [
        ({"name": "TPESampler", "n_startup_trials": "ten"}, "n_startup_trials: should be a valid integer; found 'ten'"),
        (
            {"name": "TPESampler", "multivariate": False, "group": True},
            "Optuna refuses this: ``group`` option can only",
        ),
        (
            {"name": "NSGAIISampler", "population_size": 1},
            "Optuna refuses this: `population_size` must be greater than",
        ),
        ({"name": "QMCSampler", "qmc_type": "sobl"}, "Optuna refuses this: The `qmc_type='sobl'` is invalid"),
        ({"name": "CmaEsSampler", "popsize": 0}, "Optuna refuses this: popsize must be non-zero positive value"),
        ({"name": "CmaEsSampler", "x0": {"a": 1, "c": 2}}, "sampler.x0: has no value of b"),
        ({"name": "PartialFixedSampler"}, "PartialFixedSampler needs the option 'fixed_params'"),
    ],
)
def test_values_that_optuna_refuses_are_told_in_its_words(chooser: dict[str, Any], message: str) -> None:
    assert any(message in each for each in told(sampler=chooser)), told(sampler=chooser)


def test_parts_that_samplers_and_pruners_are_made_of_are_written_like_them() -> None:
    fixed = {"name": "PartialFixedSampler", "fixed_params": {"a": 1}}
    assert told(sampler={**fixed, "base_sampler": {"name": "TPESampler", "n_startup_trials": 2}}) == []
    assert told(sampler={**fixed, "base_sampler": "TPESampler"}) == [
        "sampler.base_sampler: should be a sampler, {name: NAME, OPTION: VALUE, …}; found 'TPESampler'"
    ]
    assert told(sampler={**fixed, "base_sampler": {"name": "TPESampler", "seed": 1}})[0].startswith(
        "sampler.base_sampler.seed: follows"
    )
    assert told(sampler={**fixed, "fixed_params": {"c": 1, "a": 9}, "base_sampler": {"name": "TPESampler"}}) == [
        "sampler.fixed_params.c: there is no field 'c' to search for; choose from a, b",
        "sampler.fixed_params.a: 9 is no value of the field 'a'",
    ]
    assert told(sampler={"name": "NSGAIISampler", "crossover": {"name": "SBXCrossover", "eta": 3.0}}) == []
    assert told(sampler={"name": "NSGAIISampler", "crossover": {"name": "SBX"}})[0].startswith(
        "sampler.crossover.name: Optuna has no crossover 'SBX'; choose from BLXAlphaCrossover, SBXCrossover"
    )
    assert told(pruner={"name": "PatientPruner", "patience": 1, "wrapped_pruner": {"name": "MedianPruner"}}) == []
    assert told(pruner={"name": "PatientPruner", "patience": 1, "wrapped_pruner": None}) == []
    assert told(pruner={"name": "PatientPruner", "patience": 1, "wrapped_pruner": {"name": "WilcoxonPruner"}})


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options.importlib.util, "find_spec", lambda name: None)
    assert told(sampler={"name": "CmaEsSampler"})[0].startswith("sampler.name: CmaEsSampler needs a package: cmaes")


def test_a_grid_has_values_of_all_fields_and_as_many_points_as_there_are_trials() -> None:
    def grid(space: object, **changed: Any) -> list[str]:
        return told(sampler={"name": "GridSampler", "search_space": space}, **changed)

    assert grid({"a": [1, 2], "b": [0.0, 0.5, 1.0]}, trials=6) == []
    assert grid({"a": [1, 2], "b": [0.0, 0.5, 1.0]}, trials=7) == [
        "trials: the grid of the sampler has 6 points; write trials: 6, or add values"
    ]
    assert grid({"a": [1, 4], "c": [1]}, trials=2) == [
        "sampler.search_space: has no values of b, which are searched for; add them, or fix them in the space",
        "sampler.search_space.a: 4 is no value of the field 'a'",
        "sampler.search_space.c: there is no field 'c' to search for; choose from a, b",
    ]
    assert grid({"a": 3, "b": []}) == [
        "sampler.search_space.a: should be a list of values; found 3",
        "sampler.search_space.b: should be a list of values; found []",
    ]
    assert grid([1])[0].startswith("sampler.search_space: should be a mapping of fields")
    assert grid({"a": [1], "b": [0.0]}, trials=1, start=[{"a": 1}])[0].startswith("start.0: has no value of b")
    many = {"a": list(range(1, 4)) * 1000, "b": [0.5] * 1000}
    assert grid(many)[0] == "sampler.search_space: has 3000000 points, and GridSampler lists them all; keep to 1000000"


def test_trying_all_values_needs_an_end_of_them() -> None:
    brute = {"name": "BruteForceSampler"}
    assert told(sampler=brute)[0].startswith("space.b: has no end of values")
    assert told(sampler=brute, space={"a": {"int": [0, 2**53]}}) == [
        "space.a: has 9.01e+15 values, and BruteForceSampler tries all; give it a step"
    ]
    assert told(sampler=brute, space={"a": {"int": [0, 10**6], "step": 1000}, "b": {"choice": ["x", "y"]}}) == []


def test_choices_that_are_equal_to_optuna_have_to_be_named() -> None:
    assert told(space={"a": {"choice": [1, True, "x"]}}) == [
        "space.a: 1 and True are the same choice to Optuna; name the choices"
    ]


def test_choices_that_json_cannot_hold_have_to_be_named() -> None:
    assert told(space={"a": {"choice": [float("nan"), 1.0]}}) == ["space.a: nan cannot be recorded; name the choices"]


def test_a_highest_value_between_two_steps_is_noted(recwarn: pytest.WarningsRecorder) -> None:
    assert noted(space={"a": {"float": [0, 1], "step": 0.3}, "b": {"int": [1, 9], "step": 2}}) == [
        "a: the highest value is 0.9, the last step before 1.0"
    ]
    assert list(recwarn) == []


def test_several_metrics_allow_neither_cma_es_nor_a_pruner() -> None:
    assert told(objective=TWO | {"over": REPEATED["over"]}, pruner={"name": "MedianPruner"}) == [
        "pruner: a pruner compares trials by one metric; remove it, or search for one metric"
    ]
    assert told(objective=TWO, sampler={"name": "CmaEsSampler"}) == [
        "sampler.name: CmaEsSampler takes one metric; NSGAIISampler and TPESampler take several"
    ]


def test_a_pruner_needs_repetitions() -> None:
    assert told(objective={"metric": "score", "better": "higher"}, pruner={"name": "MedianPruner"}) == [
        "pruner: ends trials between their repetitions, and there are none; add `over` to the objective"
    ]


@pytest.mark.parametrize(
    ("pruner", "note"),
    [
        ({"name": "WilcoxonPruner"}, "can end a trial after 4 of its 5 repetitions, not before: p_threshold: 0.1"),
        ({"name": "WilcoxonPruner", "p_threshold": 0.05}, "no trial early: p_threshold: 0.05 takes 5 repetitions"),
        ({"name": "WilcoxonPruner", "n_startup_steps": 7}, "no trial early: n_startup_steps: 7 takes 7 repetitions"),
        ({"name": "WilcoxonPruner", "p_threshold": 0}, "WilcoxonPruner ends no trial: p_threshold: 0"),
        ({"name": "MedianPruner", "n_warmup_steps": 4}, "no trial early: n_warmup_steps: 4 takes 5 repetitions"),
        ({"name": "MedianPruner", "n_startup_trials": 60}, "n_startup_trials: 60, and a study has 60 trials"),
        ({"name": "PatientPruner", "wrapped_pruner": None, "patience": 3}, "no trial early: patience: 3 takes 5"),
        ({"name": "HyperbandPruner", "min_resource": 9}, "no trial early: min_resource: 9 takes 10 repetitions"),
        ({"name": "NopPruner"}, "NopPruner ends no trial"),
    ],
)
def test_a_pruner_that_can_end_no_trial_here_is_noted(pruner: dict[str, Any], note: str) -> None:
    (said,) = noted(pruner=pruner)
    assert note in said


@pytest.mark.parametrize("name", ["MedianPruner", "HyperbandPruner", "SuccessiveHalvingPruner"])
def test_a_pruner_that_can_is_not(name: str) -> None:
    assert noted(pruner={"name": name}) == []


def test_what_a_sampler_does_not_look_at_is_noted() -> None:
    conditional = {"a": {"choice": ["x", "y"]}, "b": {"float": [0, 1], "when": {"a": "x"}}}
    assert noted(space=conditional) == [
        "TPESampler samples fields that some trials lack (b) one by one; with `group: true` it samples them together"
    ]
    assert noted(space=conditional, sampler={"name": "TPESampler", "group": True}) == []
    assert noted(sampler={"name": "QMCSampler"}, constraints={"cost": {"at_most": 1}}, start=[{"from": "x.yaml"}]) == [
        "QMCSampler does not look at constraints; the best trial is still one that keeps to them",
        "QMCSampler does not look at the results in `start`",
    ]
    assert noted(sampler={"name": "CmaEsSampler"}) == []
    assert noted(sampler={"name": "CmaEsSampler"}, space=NUMBERS | {"c": {"choice": ["x", "y"]}}) == [
        "CmaEsSampler samples numbers, and chooses c at random"
    ]


def test_importance_evaluators_are_made_by_name() -> None:
    made = make_importance(a_search(importance={"name": "FanovaImportanceEvaluator", "n_trees": 3}))
    assert type(made).__name__ == "FanovaImportanceEvaluator"

"""Every mistake in a `search` gets one message at its line, which says what was found and what to do."""

# ruff: noqa: E501 (one mistake per line reads best)
from __future__ import annotations

from pathlib import Path

import pytest
from search_runs import edited, mistakes, opened
from toy_sweep import SEARCH

from orchestrator.search.options import problems
from orchestrator.sweep.document import parse_value
from orchestrator.sweep.search import Search

TRIALS = "    trials: 3"


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ([('  tuning:\n', '  tuning:\n    bugdet: 3\n')],
         ['6: search.tuning.bugdet: unknown field; choose from concurrency, constraints, fresh, importance, objective, per, pruner, sampler, seed, space, start, storage, trials']),
        ([(TRIALS, '    trial: 3')],
         ['5: search.tuning.trials: is missing',
          "12: search.tuning.trial: unknown field; did you mean 'trials'?"]),
        ([(TRIALS, '    trials: 0')],
         ['12: search.tuning.trials: should be greater than or equal to 1; found 0']),
        ([(TRIALS, '    trials: 20000')],
         ['12: search.tuning.trials: should be less than or equal to 10000; found 20000']),
        ([(TRIALS, '    trials: many')],
         ["12: search.tuning.trials: should be a valid integer; found 'many'"]),
        ([('{float: [0, 10]}', '{float: [10, 0]}')],
         ["8: search.tuning.space.add: the lowest value, 10, is not below the highest, 0; found {'float': [10, 0]}"]),
        ([('{float: [0, 10]}', '{float: [0]}')],
         ['8: search.tuning.space.add.float[1]: is missing']),
        ([('{float: [0, 10]}', '{float: 3}')],
         ['8: search.tuning.space.add.float: should be a list; found 3']),
        ([('{float: [0, 10]}', '{float: [0, .inf]}')],
         ['8: search.tuning.space.add.float[1]: should be a finite number; found inf']),
        ([('{float: [0, 10]}', '{float: [0, 10], log: true}')],
         ["8: search.tuning.space.add: ratios of values (log: true) need a lowest value above 0, which 0 is not; found {'float': [0, 10], 'log': True}"]),
        ([('{float: [0, 10]}', '{float: [0, 10], int: [0, 10]}')],
         ["8: search.tuning.space.add: a field has one of float: [LOW, HIGH], int: [LOW, HIGH], choice: [VALUE, …]; found {'float': [0, 10], 'int': [0, 10]}"]),
        ([('{float: [0, 10]}', '{}')],
         ['8: search.tuning.space.add: a field has one of float: [LOW, HIGH], int: [LOW, HIGH], choice: [VALUE, …]; found {}']),
        ([('{float: [0, 10]}', '{flaot: [0, 10]}')],
         ["8: search.tuning.space.add.flaot: unknown field; did you mean 'float'?"]),
        ([('{float: [0, 10]}', '{float: [0, 10], step: -1}')],
         ['8: search.tuning.space.add.step: should be greater than 0; found -1']),
        ([('{float: [0, 10]}', '{int: [0, 10], step: 0.5}')],
         ["8: search.tuning.space.add: the step of whole numbers is a whole number; found {'int': [0, 10], 'step': 0.5}"]),
        ([('{float: [0, 10]}', '{float: [1, 10], step: 1, log: true}')],
         ["8: search.tuning.space.add: a field has log or step, not both; found {'float': [1, 10], 'step': 1, 'log': True}"]),
        ([('{float: [0, 10]}', '{int: [0.5, 10]}')],
         ['8: search.tuning.space.add.int[0]: should be a valid integer, got a number with a fractional part; found 0.5']),
        ([('{float: [0, 10]}', '{choice: [1, 2], log: true}')],
         ["8: search.tuning.space.add: choices have neither log nor step; found {'choice': [1, 2], 'log': True}"]),
        ([('{float: [0, 10]}', '{choice: []}')],
         ["8: search.tuning.space.add: there is nothing to choose from; found {'choice': []}"]),
        ([('{float: [0, 10]}', '{choice: [1, 1]}')],
         ["8: search.tuning.space.add: a value is there twice; keep one; found {'choice': [1, 1]}"]),
        ([('{float: [0, 10]}', '{choice: [[1], [2]]}')],
         ['8: search.tuning.space.add.choice: only text, numbers, true and false stand for themselves; give [1] a name: {NAME: VALUE, …}; found [[1], [2]]']),
        ([('{float: [0, 10]}', '[0, 10]')],
         ['8: search.tuning.space.add: should be a mapping; found [0, 10]']),
        ([('{float: [0, 10]}', '{float: [0, 10], default: 11}')],
         ['8: search.tuning.space.add.default: 11 is not a number from 0 to 10']),
        ([('{float: [0, 10]}', '{float: [0, 10], when: {knd: 1}}')],
         ["8: search.tuning.space.add.when.knd: 'knd' is neither an axis of `per` nor a field before this one; did you mean 'kind'?"]),
        ([('{float: [0, 10]}', '{float: [0, 10], when: {kind: 5}}')],
         ["8: search.tuning.space.add.when.kind: 5 is no value of 'kind'; choose from 1, 2"]),
        ([('{float: [0, 10]}', '{float: [0, 10], when: {value: small}}')],
         ["8: search.tuning.space.add.when.value: 'value' is neither an axis of `per` nor a field before this one; choose from kind"]),
        ([('      add:', '      kind:'), ('$tuning.add', '$tuning.kind')],
         ["8: search.tuning.space.kind: 'kind' is an axis too, which would be one column; rename the field"]),
        ([('      add:', '      Value:'), ('$tuning.add', '$tuning.Value')],
         ['8: search.tuning.space.Value: differs from another field only in case, and would be one column',
          '9: search.tuning.space.value: differs from another field only in case, and would be one column']),
        ([('      add:', '      status:'), ('$tuning.add', '$tuning.status')],
         ["8: search.tuning.space.status: 'status' cannot name a field: it is a name of our own"]),
        ([('      add:', '      a-b:'), ('$tuning.add', '$tuning.a-b')],
         ["8: search.tuning.space.a-b: 'a-b' cannot name a field: use up to 100 letters, digits and _"]),
        ([('      add:', '      total:'), ('$tuning.add', '$tuning.total')],
         ["8: search.tuning.space.total: is also the metric 'total', which would be one column; rename the field"]),
        ([('$tuning.add', '1')],
         ['8: search.tuning.space.add: no config reads $tuning.add, so its values would repeat the same trial; write $tuning.add where it belongs, or remove the field']),
        ([('$tuning.add', '$tuning.ad')],
         ["19: stages.total.config.add: $tuning.ad: the space of the search has no 'ad'; did you mean 'add'?"]),
        ([('$tuning.add', '$tunning.add')],
         ["19: stages.total.config.add: $tunning.add refers to no axis; did you mean 'tuning'?"]),
        ([('stage: toy_double, inputs: {number: source}', 'stage: $tuning.value, inputs: {number: source}')],
         ['17: stages.double.stage: is part of the plan, so it cannot be searched for; search over values of configs']),
        ([('stage: toy_source,', 'stage: toy_source, shards: $tuning.add,')],
         ['16: stages.source.shards: is part of the plan, so it cannot be searched for; search over values of configs']),
        ([('      add: {float: [0, 10]}\n      value: {choice: {small: 1, large: 100}, default: small}\n', '      {}\n')],
         ['7: search.tuning.space: has no fields, so there is nothing to search for; found {}']),
        ([('metric: total, better: higher, ', '')],
         ['10: search.tuning.objective.metric: is missing',
          '10: search.tuning.objective.better: is missing']),
        ([('metric: total', 'metric: totl')],
         ["10: search.tuning.objective.metric: there is no metric 'totl'; did you mean 'total'?"]),
        ([('better: higher', 'better: up')],
         ["10: search.tuning.objective.better: should be 'higher' or 'lower'; found 'up'"]),
        ([('metric: total', 'metric: [total, total]')],
         ["10: search.tuning.objective: say of each metric which of its values are better: higher or lower; found {'metric': ['total', 'total'], 'better': 'higher', 'over': {'seed': [0, 1]}}"]),
        ([('metric: total', 'metric: [total, value]')],
         ["10: search.tuning.objective: say of each metric which of its values are better: higher or lower; found {'metric': ['total', 'value'], 'better': 'higher', 'over': {'seed': [0, 1]}}"]),
        ([('metric: total', 'metric: []')],
         ["10: search.tuning.objective: say of each metric which of its values are better: higher or lower; found {'metric': [], 'better': 'higher', 'over': {'seed': [0, 1]}}"]),
        ([('over: {seed: [0, 1]}', 'over: {seed: []}')],
         ['10: search.tuning.objective.over.seed: has no values, so a trial has no repetitions; leave the axis out, or give values']),
        ([('over: {seed: [0, 1]}', 'over: {seed: 3}')],
         ['10: search.tuning.objective.over.seed: should be a list; found 3']),
        ([('over: {seed: [0, 1]}', 'over: {sed: [0, 1]}')],
         ["14: search.tuning.fresh.seed: 'seed' is no axis of objective.over; did you mean 'sed'?"]),
        ([('over: {seed: [0, 1]}', 'over: {kind: [1, 2]}')],
         ["6: search.tuning.per[0]: 'kind' is in objective.over too: trials are repeated along it; write it in one",
          "14: search.tuning.fresh.seed: 'seed' is no axis of objective.over; choose from kind"]),
        ([('over: {seed: [0, 1]}', 'over: {status: [0, 1]}')],
         ["10: search.tuning.objective.over.status: 'status' cannot name an axis: it is a name of our own",
          "14: search.tuning.fresh.seed: 'seed' is no axis of objective.over; choose from status"]),
        ([('over: {seed: [0, 1]}', 'over: {seed: [0, 1], trial: [1]}')],
         ["10: search.tuning.objective.over.trial: 'trial' cannot name an axis: it is a name of our own"]),
        ([('over: {seed: [0, 1]}', 'over: {seed: [0, 0]}')],
         ['10: search.tuning.objective.over.seed[1]: 0 is there twice; keep one']),
        ([('over: {seed: [0, 1]}', 'over: {seed: [0, .nan]}')],
         ['10: search.tuning.objective.over.seed[1]: nan is not a coordinate; give a number']),
        ([('over: {seed: [0, 1]}', 'over: {seed: [0, 1]}, reduce: meen')],
         ["10: search.tuning.objective.reduce: should be 'mean', 'median' or 'worst'; found 'meen'"]),
        ([('over: {seed: [0, 1]}', 'over: {seed: [0, 1]}, reduce: {quantile: 2}')],
         ['10: search.tuning.objective.reduce.quantile: should be less than or equal to 1; found 2']),
        ([('over: {seed: [0, 1]}', 'over: {seed: [0, 1]}, null: best')],
         ["10: search.tuning.objective.null: should be 'fail' or 'worst'; found 'best'"]),
        ([('{seed: [7]}', '{sed: [7]}')],
         ["14: search.tuning.fresh.sed: 'sed' is no axis of objective.over; did you mean 'seed'?"]),
        ([('{seed: [7]}', '{seed: [1]}')],
         ['14: search.tuning.fresh.seed: 1 is one of the values that trials are chosen by; fresh ones are others']),
        ([('{seed: [7]}', '{seed: []}')],
         ['14: search.tuning.fresh.seed: has no values; leave it out, or give some']),
        ([('{seed: [7]}', '{seed: [7, 7]}')],
         ['14: search.tuning.fresh.seed[1]: 7 is there twice; keep one']),
        ([('per: [kind]', 'per: [kin]')],
         ["6: search.tuning.per[0]: there is no axis 'kin'; did you mean 'kind'?"]),
        ([('per: [kind]', 'per: []')],
         ["6: search.tuning.per: axis 'kind' is neither here nor in objective.over: is there a study for each of its values (write it here), or is each trial repeated at all of them (write it there)?"]),
        ([('per: [kind]', 'per: [kind, seed]')],
         ["6: search.tuning.per[1]: 'seed' is in objective.over too: trials are repeated along it; write it in one"]),
        ([('per: [kind]', 'per: [kind, kind]')],
         ["6: search.tuning.per[1]: 'kind' is there twice; keep one"]),
        ([('axes: {kind: [1, 2]}', 'axes: {kind: [1, 2], seed: [0, 1, 5, 7]}')],
         ['10: search.tuning.objective.over.seed: axes.seed has 5, at which no trial is measured; leave it out there']),
        ([('axes: {kind: [1, 2]}', 'axes: {kind: [1, 2], seed: [0, 7]}')],
         ["10: search.tuning.objective.over.seed: 1 is no value of 'seed'; choose from 0, 7"]),
        ([('axes: {kind: [1, 2]}', 'axes: {kind: [1, 2], trial: [0, 7]}')],
         ["3: axes.trial: 'trial' cannot name an axis: it is a name of our own"]),
        ([('  tuning:\n', '  kind:\n'), ('$tuning', '$kind')],
         ["5: search.kind: 'kind' cannot name a search: an axis has that name"]),
        ([('  tuning:\n', '  status:\n'), ('$tuning', '$status')],
         ["5: search.status: 'status' cannot name a search: it is a name of our own"]),
        ([('  tuning:\n', '  a b:\n')],
         ["5: search.a b: 'a b' cannot name a search: use up to 100 letters, digits and _"]),
        ([('  tuning:\n', '  data:\n'), ('$tuning', '$data')],
         ["5: search.data: 'data' cannot name a search: it is a name of our own"]),
        ([('  tuning:\n', '  trial:\n'), ('$tuning', '$trial')],
         ["5: search.trial: 'trial' cannot name a search: it is a name of our own"]),
        ([(TRIALS, '    start: defaults\n' + TRIALS)],
         ["12: search.tuning.start: should be a list; found 'defaults'"]),
        ([(TRIALS, '    start: [default]\n' + TRIALS)],
         ["12: search.tuning.start[0]: is neither `defaults`, nor a mapping of fields to values, nor {from: SWEEP.yaml}; found 'default'"]),
        ([(TRIALS, '    start: [{ad: 1}]\n' + TRIALS)],
         ["12: search.tuning.start[0].ad: there is no such field; did you mean 'add'?"]),
        ([(TRIALS, '    start: [{add: 11}]\n' + TRIALS)],
         ['12: search.tuning.start[0].add: 11 is not a number from 0 to 10']),
        ([(TRIALS, '    start: [{value: 100}]\n' + TRIALS)],
         ['12: search.tuning.start[0].value: 100 is no choice; choose from small, large']),
        ([(TRIALS, '    start: [{}, {}, {}, {}]\n' + TRIALS)],
         ['13: search.tuning.trials: 3 trials are fewer than the 4 that `start` asks for']),
        ([(TRIALS, '    start: [{from: 3}]\n' + TRIALS)],
         ['12: search.tuning.start[0].from: stands alone, and names a sweep file: {from: SWEEP.yaml}']),
        ([(TRIALS, '    start: [defaults]\n' + TRIALS), (', default: small', '')],
         ['9: search.tuning.space.value: `start: [defaults]` needs a default, and no stage has a default for it; write default: VALUE here']),
        ([(TRIALS, '    constraints: {totl: {at_most: 1}}\n' + TRIALS)],
         ["12: search.tuning.constraints.totl: there is no metric 'totl'; did you mean 'total'?"]),
        ([(TRIALS, '    constraints: {total: {at_most: 1, at_least: 0}}\n' + TRIALS)],
         ["12: search.tuning.constraints.total: write at_most: NUMBER or at_least: NUMBER; found {'at_most': 1, 'at_least': 0}"]),
        ([(TRIALS, '    constraints: {total: 3}\n' + TRIALS)],
         ['12: search.tuning.constraints.total: should be a mapping; found 3']),
        ([(TRIALS, '    constraints: {total: {most: 3}}\n' + TRIALS)],
         ["12: search.tuning.constraints.total.most: unknown field; did you mean 'at_most'?"]),
        ([('RandomSampler', 'RandmSampler')],
         ["11: search.tuning.sampler.name: Optuna has no sampler 'RandmSampler'; did you mean 'RandomSampler'?"]),
        ([('{name: RandomSampler}', 'RandomSampler')],
         ["11: search.tuning.sampler: should be a mapping; found 'RandomSampler'"]),
        ([('{name: RandomSampler}', '{name: RandomSampler, seed: 3}')],
         ['11: search.tuning.sampler.seed: follows from `seed` of the search; remove it']),
        ([('{name: RandomSampler}', '{name: TPESampler, n_startup: 3}')],
         ["11: search.tuning.sampler.n_startup: TPESampler has no option 'n_startup'; did you mean 'n_startup_trials'?"]),
        ([('{name: RandomSampler}', '{multivariate: true}')],
         ['11: search.tuning.sampler.name: is missing']),
        ([(TRIALS, '    pruner: {name: WilcoxonPruner, p_treshold: 0.1}\n' + TRIALS)],
         ["12: search.tuning.pruner.p_treshold: WilcoxonPruner has no option 'p_treshold'; did you mean 'p_threshold'?"]),
        ([(TRIALS, '    importance: {name: Fanova}\n' + TRIALS)],
         ["12: search.tuning.importance.name: Optuna has no importance evaluator 'Fanova'; choose from FanovaImportanceEvaluator, MeanDecreaseImpurityImportanceEvaluator, PedAnovaImportanceEvaluator"]),
        ([(TRIALS, '    seed: -1\n' + TRIALS)],
         ['12: search.tuning.seed: should be greater than or equal to 0; found -1']),
        ([('concurrency: 1', 'concurrency: 0')],
         ['13: search.tuning.concurrency: should be greater than or equal to 1; found 0']),
        ([('stages:', 'analysis: {primary: {metric: total, better: lower}}\nstages:')],
         ["10: search.tuning.objective.better: is higher for 'total', but its stage or `analysis` says that lower is better"]),
        ([('search:\n  tuning:', 'search:\n  other: {space: {a: {int: [0, 1]}}, objective: {metric: total, better: higher}, trials: 1}\n  tuning:')],
         ['6: search.tuning: a sweep has one search; write another sweep for the other']),
    ],
)  # fmt: skip
def test_each_mistake_is_named_at_its_line_with_the_remedy(
    tmp_path: Path, edits: list[tuple[str, str]], expected: list[str]
) -> None:
    assert mistakes(tmp_path, edited(SEARCH, *edits)) == [f"tune.yaml:{each}" for each in expected]


def test_the_example_on_the_page_of_the_grammar_is_understood() -> None:
    page = (Path(__file__).parents[2] / "sweeps" / "README.md").read_text()
    block = page.split("```yaml\nsearch:\n")[1].split("```")[0]
    search = Search.model_validate(parse_value(block)["tuning"])
    assert problems(search) == []
    assert [*search.fields] == ["lr", "leaves", "hidden", "dropout"]


def test_mistakes_of_all_kinds_are_told_at_once(tmp_path: Path) -> None:
    text = edited(
        SEARCH,
        ("RandomSampler", "RandmSampler"),
        ("metric: total", "metric: totl"),
        ("{number: source}", "{number: sauce}"),
    )
    assert [each.partition(": ")[0] for each in mistakes(tmp_path, text)] == [
        "tune.yaml:10",
        "tune.yaml:11",
        "tune.yaml:17",
    ]


def test_what_is_no_mistake_and_does_less_than_it_seems_is_noted(tmp_path: Path) -> None:
    text = edited(SEARCH, (TRIALS, "    pruner: {name: WilcoxonPruner}\n" + TRIALS))
    assert any("WilcoxonPruner can end no trial early" in note for note in opened(tmp_path, text).search_notes())


def test_a_sweep_without_a_search_has_no_notes(tmp_path: Path) -> None:
    text = SEARCH[: SEARCH.index("search:")] + SEARCH[SEARCH.index("stages:") :]
    text = edited(text, ("$tuning.value", "1"), ("$tuning.add", "1"), ("$seed", "1"))
    assert opened(tmp_path, text).search_notes() == []

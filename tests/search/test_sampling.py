"""A suggestion follows from what is recorded: a study that is made anew goes on as the one that lived."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from search_studies import (
    COORDS,
    EARLIER,
    MEDIAN,
    SAMPLERS,
    START,
    a_search,
    play,
    read,
    rebuilt,
    verdict,
    written,
)

from orchestrator.search.records import Earlier, Suggestion, Told
from orchestrator.search.sampling import Sampling


@pytest.mark.parametrize("concurrency", [1, 5])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_made_anew_after_any_trial_suggests_the_same_bit_for_bit(sampler: str, concurrency: int) -> None:
    search = a_search(sampler=SAMPLERS[sampler], pruner=MEDIAN)
    played = play(search, 30, concurrency, EARLIER, START)
    records = [written(each) for each in played.suggestions]
    for number in [*range(0, 30, 4), 29]:
        sampling = rebuilt(search, [read(text) for text in records[:number]], EARLIER)
        expected = read(records[number])
        for told in expected.told:
            sampling.tell(told)
        values, attributes = sampling.suggest(number, START.get(number))
        anew = replace(expected, values=values, attributes=attributes)
        assert written(anew) == records[number]
        assert {name: type(each) for name, each in values.items()} == {
            name: type(each) for name, each in played.suggestions[number].values.items()
        }


def test_the_same_in_another_process_where_texts_have_other_hashes(tmp_path: Path) -> None:
    searches = {name: a_search(sampler=each, pruner=MEDIAN) for name, each in SAMPLERS.items()}
    lived = {
        name: [written(each) for each in play(search, 25, 5, EARLIER, START).suggestions]
        for name, search in searches.items()
    }
    (tmp_path / "lived.json").write_text(json.dumps(lived))
    code = """
import json, sys
from dataclasses import replace
from search_studies import EARLIER, MEDIAN, SAMPLERS, a_search, read, rebuilt, written
for name, records in json.load(open(sys.argv[1])).items():
    search = a_search(sampler=SAMPLERS[name], pruner=MEDIAN)
    last = read(records[-1])
    sampling = rebuilt(search, [read(each) for each in records[:-1]], EARLIER)
    for told in last.told:
        sampling.tell(told)
    values, attributes = sampling.suggest(last.number)
    anew = replace(last, values=values, attributes=attributes)
    if written(anew) != records[-1]:
        sys.exit(name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "lived.json")],
        env=os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.long  # It imports torch, and takes half a second for a trial.
def test_gaussian_processes_suggest_the_same_too() -> None:
    search = a_search(sampler={"name": "GPSampler", "n_startup_trials": 4})
    records = [read(written(each)) for each in play(search, 9, 3, EARLIER, START).suggestions]
    sampling = rebuilt(search, records[:-1], EARLIER)
    for told in records[-1].told:
        sampling.tell(told)
    assert "gp:relative_params:0" in records[-1].attributes
    assert sampling.suggest(8) == (records[-1].values, records[-1].attributes)


@pytest.mark.parametrize("sampler", ["nsga-ii", "nsga-iii", "tpe"])
def test_several_metrics_are_searched_for_together(sampler: str) -> None:
    two = {"metric": ["score", "length"], "better": ["higher", "lower"]}
    search = a_search(sampler=SAMPLERS[sampler], objective=two)
    played = play(search, 20, 3)
    records = [read(written(each)) for each in played.suggestions]
    sampling = rebuilt(search, records[:-1])
    for told in records[-1].told:
        sampling.tell(told)
    assert sampling.suggest(19) == (records[-1].values, records[-1].attributes)


def test_fields_exist_as_the_coordinates_and_the_values_before_them_say() -> None:
    for suggestion in play(a_search(), 20).suggestions:
        assert ("width" in suggestion.values) == (suggestion.values["model"] == "large")
        assert "leaves" in suggestion.values
        assert "harmless" not in suggestion.values


def test_trials_of_a_study_have_seeds_of_their_own_and_so_have_searches() -> None:
    random = {"name": "RandomSampler"}
    first = [each.values["lr"] for each in play(a_search(sampler=random), 5).suggestions]
    other = [each.values["lr"] for each in play(a_search(sampler=random, seed=4), 5).suggestions]
    assert len({*first, *other}) == 10


def test_points_of_a_scrambled_sequence_fill_the_space_evenly() -> None:
    space = {"a": {"float": [0, 1]}, "b": {"float": [0, 1]}}
    sampling = Sampling(a_search(space=space, sampler=SAMPLERS["qmc scrambled"], constraints={}), {}, "1")
    drawn = []
    for number in range(17):
        drawn.append(float(sampling.suggest(number)[0]["a"]))
        sampling.tell(Told(number, "complete", (0.0,)))
    # The first one shows what there is to choose, and is drawn at random.
    assert len({int(each * 16) for each in drawn[1:]}) == 16


def test_a_grid_is_visited_once_and_ends_without_an_error() -> None:
    grid = {"name": "GridSampler", "search_space": {"a": [1, 2, 3], "b": ["x", "y"]}}
    search = a_search(space={"a": {"int": [1, 3]}, "b": {"choice": ["x", "y"]}}, sampler=grid, constraints={}, trials=6)
    sampling = Sampling(search, {}, "1")
    seen = []
    for number in range(6):
        seen.append(tuple(sampling.suggest(number)[0].values()))
        sampling.tell(Told(number, "complete", (float(number),)))
    assert sorted(seen) == [(a, b) for a in (1, 2, 3) for b in ("x", "y")]


def test_start_values_are_used_and_the_sampler_chooses_the_others() -> None:
    values, attributes = Sampling(a_search(), COORDS, "1").suggest(0, {"lr": 0.1, "depth": 6})
    assert (values["lr"], values["depth"]) == (0.1, 6)
    assert list(values) in (["lr", "model", "depth", "leaves"], ["lr", "model", "width", "depth", "leaves"])
    assert attributes["fixed_params"] == {"lr": 0.1, "depth": 6}


def test_values_are_within_their_field_however_narrow_it_is() -> None:
    search = a_search(space={"a": {"float": [0.1, 0.1000000000000001], "log": True}}, constraints={})
    lived = Sampling(search, {}, "1")
    suggestions = []
    for number in range(40):
        suggestions.append(_recorded(lived, number))
        lived.tell(Told(number, "complete", (float(number % 7),)))
    assert all(search.fields["a"].contains(each.values["a"]) for each in suggestions)


@pytest.mark.parametrize(
    "space",
    [
        {"a": {"choice": ["only"]}},
        {"a": 3},
        {"lr": {"float": [0, 1]}, "LR": {"float": [0, 1]}},
        {"a": {"int": [-(2**53), 2**53]}, "b": {"float": [1e-300, 1e300], "log": True}},
        {"ü:☃": {"choice": ["", "\ud800", 2**70, -0.5]}},
        {
            "a": {"choice": ["x", "y"]},
            "b": {"choice": ["p", "q"], "when": {"a": "x"}},
            "c": {"int": [0, 9], "when": {"b": "q"}},
        },
    ],
)
def test_odd_spaces_are_sampled_recorded_and_rebuilt(space: dict[str, object]) -> None:
    for sampler in ("tpe group", "random", "cma-es", "nsga-iii", "qmc scrambled"):
        search = a_search(space=space, sampler=SAMPLERS[sampler], constraints={})
        lived, anew = Sampling(search, {}, "1"), Sampling(search, {}, "1")
        for number in range(12):
            told = (Told(number - 1, "complete", (float(number % 5),)),) if number else ()
            for each in told:
                lived.tell(each)
            suggestion = _recorded(lived, number, told)
            assert all(search.fields[name].contains(value) for name, value in suggestion.values.items())
            assert read(written(suggestion)) == suggestion
            if number < 11:
                anew.adopt(read(written(suggestion)))
        anew.tell(suggestion.told[0])
        assert anew.suggest(11) == (suggestion.values, suggestion.attributes)


def test_genetic_samplers_take_start_trials_into_their_first_generation() -> None:
    search = a_search(sampler=SAMPLERS["nsga-ii"])
    full = {"lr": 0.1, "model": "small", "depth": 6, "leaves": 3}
    assert Sampling(search, COORDS, "1").suggest(0, full)[1]["NSGAIISampler:generation"] == 0


def test_broken_constraints_reach_the_sampler() -> None:
    def learned(excess: float) -> list[float]:
        search = a_search(sampler={"name": "TPESampler", "n_startup_trials": 4})
        sampling = Sampling(search, COORDS, "1")
        chosen = []
        for number in range(12):
            values, _ = sampling.suggest(number)
            chosen.append(float(values["depth"]))
            sampling.tell(Told(number, "complete", (float(values["depth"]),), (excess * (float(values["depth"]) - 2),)))
        return chosen

    assert learned(1.0) != learned(0.0)


def test_infinite_objectives_are_complete_trials() -> None:
    for name in SAMPLERS:
        sampling = Sampling(a_search(sampler=SAMPLERS[name]), COORDS, "1")
        for number in range(16):
            sampling.suggest(number)
            worst = float("-inf") if number % 3 == 0 else float(number)
            sampling.tell(Told(number, "complete", (worst,), (0.0,)))


def test_a_study_made_anew_with_its_verdicts_prunes_the_same_trials() -> None:
    search = a_search(pruner={"name": "SuccessiveHalvingPruner", "min_resource": 1, "reduction_factor": 2})
    lived = Sampling(search, COORDS, "1")
    steps = {number: [float(-number % 5), float(-number % 5)] for number in range(8)}
    suggestions, verdicts = [], []
    for number in range(8):
        suggestions.append(_recorded(lived, number))
        verdicts.append(verdict(lived, number, steps[number]))
    assert [each.prune for each in verdicts[:3]] == [False, False, True]
    assert verdicts[0].attributes == {"completed_rung_0": 0.0}
    for known in range(8):
        sampling = Sampling(search, COORDS, "1")
        for suggestion, said in zip(suggestions[: known + 1], [*verdicts[:known], None], strict=False):
            sampling.adopt(suggestion)
            if said is not None:
                sampling.adopt_verdict(said, steps[said.number])
        assert verdict(sampling, known, steps[known]) == verdicts[known]


@pytest.mark.parametrize("pruner", ["MedianPruner", "HyperbandPruner", "SuccessiveHalvingPruner", "WilcoxonPruner"])
def test_every_pruner_ends_trials_that_are_worse_in_all_repetitions(pruner: str) -> None:
    options = {"WilcoxonPruner": {"p_threshold": 0.2}}.get(pruner, {})
    objective = {"metric": "score", "better": "higher", "over": {"seed": list(range(8))}}
    search = a_search(pruner={"name": pruner, **options}, objective=objective)
    sampling = Sampling(search, COORDS, "1")
    ended = 0
    for number in range(14):
        sampling.suggest(number)
        steps = [-float(number) - 0.01 * step for step in range(8)]
        for known in range(1, 9):
            if sampling.judge(number, steps[:known])[0]:
                ended += 1
                sampling.tell(Told(number, "pruned", (steps[0],), (0.0,), tuple(steps[:known])))
                break
        else:
            sampling.tell(Told(number, "complete", (steps[0],), (0.0,), tuple(steps)))
    assert ended > 2


def test_without_a_pruner_no_trial_ends_early() -> None:
    sampling = Sampling(a_search(), COORDS, "1")
    sampling.suggest(0)
    assert sampling.judge(0, [float("-inf")]) == (False, {})


def test_what_is_out_of_turn_is_an_error() -> None:
    sampling = Sampling(a_search(), COORDS, "1f", EARLIER)
    with pytest.raises(ValueError, match="trial 1 of study 1f is not next: 0 is"):
        sampling.suggest(1)
    with pytest.raises(ValueError, match="trial 0 of study 1f is not under way"):
        sampling.tell(Told(0, "failed"))
    sampling.suggest(0)
    with pytest.raises(ValueError, match="trial -1 of study 1f is not under way"):
        sampling.tell(Told(-1, "failed"))
    with pytest.raises(ValueError, match="has a constraint that is no number"):
        sampling.tell(Told(0, "complete", (1.0,), (float("nan"),)))
    with pytest.raises(ValueError, match="needs a number for each metric"):
        sampling.tell(Told(0, "complete", (float("nan"),), (0.0,)))
    sampling.tell(Told(0, "failed"))
    with pytest.raises(ValueError, match="trial 0 of study 1f is not under way"):
        sampling.tell(Told(0, "failed"))
    with pytest.raises(ValueError, match="not in"):
        Sampling(a_search(), COORDS, "1f", [Earlier({"model": "huge"}, (0.0,), (0.0,))])


def _recorded(sampling: Sampling, number: int, told: tuple[Told, ...] = ()) -> Suggestion:
    values, attributes = sampling.suggest(number)
    return Suggestion(number, values, told, attributes)

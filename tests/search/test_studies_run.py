"""A search runs like any sweep: to its budget, told of what ended, resumed by the same command."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from search_toy import SWEEP, calls, open_bowls, write_bowls

from orchestrator import read_results
from orchestrator.drive import drive
from orchestrator.events import NothingToDo
from orchestrator.search.trial import Study
from orchestrator.session import Session, open_session


def _run(folder: Path, *overrides: str, text: str = SWEEP) -> tuple[int, Session]:
    session = open_bowls(folder, *overrides, text=text)
    return drive(session, inline=True), session


def _studies(folder: Path, *overrides: str, text: str = SWEEP) -> list[Study]:
    session = open_bowls(folder, *overrides, text=text)
    results = session.results()
    return session.studies.views(results)


def _rows(folder: Path) -> list[dict[str, Any]]:
    return read_results(folder / "out/sweeps/bowls").to_pylist()  # type: ignore[no-any-return]


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    """Read all suggestions: `<study>/<number>` -> record, without when it was made."""
    found = {}
    for path in sorted((folder / "out/store/studies").glob("*/*.json")):
        if path.stem.isdigit():
            record = json.loads(path.read_text())
            del record["made"]
            found[f"{path.parent.name}/{path.stem}"] = record
    return found


def test_a_study_has_exactly_its_trials_and_its_best_one_is_measured_again(tmp_path: Path) -> None:
    code, _ = _run(tmp_path)
    assert code == 0
    studies = _studies(tmp_path)
    assert [study.name for study in studies] == ["tuning/a", "tuning/b"]
    for study in studies:
        assert study.finished
        assert [trial.number for trial in study.trials] == list(range(6))
        best = study.best
        assert best is not None
        assert best.objectives == min(trial.objectives for trial in study.trials if trial.objectives)
        assert study.fresh is not None
    rows = _rows(tmp_path)
    # 2 × (6 trials × 3 seeds + 2 fresh ones).
    assert Counter(row["status"] for row in rows) == {"succeeded": 40}
    for study in studies:
        mine = [row for row in rows if row["study"] == study.name]
        fresh = [row for row in mine if row["seed"] >= 10]
        assert {row["trial"] for row in fresh} == {study.best.number if study.best else None}
        for trial in study.trials:
            of_trial = [row for row in mine if row["trial"] == trial.number]
            assert {row["trial_state"] for row in of_trial} == {"complete"}
            assert {(row["lr"], row["net"]) for row in of_trial} == {(trial.values["lr"], trial.values["net"])}
            assert all((row["momentum"] is None) == (study.coords["arm"] == "a") for row in of_trial)
    # The start was tried first.
    assert all(study.trials[0].values["lr"] == 0.01 and study.trials[0].origin == "start" for study in studies)


def test_the_same_command_has_nothing_to_do_then(tmp_path: Path) -> None:
    _run(tmp_path)
    before, events = len(calls(tmp_path)), []
    assert drive(open_bowls(tmp_path), inline=True, on_event=events.append) == 0
    assert any(isinstance(event, NothingToDo) for event in events)
    assert len(calls(tmp_path)) == before


def test_one_trial_at_a_time_is_the_same_study_bit_for_bit_wherever_it_is_run(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        _run(tmp_path / name)
    assert _records(tmp_path / "one") == _records(tmp_path / "two")


def test_more_trials_go_on_with_the_same_study(tmp_path: Path) -> None:
    _run(tmp_path, "search.tuning.trials=3")
    before = _records(tmp_path)
    assert len(before) == 6
    _run(tmp_path)
    after = _records(tmp_path)
    assert len(after) == 12
    assert {name: after[name] for name in before} == before
    (tmp_path / "whole").mkdir()
    _run(tmp_path / "whole")
    assert _records(tmp_path / "whole") == after


def test_several_trials_at_a_time_reach_the_budget_too_and_each_is_told_once(tmp_path: Path) -> None:
    code, _ = _run(tmp_path, "search.tuning.concurrency=4")
    assert code == 0
    records = _records(tmp_path)
    assert len(records) == 12
    for study in {name.split("/")[0] for name in records}:
        told = [each["number"] for name, record in records.items() if name.startswith(study) for each in record["told"]]
        assert len(told) == len(set(told))


def test_failed_trials_are_told_as_failed_and_tried_again_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOWL_RAISES", "0.3")
    options = ("limits.breaker=100", "search.tuning.start=[{lr: 0.5, net: wide}]")
    code, _ = _run(tmp_path, *options)
    assert code == 1
    told = [each for record in _records(tmp_path).values() for each in record["told"]]
    failed = [each for each in told if each["state"] == "failed"]
    assert failed
    assert all(each["why"] == "ValueError" and not each["objectives"] for each in failed)
    assert {row["trial_state"] for row in _rows(tmp_path) if row["status"] == "failed"} == {"failed"}
    assert len(_records(tmp_path)) == 12
    # The study is over all the same, and its best trial measured again.
    assert all(study.finished and study.fresh for study in _studies(tmp_path, *options))
    before = _records(tmp_path)
    monkeypatch.delenv("BOWL_RAISES")
    code, _ = _run(tmp_path, *options)
    assert code == 0
    assert _records(tmp_path) == before
    assert {row["trial_state"] for row in _rows(tmp_path)} == {"complete"}


def test_where_all_trials_fail_alike_the_breaker_ends_the_study_before_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOWL_RAISES", "0")
    code, _ = _run(tmp_path, "limits.breaker=4")
    assert code == 1
    assert len(_records(tmp_path)) < 12
    monkeypatch.delenv("BOWL_RAISES")
    code, _ = _run(tmp_path, "limits.breaker=4")
    assert code == 0
    assert len(_records(tmp_path)) == 12


@pytest.mark.parametrize("null", ["fail", "worst"])
def test_an_undefined_metric_is_a_failed_trial_or_the_worst_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, null: str
) -> None:
    monkeypatch.setenv("BOWL_UNDEFINED", "0.01")
    options = (f"search.tuning.objective.null={null}", "search.tuning.start=[{lr: 0.001, net: wide}]")
    code, _ = _run(tmp_path, *options)
    assert code == 0
    for study in _studies(tmp_path, *options):
        bad = [trial for trial in study.trials if float(trial.values["lr"]) < 0.01]
        assert bad
        assert {trial.state for trial in bad} == {"failed" if null == "fail" else "complete"}
        assert {trial.objectives for trial in bad} == {None if null == "fail" else (float("inf"),)}
        assert study.best is None or float(study.best.values["lr"]) >= 0.01
    told = [each for record in _records(tmp_path).values() for each in record["told"] if each["number"] == 0]
    assert {tuple(each["objectives"]) for each in told} == {() if null == "fail" else (float("inf"),)}


def test_a_pruned_trial_starts_no_further_repetition_and_keeps_what_it_has(tmp_path: Path) -> None:
    options = (
        "search.tuning.pruner={name: MedianPruner, n_startup_trials: 2, n_warmup_steps: 0}",
        "search.tuning.trials=12",
        "search.tuning.sampler={name: RandomSampler}",
    )
    code, _ = _run(tmp_path, *options)
    assert code == 0
    rows = _rows(tmp_path)
    pruned = [trial for study in _studies(tmp_path, *options) for trial in study.trials if trial.state == "pruned"]
    assert pruned
    assert all(len(trial.repetitions) < 3 for trial in pruned)
    assert sum(row["trial_state"] == "pruned" for row in rows) == sum(len(trial.repetitions) for trial in pruned)
    # The pruner is asked again about nothing: all that it said is on record.
    before = len(calls(tmp_path))
    assert _run(tmp_path, *options)[0] == 0
    assert len(calls(tmp_path)) == before
    for study in _studies(tmp_path, *options):
        assert study.best is not None
        assert study.best.state == "complete"


def test_several_objectives_have_a_front_of_which_each_is_measured_again(tmp_path: Path) -> None:
    options = (
        "search.tuning.objective={metric: [loss, size], better: [lower, lower], over: {seed: [0, 1]}}",
        "search.tuning.sampler={name: NSGAIISampler, population_size: 4}",
        "search.tuning.trials=10",
    )
    code, _ = _run(tmp_path, *options)
    assert code == 0
    rows = _rows(tmp_path)
    for study in _studies(tmp_path, *options):
        front = {trial.number for trial in study.front}
        assert study.best is None
        assert front
        assert {row["trial"] for row in rows if row["study"] == study.name and row["seed"] >= 10} == front


def test_the_best_trial_keeps_to_the_constraints(tmp_path: Path) -> None:
    options = ("search.tuning.constraints={size: {at_most: 10}}", "search.tuning.trials=10")
    assert _run(tmp_path, *options)[0] == 0
    for study in _studies(tmp_path, *options):
        assert study.best is not None
        assert study.best.values["net"] == "narrow"
        assert any(trial.values["net"] == "wide" and not trial.feasible for trial in study.trials)


def test_a_study_without_anything_to_search_for_has_one_trial(tmp_path: Path) -> None:
    text = SWEEP.replace("lr: {float: [1.0e-4, 1.0], log: true}", "lr: 0.1")
    text = text.replace("      net: {choice: {narrow: [8], wide: [16, 16]}, default: narrow}\n", "")
    text = text.replace("start: [{lr: 0.01, net: narrow}]", "start: []")
    text = text.replace("[$tuning, {seed: $seed}]", "[$tuning, {net: [8], seed: $seed}]")
    assert _run(tmp_path, text=text)[0] == 0
    assert [len(study.trials) for study in _studies(tmp_path, text=text)] == [1, 6]


def test_a_limit_ends_the_run_and_the_same_command_goes_on(tmp_path: Path) -> None:
    code, _ = _run(tmp_path, "limits.failures=1", "search.tuning.start=[]")
    assert code == 0
    whole = len(_records(tmp_path))
    (tmp_path / "part").mkdir()
    code, _ = _run(tmp_path / "part", "limits.wall=0.0001", "search.tuning.start=[]")
    assert code == 1
    assert len(_records(tmp_path / "part")) < whole
    assert _run(tmp_path / "part", "search.tuning.start=[]")[0] == 0
    assert _records(tmp_path / "part") == _records(tmp_path)


def test_only_some_studies_or_trials_are_run_where_only_these_are_chosen(tmp_path: Path) -> None:
    def run(*only: str) -> int:
        return drive(open_session(write_bowls(tmp_path), only=list(only), outputs=str(tmp_path / "out")), inline=True)

    assert run("arm=a", "trial=0,1") == 0
    assert sorted({(row["study"], row["trial"]) for row in _rows(tmp_path)}) == [("tuning/a", 0), ("tuning/a", 1)]
    assert run("arm=b") == 0
    assert Counter(row["study"] for row in _rows(tmp_path)) == {"tuning/a": 6, "tuning/b": 20}
    assert _run(tmp_path)[0] == 0
    assert Counter(row["study"] for row in _rows(tmp_path)) == {"tuning/a": 20, "tuning/b": 20}


def test_choices_of_several_types_are_a_column_of_texts(tmp_path: Path) -> None:
    text = SWEEP.replace("net: {choice: {narrow: [8], wide: [16, 16]}, default: narrow}", "odd: {choice: [auto, 3]}")
    text = text.replace("start: [{lr: 0.01, net: narrow}]", "start: [{odd: auto}, {odd: 3}]")
    text = text.replace("[$tuning, {seed: $seed}]", "[$tuning, {net: [8], seed: $seed}]")
    assert _run(tmp_path, text=text)[0] == 0
    assert {row["odd"] for row in _rows(tmp_path)} == {"auto", "3"}
    assert {trial.values["odd"] for study in _studies(tmp_path, text=text) for trial in study.trials} == {"auto", 3}


def test_values_that_make_no_valid_config_together_are_a_failed_trial_of_which_nothing_is_run(tmp_path: Path) -> None:
    # Both ends are valid, so that this is not known when the sweep is opened.
    text = SWEEP.replace("net: {choice: {narrow: [8], wide: [16, 16]}, default: narrow}", "step: {int: [1, 3]}")
    text = text.replace("start: [{lr: 0.01, net: narrow}]", "start: [{step: 2}, {step: 3}]")
    text = text.replace("[$tuning, {seed: $seed}]", "[$tuning, {net: [8], seed: $seed}]")
    for _ in range(2):
        assert _run(tmp_path, text=text)[0] == 0
        for study in _studies(tmp_path, text=text):
            assert study.finished
            for trial in study.trials:
                assert trial.state == ("failed" if trial.values["step"] == 2 else "complete")
            assert "step" in study.trials[0].why
    told = [each for record in _records(tmp_path).values() for each in record["told"] if each["number"] == 0]
    assert [each["state"] for each in told] == ["failed", "failed"]
    assert not any(row["trial"] == 0 for row in _rows(tmp_path))

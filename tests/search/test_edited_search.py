"""A search that was edited after trials were made is another study, and people are told before anything runs."""

# ruff: noqa: E501 (one edit per line reads best)
from __future__ import annotations

from pathlib import Path

import pytest
from command_server import sweep
from search_runs import edited, opened, run
from toy_sweep import SEARCH, write_sweep

from orchestrator.search.record_files import descriptions, read_history


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ("[0, 10]", "[0, 20]", "space.add.float: [0.0, 10.0] -> [0.0, 20.0]"),
        ("RandomSampler", "TPESampler", "sampler.name: RandomSampler -> TPESampler"),
        ("better: higher", "better: higher, reduce: median", "objective.reduce: mean -> median"),
        ("trials: 3", "trials: 3\n    seed: 5", "seed: 0 -> 5"),
        ("trials: 3", "trials: 3\n    constraints: {total: {at_most: 9}}", "constraints.total is new"),
        ("large: 100}", "large: 100, huge: 200}", "space.value.choice.huge is new"),
        ("config: {add: $kind}", "config: {add: $kind, marker: b}", "a stage, its config, data or code"),
    ],
)  # fmt: skip
def test_an_edit_is_named_with_what_is_kept_what_is_new_and_how_to_go_on(
    searched: Path, before: str, after: str, change: str
) -> None:
    text = edited(SEARCH, (before, after))
    note = opened(searched, text).search_notes()[-1]
    assert note.startswith(
        f"search tuning was edited after trials were made ({change}), so 2 of its studies begin anew at trial 0. The 6 trials of before are kept in "
    )
    assert "what they computed is used where values coincide. To go on with them, undo " in note


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("trials: 3", "trials: 4"),
        ("concurrency: 1", "concurrency: 2"),
        ("    fresh: {seed: [7]}\n", ""),
        ("fresh: {seed: [7]}", "fresh: {seed: [8, 9]}"),
        ("trials: 3", "trials: 3\n    start: [defaults, {add: 3}]"),
        ("trials: 3", "trials: 3\n    storage: sqlite:///mine.db"),
        ("trials: 3", "trials: 3\n    importance: {name: FanovaImportanceEvaluator}"),
        (", default: small", ", default: large"),
    ],
)  # fmt: skip
def test_what_does_not_change_the_question_is_no_edit(searched: Path, before: str, after: str) -> None:
    first = opened(searched, SEARCH)
    second = opened(searched, edited(SEARCH, (before, after), ("[0, 10]}", "[0, 10], default: 1}")))
    assert [study.id for study in second.studies.all] == [study.id for study in first.studies.all]
    assert second.search_notes() == []


def test_more_trials_go_on_with_the_same_study(searched: Path) -> None:
    before = [dict(study.history.suggestions) for study in opened(searched, SEARCH).studies.all]
    session = run(searched, edited(SEARCH, ("trials: 3", "trials: 5")))
    after = [read_history(session.store, study.id).suggestions for study in session.studies.all]
    assert [len(each) for each in after] == [5, 5]
    assert [{number: each[number] for number in range(3)} for each in after] == before


def test_undoing_the_edit_goes_on_with_the_old_study_and_says_nothing(searched: Path) -> None:
    run(searched, edited(SEARCH, ("[0, 10]", "[0, 20]")))
    assert opened(searched, SEARCH).search_notes() == []
    assert len(descriptions(opened(searched, SEARCH).store)) == 4


def test_the_new_study_can_be_told_what_the_old_one_found(searched: Path) -> None:
    text = edited(SEARCH, ("[0, 10]", "[0, 20]"), ("    trials: 3", "    start: [{from: before.yaml}]\n    trials: 3"))
    write_sweep(searched, edited(SEARCH, ("name: tune", "name: before")), "before.yaml")
    assert sweep(searched, "results", "before.yaml", "--outputs", "out").returncode == 0
    session = run(searched, text)
    assert [len(read_history(session.store, study.id).earlier or ()) for study in session.studies.all] == [3, 3]
    note = opened(searched, edited(text, ("[0, 20]", "[0, 30]"))).search_notes()[-1]
    assert "from: THAT_FILE" not in note


def test_a_damaged_study_of_before_stops_nobody(searched: Path) -> None:
    store = searched / "out" / "store" / "studies"
    for study in store.iterdir():
        (study / "1.json").write_text("{")
    assert opened(searched, edited(SEARCH, ("[0, 10]", "[0, 20]"))).search_notes() == []
    for study in store.iterdir():
        (study / "study.json").write_text("[]")
    assert opened(searched, edited(SEARCH, ("[0, 10]", "[0, 20]"))).search_notes() == []


def test_a_study_of_another_sweep_is_no_edit(searched: Path) -> None:
    assert opened(searched, edited(SEARCH, ("name: tune", "name: other"), ("[0, 10]", "[0, 20]"))).search_notes() == []


def test_sweep_run_tells_it_before_anything_runs(searched: Path) -> None:
    write_sweep(searched, edited(SEARCH, ("[0, 10]", "[0, 20]")), "tune.yaml")
    done = sweep(searched, "run", "tune.yaml", "--outputs", "out", "--inline")
    assert done.returncode == 0
    text = " ".join((done.stdout + done.stderr).split())
    assert text.index("search tuning was edited after trials were made") < text.index("steps done")

"""Results of an earlier sweep are told to a study before its first trial, and recorded once."""

# ruff: noqa: E501 (one sweep per line reads best)
from __future__ import annotations

import math
from pathlib import Path

import pytest
from search_runs import edited, mistakes, opened, run
from toy_sweep import GRID, SEARCH, write_sweep

from orchestrator.search.record_files import read_history
from orchestrator.search.records import Earlier
from orchestrator.session import Session, open_session

FROM = edited(SEARCH, ("    trials: 3", "    start: [{from: grid.yaml}]\n    trials: 3"))


def told(session: Session) -> list[tuple[Earlier, ...] | None]:
    return [read_history(session.store, study.id).earlier for study in session.studies.all]


def test_each_study_is_told_what_was_measured_at_its_coordinates(measured: Path) -> None:
    session = run(measured, FROM)
    one, two = told(session)
    assert one is not None
    assert [dict(each.values) for each in one] == [
        {"add": 1.0, "value": "small"}, {"add": 2.0, "value": "small"}, {"add": 1.0, "value": "large"}, {"add": 2.0, "value": "large"},
    ]  # fmt: skip
    assert [each.objectives for each in one] == [(7.5,), (8.5,), (7.5,), (8.5,)]
    assert two == ()


def test_what_is_left_out_is_counted(measured: Path) -> None:
    notes = opened(measured, FROM).search_notes()
    assert (
        "start: of the 18 results of grid.yaml some are left out: 6 lie outside the space (add), 4 lie outside the space (value)"
        in notes
    )
    assert "start: grid.yaml has no results for tuning/kind=2" in notes


def test_rows_are_reduced_like_the_objective_and_its_constraints(measured: Path) -> None:
    text = edited(
        FROM,
        ("better: higher", "better: lower, reduce: worst"),
        ("    trials: 3", "    constraints: {total: {at_most: 8}}\n    trials: 3"),
    )
    found = opened(measured, text).opening.earlier
    ((first, second, *_),) = found.values()
    assert (first.objectives, first.excesses) == ((8.0,), (0.0,))
    assert (second.objectives, second.excesses) == ((9.0,), (1.0,))


def test_it_is_read_once_in_the_life_of_a_study(measured: Path) -> None:
    before = told(run(measured, FROM))
    (measured / "grid.yaml").unlink()
    session = open_session(
        write_sweep(measured, edited(FROM, ("trials: 3", "trials: 4")), "tune.yaml"), outputs=str(measured / "out")
    )
    assert told(session) == before
    assert told(run(measured, edited(FROM, ("trials: 3", "trials: 4")))) == before


def test_a_study_that_has_begun_is_told_nothing_more_and_that_is_said(measured: Path) -> None:
    run(measured, SEARCH)
    _, note = opened(measured, FROM).search_notes()
    assert (
        note
        == "start: {from: …} is told before the first trial, and tuning/kind=1, tuning/kind=2 began without it; what it says now is not told any more"
    )


def test_trials_of_another_search_are_told_with_the_fields_that_both_have(measured: Path) -> None:
    other = edited(SEARCH, ("name: tune", "name: other"), ("[0, 10]", "[0, 8]"), ("RandomSampler", "TPESampler"))
    first = run(measured, other, "other.yaml")
    session = run(measured, edited(FROM, ("grid.yaml", "other.yaml")))
    for before, after in zip(first.study_views(), told(session), strict=True):
        assert after is not None
        assert [dict(each.values) for each in after] == [dict(trial.values) for trial in before.trials]


def test_cells_that_failed_and_undefined_metrics_are_not_told(tmp_path: Path) -> None:
    kinds = "kind: [1], behaviour: [work, raise, undefined]"
    run(
        tmp_path,
        edited(
            GRID,
            ("kind: [1]", kinds),
            ("marker: $value", "marker: $value, behaviour: $behaviour"),
            ("[small, large, huge]", "[small]"),
            ("[1, 2, 20]", "[1]"),
        ),
        "grid.yaml",
        code=1,
    )
    session = opened(tmp_path, FROM)
    ((result,),) = session.opening.earlier.values()
    assert result == Earlier({"add": 1.0, "value": "small"}, (7.5,))
    assert any("2 did not succeed, 2 have an undefined total" in note for note in session.search_notes())


def test_an_undefined_metric_is_the_worst_where_the_objective_says_so(tmp_path: Path) -> None:
    run(
        tmp_path,
        edited(
            GRID,
            ("marker: $value", "marker: $value, behaviour: undefined"),
            ("[small, large, huge]", "[small]"),
            ("[1, 2, 20]", "[1]"),
        ),
        "grid.yaml",
    )
    (message,) = mistakes(tmp_path, FROM)
    assert message.endswith("grid.yaml: none of its 2 results can be used: 2 have an undefined total")
    session = run(tmp_path, edited(FROM, ("better: higher", "better: higher, null: worst")))
    assert told(session) == [(Earlier({"add": 1.0, "value": "small"}, (-math.inf,)),), ()]


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([("grid.yaml", "gird.yaml")], "gird.yaml: no such file; did you mean 'grid.yaml'?"),
        ([("grid.yaml", "new.yaml")], "new.yaml: out/sweeps/new/results.parquet does not exist; `sweep run` or `sweep results` writes it"),
        ([("grid.yaml", "list.yaml")], "list.yaml:1: a sweep is a mapping (name:, axes:, stages:), found list"),
        ([("grid.yaml", "odd.yaml")], "odd.yaml:1: name: should be text; found [1]"),
        ([("      add:", "      plus:"), ("$tuning.add", "$tuning.plus")], "grid.yaml: none of its 18 results can be used: 18 have no plus"),
        ([("[0, 10]", "[100, 200]")], "grid.yaml: none of its 18 results can be used: 18 lie outside the space (add)"),
    ],
)  # fmt: skip
def test_results_that_cannot_be_used_are_a_mistake_before_anything_runs(
    measured: Path, edits: list[tuple[str, str]], message: str
) -> None:
    write_sweep(measured, "name: new\n", "new.yaml")
    write_sweep(measured, "[1]\n", "list.yaml")
    write_sweep(measured, "name: [1]\n", "odd.yaml")
    (found,) = mistakes(measured, edited(FROM, *edits))
    assert found == f"tune.yaml:12: search.tuning.start[0].from: {message}"


def test_a_table_without_the_metric_is_a_mistake(measured: Path) -> None:
    other = edited(
        FROM,
        ("metric: total", "metric: value"),
        ("results: [total]", "results: [source]"),
        ("value: {choice", "base: {choice"),
        ("$tuning.value", "$tuning.base"),
    )
    (message,) = mistakes(measured, other)
    assert message.endswith("start[0].from: grid.yaml: its table has no metric 'value'")

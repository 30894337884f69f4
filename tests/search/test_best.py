"""The best trials of studies: their rows, what a run ends with, and what may be compared of a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from search_toy import SWEEP, open_bowls

from orchestrator.analysis.comparisons import compare
from orchestrator.analysis.effect import Sample
from orchestrator.analysis.summary import format_summary, left_out, spread_of, summarise
from orchestrator.drive import drive
from orchestrator.events import Event, Finished, LoopStarted, Started, StudyEnded
from orchestrator.explain.preview import preview
from orchestrator.explain.status import best_of, status
from orchestrator.notebook import Sweep
from orchestrator.plan.select import find_cell
from orchestrator.results.best import Found, best_notes, best_rows, best_table
from orchestrator.results.choose import choose_studies
from orchestrator.results.comparable import comparable_rows, refuse_trials
from orchestrator.results.heartbeat import read_heartbeat
from orchestrator.search.trial import Study, Trial
from orchestrator.session import Session
from orchestrator.sweep.problems import SweepError
from orchestrator.sweep.search import Search

SMALL = SWEEP.replace("trials: 6", "trials: 3").replace("seed: [0, 1, 2]}, reduce", "seed: [0, 1]}, reduce")
FRONT = SMALL.replace("metric: loss, better: lower", "metric: [loss, size], better: [lower, lower]")


def run(folder: Path, *overrides: str, text: str = SMALL) -> tuple[int, Session, list[Event]]:
    events: list[Event] = []
    session = open_bowls(folder, *overrides, text=text)
    return drive(session, inline=True, on_event=events.append), session, events


def study(objectives: list[float | None], fresh: bool = True, budget: int = 3, **search: Any) -> Study:
    asked: dict[str, Any] = {
        "space": {"lr": {"float": [0, 1]}, "net": {"choice": ["a", "b"]}, "trial": {"int": [0, 9]}},
        "objective": {"metric": "loss", "better": "lower", "over": {"seed": [0, 1]}, "reduce": {"quantile": 0.9}},
        "trials": 3,
        **({"fresh": {"seed": [7]}} if fresh else {}),
        **search,
    }
    trials = tuple(
        Trial(number, {"lr": number / 10, "net": "a"}, "complete" if value is not None else "failed",
              None if value is None else (value,), repetitions=((1.0,), (2.0,)))
        for number, value in enumerate(objectives)
    )  # fmt: skip
    return Study("tuning", "id", Search.model_validate(asked), {}, trials, budget=budget)


def test_a_row_has_the_best_trial_its_metric_at_fresh_values_its_states_and_cost() -> None:
    (row,) = best_rows(Found(study([0.3, None, 0.1]), 4.5, 0.25, {2: [(0.2,)]}))
    assert (row["study"], row["finished"], row["budget"], row["trial"]) == ("tuning", True, 3, 2)
    assert row["values"] == {"lr": 0.2, "net": "a"}
    assert (row["metrics"], row["repetitions"], row["reduce"]) == ({"loss": 0.1}, 2, "0.9 quantile")
    assert (row["fresh"], row["fresh_repetitions"]) == ({"loss": 0.2}, 1)
    assert row["trials"] == {"complete": 2, "pruned": 0, "failed": 1, "running": 0}
    assert (row["seconds"], row["gpu_hours"]) == (4.5, 0.25)


def test_what_is_not_measured_at_fresh_values_is_no_number() -> None:
    (waits,), (unasked,) = (best_rows(Found(study([0.3], fresh))) for fresh in (True, False))
    assert (waits["fresh"], waits["fresh_repetitions"], waits["finished"]) == (None, "not measured yet", False)
    assert (unasked["fresh"], unasked["fresh_repetitions"]) == (None, "not asked for")


def test_a_study_without_a_best_trial_has_a_row_without_one() -> None:
    for objectives in ([], [None, None, None]):
        found = [Found(study(objectives))]
        (row,) = best_rows(found[0])
        assert row["trial"] is row["values"] is row["metrics"] is None
        assert best_table(found)["lr"].to_pylist() == [None]
    assert best_notes(found) == ["no trial is complete in tuning"]


def test_without_fresh_values_it_is_said_that_the_best_is_flattered_and_what_to_write() -> None:
    (note,) = best_notes([Found(study([0.3, 0.2, 0.1], fresh=False))])
    assert note == (
        "the best of 3 trials is flattered by the choice; `fresh: {seed: […]}` measures it again at other values"
    )
    assert best_notes([Found(study([0.3, 0.2, 0.1]))]) == []


def test_the_table_has_typed_columns_for_fields_and_metrics_and_says_what_it_is() -> None:
    found = best_table([Found(study([0.3, 0.1], budget=60), 4.5)])
    assert found["state"].to_pylist() == ["2 of 60 trials"]
    assert found.schema.field("lr").type == pa.float64()
    # A field may have the name of a column of ours.
    assert found["value of trial"].to_pylist() == [None]
    assert found["repetitions"].to_pylist() == ["0.9 quantile of 2"]
    assert spread_of(found) == "the best trial of each study, by loss"
    assert "failed" not in format_summary(found).column_names
    assert format_summary(found)["trial"].to_pylist() == [1]


def test_a_run_of_a_search_ends_with_its_best_trials_and_says_when_a_study_ends(tmp_path: Path) -> None:
    code, session, events = run(tmp_path)
    (started,) = (each for each in events if isinstance(each, Started))
    assert (started.cells, started.studies, started.may_come) == (0, 2, 2 * (3 * 2 + 2))
    assert [each.study.name for each in events if isinstance(each, StudyEnded)] == ["tuning/a", "tuning/b"]
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (code, [each.finished for each in finished.studies]) == (0, [True, True])
    assert finished.summary is not None
    assert finished.summary["study"].to_pylist() == ["tuning/a", "tuning/b"]
    assert None not in finished.summary["loss fresh"].to_pylist()
    best = best_of(session)
    assert [row["trial"] for each in best for row in best_rows(each)] == finished.summary["trial"].to_pylist()
    # The stages of trials took this; what they share with each other is counted once.
    took = {row["key"]: row["seconds"] for row in session.table().to_pylist()}
    assert sum(each.seconds for each in best) == pytest.approx(sum(took.values()))


def test_only_the_best_trials_at_their_fresh_values_are_compared(tmp_path: Path) -> None:
    _, session, _ = run(tmp_path)
    results = session.results()
    table = results.table()
    rows, notes = results.comparable(table)
    best = {each.name: each.best.number for each in session.study_views() if each.best}
    assert dict(zip(rows["study"].to_pylist(), rows["best_trial"].to_pylist(), strict=True)) == best
    assert sorted(rows["seed"].to_pylist()) == [10, 10, 11, 11]
    assert json.loads(rows.schema.metadata[b"axes"]).keys() == {"arm", "seed"}
    assert notes == ["of each study only the best trial counts, at its fresh values"]
    (found,) = compare(Sample(rows, metrics=["loss"]), "arm")
    assert (found.effect.seeds, found.effect.combinations, found.effect.cells) == (2, 1, 4)
    means = summarise(rows, session.spec, ("arm",), ("loss",))
    assert (means["seeds"].to_pylist(), left_out(means)) == ([2, 2], [])
    with pytest.raises(SweepError, match="no axis 'trial'"):
        summarise(rows, session.spec, ("trial",), ("loss",))


def test_without_fresh_values_the_comparison_warns_of_the_choice(tmp_path: Path) -> None:
    _, session, _ = run(tmp_path, text=SMALL.replace("    fresh: {seed: [10, 11]}\n", ""))
    results = session.results()
    rows, (note,) = results.comparable(results.table())
    assert sorted(rows["seed"].to_pylist()) == [0, 0, 1, 1]
    assert "the best of 3 is flattered by the choice" in note


def test_unfinished_studies_and_several_objectives_cannot_be_compared(tmp_path: Path) -> None:
    _, session, _ = run(tmp_path)
    table, views = session.results().table(), session.study_views()
    unfinished = [Study(each.name, each.id, each.search, each.coords, each.trials[:1], budget=3) for each in views]
    _, notes = comparable_rows(table, [views[0], unfinished[1]])
    assert notes[1] == "1 of 2 studies have no best trial yet: tuning/b"
    with pytest.raises(SweepError, match="no study is finished"):
        comparable_rows(table, unfinished)
    front = open_bowls(tmp_path, text=FRONT)
    with pytest.raises(SweepError, match="several objectives"):
        comparable_rows(table, front.study_views())


@pytest.mark.parametrize("axis", ["trial", "lr", "momentum"])
def test_nothing_is_compared_along_trials_or_fields(tmp_path: Path, axis: str) -> None:
    with pytest.raises(SweepError, match="sweep best"):
        refuse_trials(open_bowls(tmp_path, text=SMALL).spec, [axis])


def test_several_objectives_have_a_row_for_each_best_compromise(tmp_path: Path) -> None:
    _, session, events = run(tmp_path, text=FRONT)
    for each in best_of(session):
        rows = best_rows(each)
        assert [row["trial"] for row in rows] == [trial.number for trial in each.study.front]
        assert all(row["fresh"].keys() == {"loss", "size"} for row in rows)
    (ended, _) = (each for each in events if isinstance(each, StudyEnded))
    assert ended.study.best is None


def test_studies_are_found_by_name_label_and_coordinates(tmp_path: Path) -> None:
    studies = open_bowls(tmp_path, text=SMALL).study_views()
    for text, names in (("tuning/a", ["tuning/a"]), ("b", ["tuning/b"]), ("arm=b", ["tuning/b"])):
        assert [each.name for each in choose_studies(studies, text)] == names
    assert len(choose_studies(studies, "tuning")) == 2
    for text, hint in (("tuning/aa", "tuning/a"), ("arm=c", "choose from a, b"), ("arms=a", "did you mean 'arm'")):
        with pytest.raises(SweepError, match=hint):
            choose_studies(studies, text)


def test_a_notebook_gets_an_ordinary_study_of_optuna(tmp_path: Path) -> None:
    _, session, _ = run(tmp_path)
    sweep = Sweep(session)
    found = sweep.study("tuning", arm="a")
    view = session.study_views()[0]
    assert view.best is not None
    assert (found.best_trial.number, found.best_value) == (view.best.number, (view.best.objectives or ())[0])
    assert len(found.trials) == 3
    for arguments, coords, hint in ((("tuning",), {}, "say which arm"), (("tunin",), {}, "did you mean 'tuning"),
                                    ((), {"arm": "z"}, "choose from a, b")):  # fmt: skip
        with pytest.raises(SweepError, match=hint):
            sweep.study(*arguments, **coords)


def test_cells_that_are_not_decided_are_not_found_and_it_is_said_why(tmp_path: Path) -> None:
    session = open_bowls(tmp_path, text=SMALL)
    assert session.schedule.done
    undecided = session.plan.cell(0).id
    with pytest.raises(SweepError, match="names no cell"):
        find_cell(session.plan, undecided)
    with pytest.raises(SweepError, match="trial 2 is not suggested yet"):
        find_cell(session.plan, "trial=2,seed=0,arm=a")
    with pytest.raises(SweepError, match="trials 0 to 2"):
        find_cell(session.plan, "trial=99")
    _, session, _ = run(tmp_path)
    assert session.plan.cell(find_cell(session.plan, "trial=2,seed=0,arm=a")).coords["trial"] == 2
    best = session.study_views()[0].best
    assert best is not None
    with pytest.raises(SweepError, match="only the best trial of a finished study is"):
        find_cell(session.plan, f"trial={(best.number + 1) % 3},seed=10,arm=a")


def test_a_plan_says_what_is_certain_and_what_may_come_and_what_both_cost(tmp_path: Path) -> None:
    before = preview(open_bowls(tmp_path, text=SMALL))
    assert (before["cells"], before["search"]["may_come"]) == (0, 16)
    # Bases are shared by all trials of a seed, in both studies: seeds 0, 1, 10 and 11.
    assert {name: each["may_come"] for name, each in before["steps"].items()} == {"base": 4, "fit": 16}
    assert "expected_to_come" not in before["steps"]["fit"]
    run(tmp_path)
    after = preview(open_bowls(tmp_path, text=SMALL))
    assert (after["cells"], after["search"]["may_come"]) == (16, 0)
    more = preview(open_bowls(tmp_path, text=SMALL.replace("trials: 3", "trials: 5")))
    assert (more["cells"], more["search"]["may_come"]) == (12, 2 * (2 * 2 + 2))
    assert (more["steps"]["fit"]["may_come"], more["steps"]["base"]["may_come"]) == (12, 0)
    cost = more["steps"]["fit"]["expected_to_come"]
    assert (cost["unknown"], more["expected_to_come"]["unknown_steps"]) == (0, 0)
    assert cost["seconds"] > 0


def test_a_selection_that_holds_no_whole_trial_lets_none_come(tmp_path: Path) -> None:
    session = open_bowls(tmp_path, text=SMALL)
    for only, cells in (("seed=0", 0), ("trial=0,1", 8), ("arm=a", 8)):
        from orchestrator.session import open_session

        narrowed = open_session(session.file, only=[only], outputs=str(tmp_path / "out"))
        assert preview(narrowed)["search"]["may_come"] == cells


def test_status_counts_trials_by_state_and_what_may_come_while_a_driver_of_the_same_plan_runs(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    session = open_bowls(tmp_path, text=SMALL)

    def listen(event: Event) -> None:
        if isinstance(event, (LoopStarted, StudyEnded)):
            other = open_bowls(tmp_path, text=SMALL)
            seen.append(status(other))
            heartbeat = read_heartbeat(other.outputs.folder, other.plan.entries)
            assert heartbeat is None or heartbeat["plan"] == other.plan.digest == session.plan.digest

    drive(session, inline=True, on_event=listen)
    seen.append(status(open_bowls(tmp_path, text=SMALL)))
    assert [each["may_come"] for each in seen] == sorted((each["may_come"] for each in seen), reverse=True)
    assert (seen[0]["may_come"], seen[-1]["may_come"], seen[-1]["cells"]) == (16, 0, 16)
    assert seen[0]["studies"][0] == {
        "study": "tuning/a", "budget": 3, "may_come": 8,
        "trials": {"complete": 0, "pruned": 0, "failed": 0, "running": 0},
    }  # fmt: skip
    assert [each["trials"]["complete"] for each in seen[-1]["studies"]] == [3, 3]


def test_a_failed_trial_is_a_failure_of_the_run_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOWL_RAISES", "0")
    code, session, events = run(tmp_path)
    assert code == 1
    assert [row["trials"]["failed"] for each in best_of(session) for row in best_rows(each)] == [3, 3]
    assert len([each for each in events if isinstance(each, StudyEnded)]) == 2
    monkeypatch.setenv("BOWL_RAISES", "inf")
    code, session, events = run(tmp_path)
    assert code == 0
    (started,) = (each for each in events if isinstance(each, Started))
    # Their other repetitions were decided; what may come are the measurements of the best.
    assert (started.cells, started.studies, started.may_come) == (12, 2, 4)
    assert len([each for each in events if isinstance(each, StudyEnded)]) == 2
    code, _, events = run(tmp_path)
    assert (code, [each for each in events if isinstance(each, StudyEnded)]) == (0, [])

"""What MLflow shows of a search: its studies, their trials, and the cells of these."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import toy_sweep
from servers import put_mlflow_database
from tracked_sweep import all_runs

from orchestrator.cli.show_run import run_and_show
from orchestrator.cli.sync import synchronise
from orchestrator.session import Session, open_session
from orchestrator.tracking import runs as projection
from orchestrator.tracking.runs import Projection
from orchestrator.tracking.studies import draw

TEXT = toy_sweep.ODD_SEARCH.replace("tracking: false\n", "")


def opened(folder: Path, text: str = TEXT) -> Session:
    return open_session(toy_sweep.write_sweep(folder, text), outputs=str(folder / "out"))


def by_group(session: Session) -> dict[str, Any]:
    """The runs of groups by their path."""
    return {each.data.tags["sweep.group"]: each for each in all_runs(session.outputs.tracking_uri)
            if each.data.tags["sweep.kind"] == "group"}  # fmt: skip


@pytest.mark.mlflow
def test_studies_have_their_best_trial_and_figures_and_trials_the_means_of_their_repetitions(tmp_path: Path) -> None:
    import mlflow

    session = opened(tmp_path)
    put_mlflow_database(tmp_path / "out" / "mlflow.db")
    assert run_and_show(session, None, True, None) == 1
    client = mlflow.MlflowClient(session.outputs.tracking_uri)
    found = all_runs(session.outputs.tracking_uri)
    groups = by_group(session)
    assert groups.keys() == {f"tune/x={x}{part}" for x in (1, 2) for part in ("", *(f"/trial {n}" for n in range(4)))}
    names = {each.info.run_id: each.data.tags.get("sweep.group", "") for each in found}
    study = groups["tune/x=2"]
    # total = 2 · x + y + add.
    counts = {"trials": 4, "trials_planned": 4, "trials_complete": 3, "trials_failed": 1, "trials_pruned": 0}
    counts |= {"trials_running": 0, "cells": 9, "cells_succeeded": 7, "cells_failed": 2}
    best = {"best_trial": 2, "best_total": 15.5, "fresh_trial": 2, "fresh_total": 30.5}
    assert study.data.metrics == {**counts, **best}
    assert (study.data.tags["sweep.best.add"], study.data.tags["sweep.best.kind"]) == ("6.5", "good")
    assert {each.path for each in client.list_artifacts(study.info.run_id)} == {"history.png", "importance.png"}
    trial = groups["tune/x=2/trial 2"]
    assert (trial.data.metrics["cells"], trial.data.metrics["total_cells"]) == (3, 2)
    # The fresh cell, 30.5, is not in it.
    assert (trial.data.metrics["total_mean"], round(trial.data.metrics["total_sd"], 4)) == (15.5, 7.0711)
    cells = [each for each in found if each.data.tags["sweep.kind"] == "cell"]
    assert Counter(each.data.tags["sweep.trial_state"] for each in cells) == {"complete": 14, "failed": 4}
    assert sorted(each.data.params["y"] for each in cells if "sweep.fresh" in each.data.tags) == ["20", "20"]
    for each in cells:
        params = each.data.params
        assert params.keys() == {"x", "trial", "y", "add", "kind"}
        assert names[each.data.tags["mlflow.parentRunId"]] == f"tune/x={params['x']}/trial {params['trial']}"
        assert each.info.run_name == f"x={params['x']},trial={params['trial']},y={params['y']}"
    assert trial.info.run_name == "tune/x=2, trial 2"
    # No mean over trials: neither of a study nor of the sweep.
    (whole,) = (each for each in found if each.data.tags["sweep.kind"] == "sweep")
    assert not any("_mean" in name for each in (study, whole) for name in each.data.metrics)
    # Nothing is drawn twice, and nothing is written twice.
    drawn = {path: path.stat().st_mtime_ns for path in session.outputs.figures.rglob("*.png")}
    assert len(drawn) == 4
    again = opened(tmp_path)
    assert synchronise(again, again.table(), None)
    assert {path: path.stat().st_mtime_ns for path in session.outputs.figures.rglob("*.png")} == drawn
    assert len(all_runs(session.outputs.tracking_uri)) == len(found)
    # What was drawn of other trials goes, and what was begun is not taken for whole.
    study = again.studies.views(again.results())[0]
    (old,) = session.outputs.figures.glob(f"{study.id}-*")
    old.rename(old.with_name(f"{study.id}-0"))
    (old.parent / f"begun-{old.name}").mkdir()
    draw(study, session.outputs.figures)
    assert all(path.exists() for path in drawn)
    assert len(list(session.outputs.figures.iterdir())) == 2


def test_what_ends_a_trial_concerns_the_runs_of_all_its_cells(tmp_path: Path) -> None:
    assert run_and_show(opened(tmp_path, toy_sweep.ODD_SEARCH), None, True, None) == 1
    session = opened(tmp_path, toy_sweep.ODD_SEARCH)
    shown, plan = Projection(session.studies.plan, session.studies), session.schedule.plan
    for number in plan.known:
        coords = plan.coords(number)
        trials = {(plan.cell_coords(cell)["x"], plan.cell_coords(cell)["trial"]) for cell in shown.cells_of(number)}
        # The other entries belong to no trial.
        assert trials == ({(coords["x"], coords["trial"])} if plan.entry_of(number) == "total" else set())
        assert len(shown.cells_of(number)) == (0 if not trials else 3 if coords["trial"] == 2 else 2)


def test_no_parent_of_a_search_has_more_children_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_and_show(opened(tmp_path, toy_sweep.ODD_SEARCH), None, True, None) == 1
    session = opened(tmp_path, toy_sweep.ODD_SEARCH)
    monkeypatch.setattr(projection, "CHILDREN_PER_PARENT", 2)
    table = session.results().table()
    cells = [index for index in range(len(session.plan.points)) if session.plan.decided[index]]
    found = {run.group for run in Projection(session.plan, session.studies).runs(table, cells)}
    # Three cells may come of each trial: two of them are its repetitions.
    assert {group for group in found if group[0] == "tune/x=1"} == {
        ("tune/x=1", levels, f"trial {trial}", f"cells {first}")
        for levels, trials in (("trials 0–1", (0, 1)), ("trials 2–3", (2, 3)))
        for trial in trials
        for first in (("1–2", "3–3") if trial == 2 else ("1–2",))
    }

"""The live page of a search: the cells that there are so far, its studies, and Optuna's figures of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import toy
import toy_sweep
from servers import free_port, wait_until_it_answers
from streamlit.testing.v1 import AppTest
from subjects import opened, planned

import dashboards
from dashboards.live.cell_data import explain
from dashboards.live.studies import studies_shown
from dashboards.live.text import plain
from dashboards.live.watch import Watch
from orchestrator.drive import drive
from orchestrator.results.heartbeat import pack_codes, write_heartbeat
from orchestrator.results.parquet import read_results, write_results
from orchestrator.results.status import STATUSES
from orchestrator.search.growth import Growth
from orchestrator.session import Session

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PAGE = Path(dashboards.__file__).with_name("live") / "page.py"
HTML = "<img src=x onerror=window.pwned=1>"
TEXT = toy_sweep.ODD_SEARCH.replace("good: work", f"'{HTML}': work").replace("kind: good", f"kind: '{HTML}'")


def beat(session: Session) -> None:
    """What a living driver tells of the cells that it has decided."""
    left = {"low": 0.0, "high": 1.0, "unknown": 0, "steps": 1}
    codes = np.where(session.plan.decided, STATUSES.index("running"), STATUSES.index("undecided")).astype(np.uint8)
    pace = {name: {"per_minute": 1.0, "seconds": 1.0, "left": left} for name in session.plan.entries}
    facts = {
        "steps": {name: {} for name in session.plan.entries},
        "errors": [],
        "usage": {},
        "pace": pace,
        "left": left,
    }
    write_heartbeat(session.outputs.folder, {"plan": session.plan.digest, "cells": pack_codes(codes)} | facts)


def test_only_the_cells_of_suggested_trials_are_there_and_those_that_join_appear(tmp_path: Path) -> None:
    subject = planned(tmp_path, TEXT)
    watch = Watch(subject)
    look = watch.look()
    # Two studies of four trials at two values of y, and each best one at a third.
    assert (len(look.cells), look.more, [len(each.trials) for each in look.studies]) == (0, 18, [0, 0])
    # A driver suggests a trial after the other, while the page is open.
    session = opened(subject)
    session.store.prepare()
    results = session.results()
    growth = Growth(session.studies, session.schedule, session.store, results, lambda study: ())
    growth.advance()
    beat(session)
    look = watch.look()
    assert look.cells["status"].tolist() == ["running"] * 16
    assert look.cells["add"].tolist()[:4] == [1.5, 1.5, 2.5, 2.5]
    assert [len(each.trials) for each in look.studies] == [4, 4]
    assert look.more == 2
    assert "undecided" not in set(look.cells["status"].cat.categories)
    # Whoever looks at a cell lets the plan grow, too.
    assert explain(look, look.cells["cell_id"].iloc[0])["status"] == "running"
    assert explain(look, look.cells["cell_id"].iloc[0])["coords"] == {"x": 1, "trial": 0, "y": 0}
    assert len(watch.look().cells) == 16


def test_a_search_that_ended_shows_its_best_trials_and_those_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = planned(tmp_path, TEXT)
    assert drive(opened(subject), None, True, None) == 1
    watch = Watch(subject)
    look = watch.look()
    assert (look.more, look.trouble, look.outdated) == (0, None, 0)
    assert look.cells["status"].value_counts().to_dict() == {
        "succeeded": 14, "failed": 4, "running": 0, "pending": 0, "blocked": 0,
    }  # fmt: skip
    rows = studies_shown(look.studies).to_dict("records")
    assert [(row["study"], row["best trial"], row["best"], row["fresh"], row["failed"]) for row in rows] == [
        ("tune/x=1", "2", "13.5", "28.5", 1),
        ("tune/x=2", "2", "15.5", "30.5", 1),
    ]
    assert [trial.why for trial in look.studies[0].trials] == ["", "ValueError", "", ""]
    # The store alone says which cells there are, and the table what came of them.
    session = opened(subject)
    table = read_results(session.outputs.results)
    write_results(table.slice(0, 2), session.outputs.results)
    look = watch.look()
    assert look.cells["status"].value_counts()[["succeeded", "pending"]].tolist() == [2, 16]
    assert [trial.state for trial in look.studies[0].trials] == ["complete", "running", "running", "running"]
    # A damaged record is said, and takes nothing else away.
    record = next(Path(str(session.store.location)).glob("studies/*/2.json"))
    record.write_text(json.dumps([]))
    look = Watch(subject).look()
    assert str(record) in str(look.trouble)
    assert [len(study.trials) for study in look.studies].count(4) == 1
    monkeypatch.setattr(sys, "argv", ["page.py", subject.dump()])
    app = AppTest.from_file(str(PAGE), default_timeout=60).run()
    assert not app.exception
    assert len([each for each in app.warning if plain(str(record)) in each.value]) == 2
    app.query_params["cell"] = str(look.cells["cell_id"].iloc[0])
    app.run()
    assert not app.exception
    assert [each.value for each in app.error] == ["The cell cannot be read."]


def test_the_page_follows_the_studies_of_a_search(chromium: Browser, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    subject = planned(tmp_path, TEXT)
    port = free_port()
    tests = Path(toy.__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    command = [sys.executable, "-m", "orchestrator", "dashboard", str(subject.file), "--outputs", str(subject.outputs)]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--no-browser"], cwd=tmp_path, env=environment, stdout=log, stderr=log
        )
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/_stcore/health", server, log=tmp_path / "log")
        page = chromium.new_page(viewport={"width": 1280, "height": 1700})
        expect.set_options(timeout=60_000)
        page.goto(f"http://127.0.0.1:{port}")
        expect(page.get_by_text("No trial was suggested yet")).to_be_visible()
        drive(opened(subject), None, True, None)
        # Nobody reloads the page.
        expect(page.get_by_text("14 of 18 cells finished")).to_be_visible()
        expect(page.get_by_text(f"Best: 13.5 (trial 2) · add = 6.5, kind = {HTML}")).to_be_visible()
        # Optuna's figures: the history with a point per complete trial, and a line for each across the fields.
        expect(page.locator(".js-plotly-plot")).to_have_count(2)
        expect(page.locator(".js-plotly-plot").first.locator(".scatterlayer .point")).to_have_count(3)
        assert page.evaluate("window.pwned") is None
    finally:
        server.kill()
        server.wait()

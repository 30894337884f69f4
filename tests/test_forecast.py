"""What `sweep plan` and `sweep status` say of the past and the future: pace, cost, and why a step is not there."""

from __future__ import annotations

import json
import statistics
import threading
import time
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st
from test_execute import FAILING_CELL, run_inline

from orchestrator.drive import drive
from orchestrator.headway import listen
from orchestrator.pace import Guess, Left, Pace, load_pace, spell_left, spell_seconds
from orchestrator.schedule import State
from orchestrator.session import Session, open_session

NAP = toy.SWEEP.replace("config: {value: $x}", "config: {value: $x, behaviour: nap}")


def report(folder: Path, *overrides: str, text: str = toy.SWEEP) -> dict[str, dict[str, dict[str, object]]]:
    return open_session(toy.write_sweep(folder, text), list(overrides), outputs=str(folder / "out")).plan_report()


def reasons(folder: Path, entry: str, *overrides: str, text: str = toy.SWEEP) -> object:
    return report(folder, *overrides, text=text)["steps"][entry]["reasons"]


def test_the_time_left_is_the_work_over_the_slots_and_a_range_where_steps_differ() -> None:
    pace = Pace({"a": 4, "b": 2, "c": 1}, frozenset({"b"}))
    for _ in range(10):
        pace.note("a", 2.0)
        pace.note("b", 3.0)
    left = pace.left({"a": 40, "b": 10, "c": 7})
    # GPUs work beside the CPUs at best, one after the other at worst.
    assert (left.low, left.high, left.unknown) == pytest.approx((20, 35, 7))
    pace.note("a", 8.0)
    wider = pace.left({"a": 40})
    assert wider.low < 40 / 4 * 28 / 11 < wider.high
    # Four processes do not finish one step faster.
    assert pace.left({"b": 1}).high == pytest.approx(3)
    assert pace.left({"a": 0, "b": 0}).high == 0


def test_what_running_steps_have_done_is_not_ahead_and_their_guess_counts_until_the_first_has_finished() -> None:
    pace = Pace({"a": 2}, frozenset())
    pace.guess("a", Guess(30.0, 2, 0.8))
    # 1.6 of 4 steps are done, two at a time.
    assert pace.left({"a": 4}) == load_pace(json.loads(json.dumps(pace.dump()))).left({"a": 4})
    assert astuple(pace.left({"a": 4})) == pytest.approx((1.2 * 15, 1.2 * 45, 0))
    # The third begins when one of these ends; without it a fifth of a step is left.
    assert astuple(pace.left({"a": 3})) == pytest.approx((15, 45, 0))
    assert astuple(pace.left({"a": 2})) == pytest.approx((3, 9, 0))
    assert pace.seconds("a") is None
    pace.note("a", 10.0)
    pace.note("a", 10.0)
    assert astuple(pace.left({"a": 4})) == pytest.approx((1.2 * 10, 1.2 * 10, 0))
    # One of the two has ended, and what it had done is no longer among what is ahead.
    pace.ended("a", 10.0)
    assert astuple(pace.left({"a": 3})) == pytest.approx((1.1 * 10, 1.1 * 10, 0))
    pace.guess("a", None)
    assert pace.left({"a": 3}) == Left(15.0, 15.0, 0)


@given(st.lists(st.floats(0.001, 1e4), min_size=2, max_size=50))
def test_mean_and_error_are_those_of_the_textbook(seconds: list[float]) -> None:
    pace = Pace({"a": 1}, frozenset())
    for each in seconds:
        pace.note("a", each)
    assert pace.seconds("a") == pytest.approx(np.mean(seconds))
    error = np.std(seconds, ddof=1) / np.sqrt(len(seconds))
    assert pace.left({"a": 10}).high == pytest.approx(10 * (np.mean(seconds) + 2 * error))
    assert load_pace(json.loads(json.dumps(pace.dump()))).left({"a": 10}) == pace.left({"a": 10})


def test_the_rate_is_that_of_the_last_minutes() -> None:
    pace = Pace({"a": 1}, frozenset())
    now = time.time()
    for second in range(600):
        pace.ended("a", 1.0, now + second)
    assert pace.per_minute("a", now + 600) == pytest.approx(60, rel=0.05)
    assert pace.per_minute("a", now + 1200) == 0


def test_durations_are_spelled_as_people_say_them() -> None:
    assert [spell_seconds(each) for each in (4.4, 75, 4000, 200_000)] == ["4 s", "1 min 15 s", "1 h 06 min", "2 d 07 h"]
    pace = Pace({"a": 1, "b": 1}, frozenset())
    assert spell_left(pace.left({"a": 3})) == "3 steps of stages not timed yet"
    pace.ended("b", 2.0, time.time())
    assert spell_left(pace.left({"a": 3, "b": 5})) == "0 s to 20 s left + 3 steps of stages not timed yet"


def test_a_step_that_was_never_run_is_said_to_be_so(tmp_path: Path) -> None:
    assert reasons(tmp_path, "source") == {"never run": 6}
    assert "expected" not in report(tmp_path)["steps"]["source"]


def test_a_new_coordinate_is_named_and_the_cost_is_told_from_the_steps_beside_it(tmp_path: Path) -> None:
    run_inline(tmp_path, text=NAP)
    found = report(tmp_path, "axes.y=[10,20,30,40]", text=NAP)
    assert found["steps"]["total"]["reasons"] == {"never run with y = 30": 3, "never run with y = 40": 3}
    assert found["steps"]["source"]["reasons"] == {}
    found = report(tmp_path, "axes.x=[1,2,3,4]", text=NAP)
    cost = found["steps"]["source"]["expected"]
    assert isinstance(cost, dict)
    assert cost["known"] == 6
    session = open_session(tmp_path / "toy.yaml", outputs=str(tmp_path / "out"))
    done = session.store.manifests(session.store.committed(["toy_source"]))
    assert cost["seconds"] == pytest.approx(statistics.fmean(manifest.seconds for manifest in done.values()))
    assert cost["cpu_hours"] == pytest.approx(2 * cost["seconds"] / 3600)
    # "4.0" and "5.0"
    assert cost["bytes"] == pytest.approx(2 * 3)
    assert found["expected"]["unknown_steps"] == 0


def test_the_config_field_or_stage_version_that_differs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_inline(tmp_path)
    overrides = ("axes.kind.plain.behaviour=print",)
    assert reasons(tmp_path, "total", *overrides) == {'config.behaviour was "work", is "print"': 6}
    changed = toy.SWEEP.replace("value: $x", "value: $x, behaviour: nap")
    assert reasons(tmp_path, "source", text=changed) == {'config.behaviour was "work", is "nap"': 6}
    assert reasons(tmp_path, "double", text=changed) == {"reads other number": 6}
    from workers.stages import STAGES

    stage = STAGES["toy_source"]
    monkeypatch.setitem(STAGES, "toy_source", type(stage)(stage.function, 2, stage.config, stage.output))  # type: ignore[index]
    assert reasons(tmp_path, "source") == {"version was 1, is 2": 6}


def test_what_failed_before_is_counted_and_what_waits_for_it_too(tmp_path: Path) -> None:
    run_inline(tmp_path, text=FAILING_CELL)
    steps = report(tmp_path, text=FAILING_CELL)["steps"]
    assert (steps["total"]["failed"], steps["total"]["to_run"]) == (6, 6)
    assert steps["total"]["reasons"] == {"failed before: ValueError": 6}
    session = open_session(tmp_path / "toy.yaml", outputs=str(tmp_path / "out"))
    cell = next(each for each in session.plan.cells if each.coords["kind"] != "plain")
    because = {step["entry"]: step["because"] for step in session.explain(cell.id)["steps"]}
    assert because["total"] == "failed before: ValueError"
    assert because["source"] is None


def watched(folder: Path, text: str, *, inline: bool) -> list[dict[str, Any]]:
    """What `sweep status --watch` sees while a sweep is run."""
    path = toy.write_sweep(folder, text)
    looks: list[dict[str, Any]] = []

    def watch() -> None:
        session = open_session(path, outputs=str(folder / "out"))
        while session.read_pulse() is None:
            time.sleep(0.02)
        looks.extend(session.looks())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    assert drive(open_session(path, outputs=str(folder / "out")), None, inline, None) == 0
    watcher.join(30)
    return looks


@pytest.mark.ray
def test_the_log_of_a_running_step_tells_the_time_left_before_any_step_has_finished(
    tmp_path: Path, local_ray: None
) -> None:
    # One source: of two, one may begin when the other has ended.
    text = toy.SWEEP.replace("[1, 2, 3]", "[1]").replace("shards: 2, ", "")
    looks = watched(tmp_path, text.replace("config: {value: $x}", "config: {value: $x, behaviour: tell}"), inline=False)
    early = [look for look in looks if look["live"] and look["steps"]["source"]["committed"] == 0]
    # A step of 40 s, ± a half, a twentieth of which is done; nobody knows of the others.
    others = sum(early[-1]["steps"][name]["total"] for name in ("double", "total"))
    assert early[-1]["left"] == {"low": pytest.approx(19), "high": pytest.approx(57), "unknown": others}


def test_what_running_steps_have_done_is_read_from_the_logs_of_their_latest_tries(tmp_path: Path) -> None:
    session = open_session(toy.write_sweep(tmp_path), outputs=str(tmp_path / "out"))
    session.store.prepare()
    sources = np.flatnonzero(session.plan.steps_of(entries=["source"]))
    session.schedule.codes[sources] = State.RUNNING
    # Of the six that were sent, two are computed: one half done, after a try that came farther, one a quarter.
    for number, attempt, done in ((sources[0], 1, 59), (sources[0], 2, 30), (sources[1], 1, 15)):
        log = session.store.log_path(session.plan.address(number), attempt)
        log.write_text(f"optimizer steps: {done} of 60 in {done * 2} s, about a while left\n")
    pace = Pace({"source": 2, "double": 2, "total": 2}, frozenset())
    for _ in range(2):
        pace.note("source", 100.0)
    assert pace.left({"source": 6}).high == pytest.approx(3 * 100)
    listen(session.schedule, session.store, pace)
    assert pace.left({"source": 6}).high == pytest.approx((6 - 0.75) / 2 * 100)
    assert pace.left({"source": 2}).high == pytest.approx((1 - 0.375) * 100)
    session.schedule.codes[sources] = State.PENDING
    listen(session.schedule, session.store, pace)
    assert pace.left({"source": 6}).high == pytest.approx(3 * 100)


def test_status_tells_rates_and_the_time_left_while_a_driver_runs(tmp_path: Path) -> None:
    slow = toy.SWEEP.replace("config: {value: $x}", "config: {value: $x, behaviour: slow}")
    looks = watched(tmp_path, slow, inline=True)
    assert [look["live"] for look in looks] == [True] * (len(looks) - 1) + [False]
    assert len(looks) >= 2
    sources = [look["steps"]["source"] for look in looks if look["live"]]
    store = open_session(tmp_path / "toy.yaml", outputs=str(tmp_path / "out")).store
    took = [manifest.seconds for manifest in store.manifests(store.committed(["toy_source"])).values()]
    assert 0.5 <= min(took) <= sources[-1]["seconds"] <= max(took)
    assert sources[-1]["per_minute"] > 0
    assert looks[-1]["left"] is None


def test_a_pulse_of_another_plan_or_of_a_dead_driver_is_no_driver(tmp_path: Path) -> None:
    _, session = run_inline(tmp_path)
    pace = Pace(dict.fromkeys(session.plan.entries, 1.0), frozenset())
    session.write_pulse({"steps": {}}, pace)
    assert session.read_pulse() is not None
    session.write_pulse({"steps": {}}, Pace({"other": 1.0}, frozenset()))
    assert session.read_pulse() is None
    session.write_pulse({"steps": {}}, pace)
    note = session.outputs.folder / "running.json"
    pulse = json.loads(note.read_text())
    note.write_text(json.dumps(pulse | {"time": pulse["time"] - 60}))
    assert session.read_pulse() is None
    assert isinstance(session, Session)

"""What `sweep plan` and `sweep status` say of the past and the future: speed, cost, and why a step is not there."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
import toy_sweep
from hypothesis import given
from hypothesis import strategies as st
from toy_runs import run_inline
from toy_sweep import FAILING_CELL

from orchestrator.drive import drive
from orchestrator.explain.estimator import Estimator
from orchestrator.explain.eta import Eta, format_duration, format_eta, format_eta_short
from orchestrator.explain.preview import preview
from orchestrator.explain.status import watch_status
from orchestrator.explain.throughput import Throughput
from orchestrator.explain.why import explain
from orchestrator.results.heartbeat import read_heartbeat, write_heartbeat
from orchestrator.run.schedule import State
from orchestrator.session import Session, open_session
from orchestrator.store import list_files
from orchestrator.types import Manifest, Step
from workers.progress import StepProgress

NAP = toy_sweep.SWEEP.replace("config: {value: $x}", "config: {value: $x, behaviour: nap}")


def report(folder: Path, *overrides: str, text: str = toy_sweep.SWEEP) -> dict[str, dict[str, dict[str, object]]]:
    return preview(open_session(toy_sweep.write_sweep(folder, text), list(overrides), outputs=str(folder / "out")))


def reasons(folder: Path, entry: str, *overrides: str, text: str = toy_sweep.SWEEP) -> object:
    return report(folder, *overrides, text=text)["steps"][entry]["reasons"]


def throughput_of(
    slots: dict[str, float], on_gpu: frozenset[str] = frozenset(), **seconds: Sequence[float]
) -> Throughput:
    """What was seen of steps of one kind in each entry."""
    throughput = Throughput(slots, on_gpu)
    for name, each in seconds.items():
        for one in each:
            throughput.add(name, "", one)
    return throughput


def ahead(**steps: int) -> dict[str, dict[str, int]]:
    return {name: {"": count} for name, count in steps.items()}


def test_the_time_left_is_the_work_over_the_slots_and_a_range_where_steps_differ() -> None:
    throughput = throughput_of({"a": 4, "b": 2, "c": 1}, frozenset({"b"}), a=[2.0] * 10, b=[3.0] * 10)
    left = throughput.eta(ahead(a=40, b=10, c=7))
    # GPUs work beside the CPUs at best, one after the other at worst.
    assert astuple(left) == pytest.approx((20, 35, 7, 57))
    throughput.add("a", "", 8.0)
    wider = throughput.eta(ahead(a=40))
    assert wider.low < 40 / 4 * 28 / 11 < wider.high
    # Four processes do not finish one step faster.
    assert throughput.eta(ahead(b=1)).high == pytest.approx(3)
    assert throughput.eta(ahead(a=0, b=0)).high == 0
    # Of a single step nobody knows whether it was a long or a short one.
    assert astuple(throughput_of({"a": 1}, a=[4.0]).eta(ahead(a=3))) == pytest.approx((6, 24, 0, 3))


def test_a_step_tells_of_those_that_cost_like_it_and_of_no_others() -> None:
    throughput = Throughput({"a": 2}, frozenset())
    for _ in range(10):
        throughput.add("a", "tiny", 1.0)
    assert astuple(throughput.eta({"a": {"tiny": 20, "7b": 6}})) == pytest.approx((10, 10, 6, 26))
    throughput.set_running("a", {"7b": (2, StepProgress(0.5, 600.0))})
    # 10 s of the tiny ones, 5 large ones of 300 to 900 s; two of either at a time.
    assert astuple(throughput.eta({"a": {"tiny": 20, "7b": 6}})) == pytest.approx((10 + 750, 10 + 2250, 0, 26))
    throughput.set_running("a", {})
    for _ in range(10):
        throughput.finish("a", "7b", 500.0)
    assert astuple(throughput.eta({"a": {"tiny": 20, "7b": 6}})) == pytest.approx((1510, 1510, 0, 26))
    assert (throughput.seconds("a"), throughput.seconds("a", "tiny"), throughput.seconds("a", "70b")) == (
        250.5,
        1.0,
        None,
    )


def test_three_kinds_of_an_entry_say_roughly_what_others_of_it_take() -> None:
    throughput = Throughput({"a": 2}, frozenset())
    for kind, seconds in (("x", 1.0), ("y", 2.0), ("z", 4.0)):
        assert astuple(throughput.eta({"a": {"new": 10}})) == (0, 0, 10, 10)
        for _ in range(10):
            throughput.add("a", kind, seconds)
    assert astuple(throughput.eta({"a": {"new": 10}})) == pytest.approx((10 * 0.5 / 2, 10 * 8 / 2, 0, 10))
    # What is known of a kind itself is not widened.
    assert astuple(throughput.eta({"a": {"x": 10}})) == pytest.approx((5, 5, 0, 10))


def test_what_running_steps_have_done_is_not_ahead_and_their_guess_counts_until_the_first_has_finished() -> None:
    throughput = Throughput({"a": 2}, frozenset())
    throughput.set_running("a", {"": (2, StepProgress(0.8, 30.0))})
    # 1.6 of 4 steps are done, two at a time.
    assert astuple(throughput.eta(ahead(a=4))) == pytest.approx((1.2 * 15, 1.2 * 45, 0, 4))
    # The third begins when one of these ends; without it a fifth of a step is left.
    assert astuple(throughput.eta(ahead(a=3))) == pytest.approx((15, 45, 0, 3))
    assert astuple(throughput.eta(ahead(a=2))) == pytest.approx((3, 9, 0, 2))
    assert throughput.seconds("a") is None
    throughput.add("a", "", 10.0)
    throughput.add("a", "", 10.0)
    assert astuple(throughput.eta(ahead(a=4))) == pytest.approx((1.2 * 10, 1.2 * 10, 0, 4))
    # One of the two has ended, and what it had done is no longer among what is ahead.
    throughput.finish("a", "", 10.0)
    assert astuple(throughput.eta(ahead(a=3))) == pytest.approx((1.1 * 10, 1.1 * 10, 0, 3))
    throughput.set_running("a", {})
    assert throughput.eta(ahead(a=3)) == Eta(15.0, 15.0, 0, 3)


@given(st.lists(st.floats(0.001, 1e4), min_size=2, max_size=50))
def test_mean_and_error_are_those_of_the_textbook(seconds: list[float]) -> None:
    throughput = throughput_of({"a": 1}, a=seconds)
    assert throughput.seconds("a") == pytest.approx(np.mean(seconds))
    error = np.std(seconds, ddof=1) / np.sqrt(len(seconds))
    left = throughput.eta(ahead(a=10))
    assert left.high == pytest.approx(10 * (np.mean(seconds) + 2 * error))
    dumped = json.loads(json.dumps(throughput.to_json(ahead(a=10))))["a"]
    assert (Eta(**dumped["left"]), dumped["seconds"]) == (left, throughput.seconds("a"))


def test_the_rate_is_that_of_the_last_minutes() -> None:
    throughput = Throughput({"a": 1}, frozenset())
    now = time.time()
    for second in range(600):
        throughput.finish("a", "", 1.0, now + second)
    assert throughput.per_minute("a", now + 600) == pytest.approx(60, rel=0.05)
    assert throughput.per_minute("a", now + 1200) == 0


def test_durations_are_spelled_as_people_say_them() -> None:
    formatted = [format_duration(each) for each in (4.4, 75, 4000, 200_000)]
    assert formatted == ["4 s", "1 min 15 s", "1 h 06 min", "2 d 07 h"]


@pytest.mark.parametrize(
    ("eta", "phrase", "short"),
    [
        (Eta(0, 0, 0, 0), "0 s left", ""),
        (Eta(0.1, 0.45, 0, 9), "0 s left", "0 s"),
        (Eta(95, 100, 0, 9), "1 min 40 s left", "1 min 40 s"),
        (Eta(60, 240, 0, 9), "1 min 00 s to 4 min 00 s left", "4 min 00 s"),
        (Eta(60, 241, 0, 9), "at least 1 min 00 s left", "≥ 1 min 00 s"),
        (Eta(0.4, 1.2, 0, 2), "less than 2 s left", "< 2 s"),
        (Eta(0.2, 547, 0, 2), "less than 9 min 07 s left", "< 9 min 07 s"),
        (Eta(60, 61, 360, 384), "at least 1 min 00 s; no estimate yet for 360 of 384 steps", "≥ 1 min 00 s"),
        (Eta(0, 0, 1360, 1360), "no estimate yet for 1,360 of 1,360 steps", "?"),
    ],
)
def test_the_time_left_is_a_range_only_where_that_says_something_and_never_hides_what_is_unknown(
    eta: Eta, phrase: str, short: str
) -> None:
    assert (format_eta(eta), format_eta_short(eta)) == (phrase, short)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, 5))
def test_a_range_has_ends_within_a_factor_of_4_and_all_other_times_have_one_end(a: float, b: float, more: int) -> None:
    phrase = format_eta(Eta(min(a, b), max(a, b), more, 10))
    if " to " in phrase:
        assert not more
        assert max(a, b) <= 4 * min(a, b)
    else:
        assert phrase.startswith(("at least ", "less than ", "no estimate yet")) or min(a, b) > max(a, b) / 4 - 1


def test_few_steps_that_differ_much_have_a_time_at_least_and_more_of_them_a_range() -> None:
    def seen(times: Sequence[float]) -> str:
        return format_eta(throughput_of({"a": 1}, a=times).eta(ahead(a=100)))

    # Of two the mean is 52 s ± 96 s.
    assert seen([4.0, 100.0]) == "less than 4 h 06 min left"
    assert seen([40.0, 100.0]) == "at least 16 min 40 s left"
    assert seen([40.0, 100.0] * 20) == "1 h 40 min to 2 h 12 min left"
    assert seen([60.0] * 3) == "1 h 40 min left"
    assert seen([]) == "no estimate yet for 100 of 100 steps"


def test_a_step_that_was_never_run_is_said_to_be_so(tmp_path: Path) -> None:
    assert reasons(tmp_path, "source") == {"never run": 6}
    assert "expected" not in report(tmp_path)["steps"]["source"]


def test_a_new_coordinate_is_named_and_nobody_knows_what_it_costs(tmp_path: Path) -> None:
    run_inline(tmp_path, text=NAP)
    found = report(tmp_path, "axes.y=[10,20,30,40]", text=NAP)
    assert found["steps"]["total"]["reasons"] == {"never run with y = 30": 3, "never run with y = 40": 3}
    assert found["steps"]["source"]["reasons"] == {}
    assert found["expected"] == {
        "cpu_hours": 0, "gpu_hours": 0, "bytes": 0, "wall_seconds": [0, 0], "unknown_steps": 6, "steps": 6,
    }  # fmt: skip


def test_the_cost_is_told_from_finished_steps_that_differ_in_the_draw_only(tmp_path: Path) -> None:
    _, session = run_inline(tmp_path, text=NAP)
    plan, store = session.plan, session.store
    second = [plan.address(number) for number in range(len(plan)) if plan.shard[number] == 1]
    totals = [plan.address(number) for number in range(len(plan)) if plan.entry_of(number) == "total"]
    first = store.committed(["toy_source"]) - set(second)
    assert len(first) == 3
    store.remove([*second, *totals])
    found = report(tmp_path, text=NAP)
    cost = found["steps"]["source"]["expected"]
    assert isinstance(cost, dict)
    assert (cost["known"], cost["unknown"]) == (3, 0)
    seconds = [manifest.seconds for manifest in store.manifests(first).values() if isinstance(manifest, Manifest)]
    assert cost["seconds"] == pytest.approx(statistics.fmean(seconds))
    assert cost["cpu_hours"] == pytest.approx(3 * cost["seconds"] / 3600)
    # "2.0", "3.0" and "4.0"
    assert cost["bytes"] == pytest.approx(3 * 3)
    assert "expected" not in found["steps"]["total"]
    assert (found["expected"]["unknown_steps"], found["expected"]["steps"]) == (6, 12)


def test_steps_of_another_sweep_tell_where_all_that_they_were_made_from_is_alike_too(tmp_path: Path) -> None:
    drawn = toy_sweep.SWEEP.replace("shards: 2, config: {value: $x}", "config: {value: $x, shard: 7}")
    run_inline(tmp_path, text=drawn)
    other = drawn.replace("shard: 7", "shard: 8").replace("name: toy", "name: other")
    steps = report(tmp_path, text=other)["steps"]
    assert {name: each["to_run"] for name, each in steps.items()} == {"source": 3, "double": 3, "total": 6}
    assert [steps[name]["expected"]["known"] for name in steps] == [3, 3, 6]  # type: ignore[index]
    # Another value far up, and nothing is known of what reads it.
    steps = report(tmp_path, "axes.x=[1,5]", text=other)["steps"]
    told = [(each["expected"]["known"], each["expected"]["unknown"]) for each in steps.values()]  # type: ignore[index]
    assert told == [(1, 1), (1, 1), (2, 2)]


def finish(session: Session, wanted: Callable[[Step], bool], seconds: float) -> None:
    """Commit some steps of a sweep as if they had run."""
    session.store.prepare()
    for number in range(len(session.plan)):
        step = session.plan.step(number)
        if wanted(step):
            with session.store.lease(step.address, "driver") as lease:
                (lease.folder / "made").write_text("up")
                files = list_files(lease.folder)
                lease.commit(Manifest(step.address, step.identity, files, {}, 1, seconds, 0.0, "host", "code"))


def test_a_tiny_model_tells_nothing_of_a_large_one_and_a_sum_says_what_it_lacks(tmp_path: Path) -> None:
    sweeps = Path(__file__).parents[2] / "sweeps"
    large = open_session(sweeps / "full.yaml", ["axes.seed=[0]", "axes.beta=[1]"], outputs=str(tmp_path))
    finish(open_session(sweeps / "quickstart.yaml", outputs=str(tmp_path)), lambda step: step.stage != "prompts", 2.0)
    found = preview(large)
    assert found["expected"]["gpu_hours"] == 0
    assert found["expected"]["unknown_steps"] == found["expected"]["steps"] == len(large.plan)
    assert not any("expected" in each for each in found["steps"].values())
    # A shard of the 2b model tells of its others; nobody knows of the 7b and the 8b model.
    here = {"policy": "gemma-2b", "dataset": "helpful"}
    finish(large, lambda step: step.entry == "generate_test" and step.coords == here and not step.config["shard"], 60.0)
    large = replace(large)
    cost = preview(large)["steps"]["generate_test"]
    assert (cost["to_run"], cost["expected"]["unknown"]) == (12 * 32 - 1, 11 * 32)
    assert cost["expected"]["gpu_hours"] == pytest.approx(31 / 60)


def test_the_config_field_or_stage_version_that_differs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_inline(tmp_path)
    overrides = ("axes.kind.plain.behaviour=print",)
    assert reasons(tmp_path, "total", *overrides) == {'behaviour: "work" -> "print"': 6}
    changed = toy_sweep.SWEEP.replace("value: $x", "value: $x, behaviour: nap")
    assert reasons(tmp_path, "source", text=changed) == {'behaviour: "work" -> "nap"': 6}
    assert reasons(tmp_path, "double", text=changed) == {"changed inputs: number": 6}
    stage = toy.STAGES["toy_source"]
    monkeypatch.setitem(toy.STAGES, "toy_source", type(stage)(stage.function, 2, stage.config, stage.output))
    assert reasons(tmp_path, "source") == {"version: 1 -> 2": 6}


def test_a_model_that_is_of_another_sort_is_shown_whole_and_one_field_of_it_alone(tmp_path: Path) -> None:
    sweep = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"
    finish(open_session(sweep, outputs=str(tmp_path)), lambda step: step.entry in ("prompts", "policy"), 1.0)
    (tmp_path / "mine").mkdir()

    def because(change: str) -> list[str]:
        session = open_session(sweep, [f"stages.policy.config.model{change}"], outputs=str(tmp_path))
        return list(preview(session)["steps"]["policy"]["reasons"])

    assert because(".tiny.hidden=64") == ["model.tiny.hidden: 128 -> 64"]
    (reason,) = because(f"={{path: {tmp_path / 'mine'}}}")
    assert reason.startswith('model: {tiny: …} -> {sha256: "')


def test_what_failed_before_is_counted_and_what_waits_for_it_too(tmp_path: Path) -> None:
    run_inline(tmp_path, text=FAILING_CELL)
    steps = report(tmp_path, text=FAILING_CELL)["steps"]
    assert (steps["total"]["failed"], steps["total"]["to_run"]) == (6, 6)
    assert steps["total"]["reasons"] == {"failed before: ValueError": 6}
    session = open_session(tmp_path / "toy.yaml", outputs=str(tmp_path / "out"))
    cell = next(each for each in session.plan.cells if each.coords["kind"] != "plain")
    because = {step["entry"]: step["because"] for step in explain(session, cell.id)["steps"]}
    assert because["total"] == "failed before: ValueError"
    assert because["source"] is None


def watched(folder: Path, text: str, *, inline: bool) -> list[dict[str, Any]]:
    """What `sweep status --watch` sees while a sweep is run."""
    path = toy_sweep.write_sweep(folder, text)
    looks: list[dict[str, Any]] = []

    def watch() -> None:
        session = open_session(path, outputs=str(folder / "out"))
        while read_heartbeat(session.outputs.folder, session.plan.entries) is None:
            time.sleep(0.02)
        looks.extend(watch_status(session))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    assert drive(open_session(path, outputs=str(folder / "out")), None, inline, None) == 0
    watcher.join(30)
    return looks


def test_the_log_of_a_running_step_tells_the_time_left_before_any_step_has_finished(
    tmp_path: Path, local_ray: None
) -> None:
    # One source: of two, one may begin when the other has ended.
    text = toy_sweep.SWEEP.replace("[1, 2, 3]", "[1]").replace("shards: 2, ", "")
    looks = watched(tmp_path, text.replace("config: {value: $x}", "config: {value: $x, behaviour: tell}"), inline=False)
    early = [look for look in looks if look["live"] and look["steps"]["source"]["committed"] == 0]
    # A step of 40 s, ± a half, a twentieth of which is done; nobody knows of the others.
    others = sum(early[-1]["steps"][name]["total"] for name in ("double", "total"))
    told = {"low": pytest.approx(19), "high": pytest.approx(57), "unknown": others, "steps": 1 + others}
    assert early[-1]["left"] == told


def test_what_running_steps_have_done_is_read_from_the_logs_of_their_latest_tries(tmp_path: Path) -> None:
    # All six are of one kind.
    text = toy_sweep.SWEEP.replace("[1, 2, 3]", "[1]").replace("shards: 2", "shards: 6")
    session = open_session(toy_sweep.write_sweep(tmp_path, text), outputs=str(tmp_path / "out"))
    session.store.prepare()
    sources = np.flatnonzero(session.plan.steps_of(entries=["source"]))
    session.schedule.codes[sources] = State.RUNNING
    # Of the six that were sent, two are computed: one half done, after a try that came farther, one a quarter.
    for number, attempt, done in ((sources[0], 1, 59), (sources[0], 2, 30), (sources[1], 1, 15)):
        log = session.store.log_path(session.plan.address(number), attempt)
        log.write_text(f"optimizer steps: {done} of 60 in {done * 2} s, about a while left\n")
    estimator = Estimator(session.schedule, lambda runtime: 2)
    kind = estimator.likeness.kind(sources[0])
    for _ in range(2):
        estimator.throughput.add("source", kind, 100.0)

    def left(steps: int) -> float:
        return estimator.throughput.eta({"source": {kind: steps}}).high

    assert left(6) == pytest.approx(3 * 100)
    estimator.read_logs(session.store)
    assert left(6) == pytest.approx((6 - 0.75) / 2 * 100)
    assert left(2) == pytest.approx((1 - 0.375) * 100)
    session.schedule.codes[sources] = State.PENDING
    estimator.read_logs(session.store)
    assert left(6) == pytest.approx(3 * 100)


def test_status_tells_rates_and_the_time_left_while_a_driver_runs(tmp_path: Path) -> None:
    slow = toy_sweep.SWEEP.replace("config: {value: $x}", "config: {value: $x, behaviour: slow}")
    looks = watched(tmp_path, slow, inline=True)
    assert [look["live"] for look in looks] == [True] * (len(looks) - 1) + [False]
    assert len(looks) >= 2
    sources = [look["steps"]["source"] for look in looks if look["live"]]
    store = open_session(tmp_path / "toy.yaml", outputs=str(tmp_path / "out")).store
    took = [manifest.seconds for manifest in store.manifests(store.committed(["toy_source"])).values()]
    assert 0.5 <= min(took) <= sources[-1]["seconds"] <= max(took)
    assert sources[-1]["per_minute"] > 0
    assert looks[-1]["left"] is None


def test_a_heartbeat_of_another_plan_or_of_a_dead_driver_is_no_driver(tmp_path: Path) -> None:
    _, session = run_inline(tmp_path)
    folder, entries = session.outputs.folder, session.plan.entries
    times = Estimator(session.schedule, lambda runtime: 1).to_json()
    write_heartbeat(folder, {"steps": {}, **times})
    assert read_heartbeat(folder, entries) is not None
    write_heartbeat(folder, {"steps": {}, "pace": {"other": {}}, "left": {}})
    assert read_heartbeat(folder, entries) is None
    # Nobody may delete what it reads, all the same.
    assert read_heartbeat(folder) is not None
    write_heartbeat(folder, {"steps": {}, **times})
    note = folder / "running.json"
    heartbeat = json.loads(note.read_text())
    note.write_text(json.dumps(heartbeat | {"time": heartbeat["time"] - 60}))
    assert read_heartbeat(folder, entries) is None
    assert read_heartbeat(folder) is None

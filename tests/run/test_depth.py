"""Cells are finished early and evenly, and neither bundles nor shared reads nor loaded models are lost for that."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import toy_sweep
from clockwork import Clockwork, Costs, Played, play
from toy_sweep import ONE

from orchestrator.run.executors import NO_TURNS, Slot
from orchestrator.run.executors.inline import InlineExecutor
from orchestrator.run.executors.warm import WORTH_A_LOAD, WarmWorkers
from orchestrator.run.loop import run_plan
from orchestrator.run.schedule import State
from orchestrator.session import open_session
from orchestrator.types import Runtime, Step

SWEEPS = Path(__file__).parents[2] / "sweeps"
#: 432 of its cells: all policies and data sets, so that there is as much to load as ever.
FEWER = ["axes.seed=[0, 1]", "axes.sampling=[random]", "axes.beta=[0.5, 1, 5]", "axes.annotations=[5000, 10000]"]
#: Six trainings; all else about as long as on a GPU of today, with the larger of the two golden models for half of it.
SECONDS = {"generate_train": 900, "generate_test": 1200, "score_train": 275, "score_test": 365, "embed_train": 150,
           "embed_test": 200, "sft": 9000, "annotate": 5, "fit": 600, "evaluate": 60}  # fmt: skip


def _of_full(step: Step) -> float:
    small = step.entry in ("generate_train", "generate_test", "sft") and "2b" in str(step.coords["policy"])
    return SECONDS.get(step.entry, 60) * (0.4 if small else 1)


@cache
def _full(gpus: int, cpus: int) -> Played:
    with TemporaryDirectory() as folder:
        return play(SWEEPS / "full.yaml", Path(folder), Clockwork(gpus, cpus, Costs(_of_full, 90, 0.3)), FEWER)


@cache
def _synthetic(cpus: int) -> Played:
    """Small steps, which all take one core: the shape that had no finished cell before all fits were begun."""
    seconds = {"annotate": 0.05, "fit": 0.4, "evaluate": 0.1}
    read = {"evaluate": 0.05, "fit_mlp": 0.03, "fit_lightgbm": 0.03}
    with TemporaryDirectory() as folder:
        costs = Costs(lambda step: seconds.get(step.entry, 1.0), 3, 0.02, read)
        return play(SWEEPS / "synthetic.yaml", Path(folder), Clockwork(0, cpus, costs))


MACHINES = pytest.mark.parametrize(("gpus", "cpus"), [(8, 64), (4, 16), (2, 16)])


@MACHINES
def test_the_first_cell_is_finished_within_a_tenth_of_the_time(gpus: int, cpus: int) -> None:
    assert _full(gpus, cpus).finished[0] <= 0.1
    assert _synthetic(cpus).finished[0] <= 0.1


@MACHINES
def test_cells_are_finished_evenly(gpus: int, cpus: int) -> None:
    played = _full(gpus, cpus)
    # Cells of one policy and data set come at once, a twelfth of all.
    assert [played.finished_at(share / 4) - share / 4 for share in (1, 2, 3)] == pytest.approx([0, 0, 0], abs=0.18)


@MACHINES
def test_gpus_or_cores_are_busy_all_the_time(gpus: int, cpus: int) -> None:
    played = _full(gpus, cpus)
    assert max(played.busy(True), played.busy(False)) >= 0.95
    assert _synthetic(cpus).busy(False) >= 0.97


@MACHINES
def test_loading_models_takes_less_than_a_hundredth_of_the_gpus_time(gpus: int, cpus: int) -> None:
    machines = _full(gpus, cpus).machines
    assert machines.loads * machines.costs.load <= 0.01 * machines.busy[True]


def test_small_steps_fill_bundles_although_those_nearest_to_a_target_go_first() -> None:
    machines = _synthetic(2).machines
    # 2,160 of each. A bundle has 64 at most, and fewer as long as nobody knows how long they take and at the end.
    assert machines.bundles["evaluate"] <= 2160 / 32
    assert machines.bundles["fit"] <= 2160 / 26


def test_features_of_the_same_pairs_are_binned_once() -> None:
    # 120 sets of pairs; a few are cut in two by the end of a bundle.
    assert _synthetic(2).machines.bins <= 1.15 * 120


def test_training_leaves_most_gpus_to_work_that_finishes_cells() -> None:
    machines = _full(8, 64).machines
    assert 1 <= machines.most_tasks_on_gpus <= 2


def _workers(*models: str) -> WarmWorkers:
    warm = WarmWorkers(lambda shape: None, lambda process: None, lambda: 0.0)
    for model in models:
        warm.ended(warm.take("shape", Slot(model)))
    return warm


def _chosen(warm: WarmWorkers, ready: dict[str, int], turns: dict[str, int], slots: int) -> str | None:
    slot = warm.find_slot("shape", ready, slots, turns)
    return slot.model if slot else None


def test_a_process_drops_its_model_only_for_enough_work_of_an_earlier_turn() -> None:
    ready = {"golden": WORTH_A_LOAD, "policy": 40}
    assert _chosen(_workers("policy"), ready, {"golden": 0, "policy": 1}, 1) == "golden"
    assert _chosen(_workers("policy"), ready, {"golden": 1, "policy": 1}, 1) == "policy"
    assert _chosen(_workers("policy"), {**ready, "golden": WORTH_A_LOAD - 1}, {"golden": 0, "policy": 1}, 1) == "policy"
    busy = _workers("policy", "golden")
    busy.workers[1].bundles = 2
    assert _chosen(busy, ready, {"golden": 0, "policy": 1}, 2) == "policy"


def test_a_process_that_is_to_drop_its_model_is_given_no_bundle_in_advance() -> None:
    warm = _workers("policy")
    warm.workers[0].bundles = 1
    assert _chosen(warm, {"golden": WORTH_A_LOAD, "policy": 40}, {"golden": 0, "policy": 1}, 1) is None
    assert _chosen(warm, {"golden": 1, "policy": 40}, {"golden": 0, "policy": 1}, 1) == "policy"


def test_processes_share_the_model_of_the_earliest_turn_as_long_as_each_has_enough_of_its_work() -> None:
    turns = {"first": 0, "second": 1}
    enough = {"first": 2 * WORTH_A_LOAD, "second": 96}
    assert _chosen(_workers("first"), enough, turns, 1) == "first"
    busy = _workers("first")
    busy.workers[0].bundles = 2
    assert _chosen(busy, enough, turns, 2) == "first"
    assert _chosen(busy, {**enough, "first": 2 * WORTH_A_LOAD - 1}, turns, 2) == "second"


def test_few_steps_do_not_wait_for_a_bundle_beside_steps_that_find_no_machine(tmp_path: Path) -> None:
    class Narrow(Clockwork):
        """No machine has two cores."""

        def find_slot(
            self, runtime: Runtime, ready: Mapping[str, int], turns: Mapping[str, int] = NO_TURNS
        ) -> Slot | None:
            return None if runtime.cpus > 1 else super().find_slot(runtime, ready, turns)

    text = toy_sweep.SWEEP + "runtime: {double: {cpus: 2}}\n"
    session = open_session(toy_sweep.write_sweep(tmp_path, text), outputs=str(tmp_path / "out"))
    session.store.prepare()
    machines = Narrow(0, 1, Costs(lambda step: 0.001, 0, 0))
    for _ in run_plan(session.schedule, session.store, machines, "abc"):
        # For what finds no machine a run waits: one may yet come.
        if machines.now > 60:
            break
    assert {each for name, each in session.schedule.counts()["source"].items() if name is not State.COMMITTED} == {0}


def test_one_process_alone_finishes_one_cell_after_another(tmp_path: Path) -> None:
    session = open_session(toy_sweep.write_sweep(tmp_path), outputs=str(tmp_path / "out"))
    session.store.prepare()
    ended = [attempt for attempt in run_plan(session.schedule, session.store, InlineExecutor(), "abc") if attempt]
    assert [attempt.entry for attempt in ended] == ["source", "double", "source", "double", "total", "total"] * 3


def test_while_gpus_have_nothing_to_do_cores_do_what_gpus_wait_for(tmp_path: Path) -> None:
    text = ONE.replace("x: [1]", "x: [1, 2, 3]") + (
        "  early: {stage: toy_double, inputs: {number: source}}\n"
        "  tune: {stage: toy_double, inputs: {number: early}}\n"
        "  fit: {stage: toy_source, config: {value: $y}}\n"
        "results: [tune, fit]\n"
        "runtime: {tune: {gpus: 1}}\n"
    )
    session = open_session(
        toy_sweep.write_sweep(tmp_path, text), [f"axes.y={list(range(40))}"], outputs=str(tmp_path / "out")
    )
    session.store.prepare()
    machines = Clockwork(2, 1, Costs(lambda step: 1, 0, 0))
    ended = [each.entry for each in run_plan(session.schedule, session.store, machines, "abc") if each]
    # Some fits were queued ahead before the first source had ended.
    assert ended[-30:] == ["fit"] * 30

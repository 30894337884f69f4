"""Nodes are drained, lost and replaced: what runs there costs no tries, and what is about to go gets nothing new."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from cluster_sweeps import Sweeps
from ray_nodes import RayNodes

from orchestrator.types import Outcome

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.faults]

#: One try only: what a lost node took with it must not count.
HEAD = """\
axes: {x: RANGE}
runtime: {default: {attempts: 1}, GPU}
"""
#: Each needs a process of its own, and an input that was made on another node, perhaps.
TUNE = """\
stages:
  prepare: {stage: placed_first, config: {value: $x, seconds: 0.3}}
  tune: {stage: placed_next, inputs: {number: prepare}, config: {seconds: 0.7}}
results: [tune]
"""
#: Questions to a model that stays loaded.
ASK = """\
stages:
  ask: {stage: placed_model, config: {value: $x, model: one, seconds: 1.5}}
results: [ask]
"""
BOTH = """\
stages:
  prepare: {stage: placed_first, config: {value: $x, seconds: 0.3}}
  tune: {stage: placed_next, inputs: {number: prepare}, config: {seconds: 0.7}}
  ask: {stage: placed_model, config: {value: $x, model: one, seconds: 0.7}}
results: [tune, ask]
"""


def text(stages: str, steps: int, *on_gpus: str) -> str:
    runtime = ", ".join(f"{each}: {{cpus: 1, gpus: 1}}" for each in on_gpus)
    return HEAD.replace("RANGE", str(list(range(steps)))).replace("GPU", runtime) + stages


def test_a_node_that_is_drained_gets_no_new_work_and_what_runs_there_ends_in_peace(
    nodes: RayNodes, sweeps: Sweeps
) -> None:
    stays, goes = (nodes.join(num_cpus=2, num_gpus=1) for _ in range(2))
    driver = sweeps.start(text(ASK, 24, "ask"))
    sweeps.wait_for(lambda: {each.node for each in sweeps.spans("ask")} == {stays, goes})
    nodes.drain(goes)
    before = len([each for each in sweeps.spans() if each.node == goes])
    driver.finish()
    driver.check_done_once()
    spans = sweeps.spans()
    after = len([each for each in spans if each.node == goes]) - before
    print("calls by node:", Counter(each.node[:6] for each in spans), "- on the drained one after the drain:", after)
    # What was on its way there, at most.
    assert after <= 3
    assert not any(each.failed or each.end is None for each in spans)
    assert driver.attempts() == []


def test_a_node_that_is_lost_costs_no_gpu_step_a_try(nodes: RayNodes, sweeps: Sweeps) -> None:
    _, goes = (nodes.join(num_cpus=2, num_gpus=1) for _ in range(2))
    # Long enough to be still running when the node is gone.
    driver = sweeps.start(text(TUNE.replace("0.7", "3"), 10, "tune"))
    sweeps.wait_for(lambda: any(each.node == goes and not each.end for each in sweeps.spans("tune")))
    nodes.crash(goes)
    driver.finish()
    driver.check_done_once()
    lost = [each for each in sweeps.spans() if each.end is None]
    assert {each.node for each in lost} == {goes}
    assert {each.outcome for each in driver.attempts()} == {Outcome.LOST}


def test_nodes_that_go_and_come_again_and_again_leave_every_step_done_once(nodes: RayNodes, sweeps: Sweeps) -> None:
    chance = random.Random(19)
    for _ in range(3):
        nodes.join(num_cpus=2, num_gpus=1)
    driver = sweeps.start(text(BOTH, 14, "tune", "ask"))
    losses = 0
    while driver.running and losses < 3:
        done = len(sweeps.spans("tune"))
        sweeps.wait_for(lambda done=done: len(sweeps.spans("tune")) >= done + 3 or not driver.running)
        joined = nodes.joined()
        # If possible one that computes something.
        busy = [each.node for each in sweeps.spans() if not each.end and each.node in joined]
        victim = chance.choice(busy or joined)
        if chance.random() < 0.3:
            nodes.drain(victim)
        nodes.crash(victim)
        losses += 1
        nodes.join(num_cpus=2, num_gpus=1)
    driver.finish()
    assert losses == 3
    driver.check_done_once()
    calls = [each for each in sweeps.spans() if each.entry != "prepare"]
    print(f"{losses} losses of 3 nodes; {len(calls)} calls for {len({each.step for each in calls})} GPU steps")
    assert {each.outcome for each in driver.attempts()} <= {Outcome.LOST}

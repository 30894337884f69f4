"""Nodes are drained, lost and replaced: what runs there costs no tries, and what is about to go gets nothing new."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from cluster_sweeps import Sweeps
from ray_nodes import RayNodes

from orchestrator.types import Outcome

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.faults]

#: Steps with and without a GPU; one try only: what a lost node took with it must not count.
LEAVING = """\
axes: {x: RANGE}
stages:
  prepare: {stage: placed_first, config: {value: $x, seconds: 0.3}}
  tune: {stage: placed_next, inputs: {number: prepare}, config: {seconds: 0.7}}
results: [tune]
runtime: {default: {attempts: 1}, tune: {cpus: 1, gpus: 1}}
"""


def test_a_node_that_is_drained_gets_no_new_work_and_what_runs_there_ends_in_peace(
    nodes: RayNodes, sweeps: Sweeps
) -> None:
    stays, goes = (nodes.join(num_cpus=2, num_gpus=1) for _ in range(2))
    driver = sweeps.start(LEAVING.replace("RANGE", str(list(range(30)))))
    sweeps.wait_for(lambda: {each.node for each in sweeps.spans("tune")} == {stays, goes})
    nodes.drain(goes)
    before = len([each for each in sweeps.spans() if each.node == goes])
    driver.finish()
    driver.check_done_once()
    spans = sweeps.spans()
    after = len([each for each in spans if each.node == goes]) - before
    print("calls by node:", Counter(each.node[:6] for each in spans), "- on the drained one after the drain:", after)
    # What was on its way there, at most.
    assert after <= 2
    assert not any(each.failed or each.end is None for each in spans)
    assert driver.attempts() == []


def test_a_node_that_is_lost_costs_no_gpu_step_a_try(nodes: RayNodes, sweeps: Sweeps) -> None:
    stays, goes = (nodes.join(num_cpus=2, num_gpus=1) for _ in range(2))
    driver = sweeps.start(LEAVING.replace("RANGE", str(list(range(16)))))
    sweeps.wait_for(lambda: [each.node for each in sweeps.spans("tune")].count(goes) > 1)
    nodes.crash(goes)
    driver.finish()
    driver.check_done_once()
    assert {each.outcome for each in driver.attempts()} <= {Outcome.LOST}
    assert {each.node for each in sweeps.spans() if each.end is None} == {goes}


def test_nodes_that_go_and_come_again_and_again_leave_every_step_done_once(nodes: RayNodes, sweeps: Sweeps) -> None:
    chance = random.Random(19)
    for _ in range(3):
        nodes.join(num_cpus=2, num_gpus=1)
    driver = sweeps.start(LEAVING.replace("RANGE", str(list(range(60)))))
    losses = 0
    while driver.running and losses < 4:
        done = len(sweeps.spans("tune"))
        sweeps.wait_for(lambda done=done: len(sweeps.spans("tune")) >= done + 8 or not driver.running)
        victim = chance.choice(nodes.joined())
        nodes.drain(victim) if chance.random() < 0.3 else None
        nodes.crash(victim)
        losses += 1
        nodes.join(num_cpus=2, num_gpus=1)
    driver.finish()
    assert losses >= 3
    driver.check_done_once()
    spans = sweeps.spans("tune")
    print(f"{losses} losses of 3 nodes; {len(spans)} calls for {len({each.step for each in spans})} GPU steps")
    assert {each.outcome for each in driver.attempts()} <= {Outcome.LOST}

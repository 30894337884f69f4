"""What a step asks for is what some node has: after it ran out of memory, and where nodes differ or have few cores."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cluster_sweeps import Sweeps
from ray_nodes import RayNodes

from orchestrator.types import Outcome

pytestmark = [pytest.mark.ray, pytest.mark.long]

SHAPES = """\
axes: {x: [1, 2]}
stages:
  prepare: {stage: placed_first, config: {value: $x}}
  tune: {stage: placed_next, inputs: {number: prepare}, config: {trouble: TROUBLE, place: PLACE}}
results: [tune]
runtime: {tune: {RUNTIME}}
"""


def text(runtime: str, trouble: str = "none", place: Path | str = "") -> str:
    return SHAPES.replace("RUNTIME", runtime).replace("TROUBLE", trouble).replace("PLACE", f'"{place}"')


def test_a_gpu_step_that_ran_out_of_memory_is_tried_again_on_the_gpu_node_though_another_one_is_larger(
    nodes: RayNodes, sweeps: Sweeps, tmp_path: Path
) -> None:
    nodes.join(num_cpus=8)
    gpu = nodes.join(num_cpus=4, num_gpus=1)
    (tmp_path / "starved").mkdir()
    driver = sweeps.start(text("cpus: 2, gpus: 1, attempts: 2", "memory_once", tmp_path / "starved"))
    driver.finish(seconds=60)
    driver.check_done_once()
    assert [each.outcome for each in driver.attempts()] == [Outcome.OUT_OF_MEMORY] * 2
    tunes = sweeps.spans("tune")
    assert {each.node for each in tunes} == {gpu}
    assert [each.failed for each in tunes].count(True) == 2
    assert len(tunes) == 4


def test_a_step_that_asks_for_more_cores_than_any_node_has_runs_with_those_of_the_largest(
    nodes: RayNodes, sweeps: Sweeps
) -> None:
    for _ in range(3):
        nodes.join(num_cpus=2)
    driver = sweeps.start(text("cpus: 4"))
    driver.finish(seconds=60)
    driver.check_done_once()


@pytest.mark.parametrize(
    ("runtime", "asked"),
    [("gpus: 4", r"4 GPUs"), ("cpus: 2, gpus: 1, memory: 1000GB", r"1000|931")],
    ids=["gpus", "memory"],
)
def test_a_shape_that_no_node_has_is_an_error_at_once_that_lists_the_shapes_there_are(
    nodes: RayNodes, sweeps: Sweeps, runtime: str, asked: str
) -> None:
    nodes.join(num_cpus=8)
    nodes.join(num_cpus=4, num_gpus=2)
    driver = sweeps.start(text(runtime))
    said = driver.finish(code=1, seconds=60)
    said = re.sub(r"\s+", " ", said)
    assert "tune" in said
    for words in (asked, r"8 CPUs", r"4 CPUs, 2 GPUs"):
        assert re.search(words, said), said
    assert not sweeps.spans("tune")
    # What can run has run, and the sweep is not taken to be whole.
    assert len(sweeps.spans("prepare")) in (0, 2)
    assert "succeeded" not in driver.status().replace("0 succeeded", "")

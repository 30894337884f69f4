"""What steps reserve is what some node has; what none can ever have is told at once."""

from __future__ import annotations

import pytest

from orchestrator.run.executors.nodes import Node, Nodes, Shape
from orchestrator.types import Runtime

GIB = 2**30


def nodes(*shapes: tuple[float, float, float], **more: object) -> Nodes:
    return Nodes([Node(str(n), Shape(*shape)) for n, shape in enumerate(shapes)], **more)  # type: ignore[arg-type]


def test_a_step_that_wants_more_cores_than_a_node_has_runs_with_those_of_the_largest() -> None:
    small = nodes((2, 0, GIB), (2, 0, GIB), (2, 0, GIB))
    assert small.shape(Runtime(cpus=4)) == Shape(2, 0, None)
    assert small.count(small.shape(Runtime(cpus=4))) == 3
    # Of the nodes that have the GPUs.
    mixed = nodes((64, 0, GIB), (8, 1, GIB))
    assert mixed.shape(Runtime(cpus=16, gpus=1)) == Shape(8, 1, None)
    assert mixed.shape(Runtime(cpus=16)) == Shape(16, 0, None)


def test_after_running_out_of_memory_a_step_gets_a_whole_node_of_a_kind_that_there_is() -> None:
    mixed = nodes((64, 0, 512 * GIB), (8, 1, 64 * GIB), (16, 1, 128 * GIB))
    assert mixed.shape(Runtime(cpus=1, gpus=1, whole_node=True)) == Shape(16, 1, None)
    assert mixed.shape(Runtime(cpus=1, whole_node=True)) == Shape(64, 0, None)


def test_what_no_node_has_is_told_with_the_nodes_that_there_are() -> None:
    mixed = nodes((8, 0, GIB), (4, 1, GIB), (4, 1, GIB))
    assert mixed.refuse(mixed.shape(Runtime(cpus=4, gpus=1))) is None
    assert mixed.refuse(mixed.shape(Runtime(gpus=2, cpus=4))) == (
        "a node with 4 CPUs, 2 GPUs is needed, and there are 1 × (8 CPUs, 1.0 GiB); 2 × (4 CPUs, 1 GPU, 1.0 GiB); "
        "with `device: cpu` under `runtime` it runs on cores"
    )
    assert "40.0 GiB is needed" in (mixed.refuse(mixed.shape(Runtime(memory=40 * GIB))) or "")


def test_what_an_autoscaler_may_add_is_waited_for_until_it_says_that_it_has_no_such_node() -> None:
    asked = Shape(4, 8, None)
    growing = nodes((8, 0, GIB), grows=True)
    assert growing.refuse(asked) is None
    growing.impossible.add(asked)
    assert "the autoscaler has no such type of node" in (growing.refuse(asked) or "")
    known = nodes((8, 0, GIB), grows=True, types=[Shape(4, 8, GIB)])
    assert known.shape(Runtime(cpus=16, gpus=8)) == asked


@pytest.mark.parametrize(("gpus", "times"), [(0.1, 10), (0.3, 3), (0.25, 4), (1, 1), (2, 0)])
def test_parts_of_a_gpu_are_counted_without_errors_of_rounding(gpus: float, times: int) -> None:
    assert Shape(0, gpus, None).times_in(Shape(8, 1, None)) == times


def test_a_step_with_a_whole_node_takes_all_gpus_of_it_from_others() -> None:
    eight = nodes((64, 8, GIB))
    assert eight.part(Shape(64, 1, None)) == 8
    assert eight.part(Shape(8, 1, None)) == 1
    assert eight.part(Shape(4, 0.5, None)) == 0.5


def test_a_head_without_cores_is_waited_for_until_nodes_join() -> None:
    head = nodes((0, 0, GIB))
    assert head.shape(Runtime(cpus=2)) == Shape(2, 0, None)
    assert head.refuse(Shape(2, 0, None)) is None
    assert head.count(Shape(2, 0, None)) == 0
    # It has GPUs, and nobody to feed them.
    assert nodes((0, 2, GIB), (2, 0, GIB)).refuse(Shape(1, 1, None))

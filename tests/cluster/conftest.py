"""Fixtures of the tests that need a Ray cluster of several nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_sweeps import Sweeps
from ray_nodes import RayNodes

# Other tests beside them disturb their timelines: `make test-cluster` runs them alone.
collect_ignore_glob = [] if os.environ.get("TEST_CLUSTER") else ["test_*.py"]


@pytest.fixture(scope="session")
def _head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RayNodes, Path]]:
    """A head without cores, and the name of the trace of its nodes."""
    trace = tmp_path_factory.mktemp("nodes") / "trace"
    nodes = RayNodes({"CLUSTER_TRACE": str(trace)})
    try:
        yield nodes, trace
    finally:
        nodes.end()


@pytest.fixture
def nodes(_head: tuple[RayNodes, Path], tmp_path: Path) -> Iterator[RayNodes]:
    """A cluster without nodes but its head, to which a test adds some; they leave with it."""
    nodes, trace = _head
    trace.unlink(missing_ok=True)
    trace.symlink_to(tmp_path / "trace")
    yield nodes
    for each in nodes.joined():
        nodes.leave(each)


@pytest.fixture
def sweeps(nodes: RayNodes, tmp_path: Path) -> Iterator[Sweeps]:
    """Runs sweeps on these nodes; drivers that still run are killed with the test."""
    with Sweeps(nodes, tmp_path, tmp_path / "trace") as made:
        yield made

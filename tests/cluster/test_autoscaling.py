"""The cluster grows while there is GPU work for more nodes, and is told when there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_sweeps import Sweeps
from ray_nodes import RayNodes

pytestmark = [pytest.mark.ray, pytest.mark.long]

#: Six GPU steps, or questions to six models, and one CPU step that goes on until the test has looked.
GROWING = """\
axes: {x: [1, 2, 3, 4, 5, 6]}
stages:
  STAGE
  watch: {stage: placed_first, config: {trouble: wait, place: "GO"}}
  last: {stage: placed_next, inputs: {number: watch}}
results: [tune, last]
runtime: {tune: {cpus: 1, gpus: 1}}
"""

#: They wait for all nodes that there can be.
PLAIN = 'tune: {stage: placed_first, config: {value: $x, trouble: wait, place: "ALL"}}'
WARM = 'tune: {stage: placed_model, config: {value: $x, model: one, trouble: wait, place: "ALL"}}'


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RayNodes, Path]]:
    """A head with an autoscaler that may start three nodes with a GPU; its trace is the one in this folder."""
    folder = tmp_path_factory.mktemp("grown")
    types = {"gpu": {"resources": {"CPU": 1, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 3}}
    nodes = RayNodes({"CLUSTER_TRACE": str(folder / "trace")}, types)
    try:
        yield nodes, folder
    finally:
        nodes.end()


@pytest.mark.parametrize("stage", [PLAIN, WARM], ids=["tasks", "models"])
def test_six_ready_gpu_steps_bring_all_gpu_nodes_there_may_be_and_their_end_sends_them_away_while_the_sweep_goes_on(
    grown: tuple[RayNodes, Path], tmp_path: Path, stage: str
) -> None:
    nodes, folder = grown
    (folder / "trace").unlink(missing_ok=True)
    text = GROWING.replace("STAGE", stage).replace("ALL", str(tmp_path / "all")).replace("GO", str(tmp_path / "go"))

    def gpus() -> int:
        return sum(int(each.get("GPU", 0)) for each in nodes.alive().values())

    with Sweeps(nodes, tmp_path, folder / "trace") as sweeps:
        assert gpus() == 0
        driver = sweeps.start(text)
        sweeps.wait_for(lambda: gpus() == 3, seconds=100)
        sweeps.wait_for(lambda: len(sweeps.spans("tune")) == 3)
        (tmp_path / "all").touch()
        sweeps.wait_for(lambda: sum(bool(each.end) for each in sweeps.spans("tune")) == 6)
        assert len({each.node for each in sweeps.spans("tune")}) == 3
        # The sweep still runs, on the head.
        sweeps.wait_for(lambda: not nodes.demand(), seconds=100)
        sweeps.wait_for(lambda: gpus() == 0, seconds=100)
        assert driver.running
        (tmp_path / "go").touch()
        driver.finish()
        driver.check_done_once()
        assert not nodes.demand()

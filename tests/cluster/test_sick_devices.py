"""A device on which every step fails does not swallow the queue."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from cluster_sweeps import Sweeps
from ray_nodes import RayNodes

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.faults]

#: Ten GPU steps, and one that goes on until the test has looked.
SICK = """\
axes: {x: RANGE}
stages:
  STAGE
  watch: {stage: placed_first, config: {trouble: wait, place: "GO"}}
  last: {stage: placed_next, inputs: {number: watch}}
results: [tune, last]
runtime: {tune: {cpus: 1, gpus: 1}}
""".replace("RANGE", str(list(range(10))))

PLAIN = 'tune: {stage: placed_first, config: {value: $x, seconds: 1, trouble: sick_device, place: "SICK"}}'
WARM = PLAIN.replace("placed_first", "placed_model").replace("value: $x", "value: $x, model: one")


@pytest.mark.parametrize("stage", [PLAIN, WARM], ids=["tasks", "models_that_stay_loaded"])
def test_one_sick_device_of_two_costs_two_tries_at_most_and_status_shows_that_it_gets_no_work(
    nodes: RayNodes, sweeps: Sweeps, tmp_path: Path, stage: str
) -> None:
    node = nodes.join(num_cpus=4, num_gpus=2)
    (tmp_path / "sick").write_text(f"{node}:1")
    text = SICK.replace("STAGE", stage).replace("SICK", str(tmp_path / "sick")).replace("GO", str(tmp_path / "go"))
    driver = sweeps.start(text)

    def failures() -> int:
        return sum(each.failed for each in sweeps.spans("tune"))

    sweeps.wait_for(lambda: sum(bool(each.end) for each in sweeps.spans("tune")) >= 10 + failures() or failures() > 2)
    status = driver.status()
    (tmp_path / "go").touch()
    tunes = sweeps.spans("tune")
    print("calls by device and whether they failed:", Counter((each.device, each.failed) for each in tunes))
    assert failures() <= 2, driver.printed
    driver.finish()
    driver.check_done_once()
    assert {each.device for each in tunes if each.failed} == {"1"}
    assert f"GPU 1 of node {node[:8]}" in status, status
    # What died there, died free of charge.
    assert {each.step for each in tunes if each.failed} <= {each.step for each in tunes if not each.failed}

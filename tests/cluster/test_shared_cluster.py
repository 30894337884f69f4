"""Two sweeps on one cluster share it."""

from __future__ import annotations

import pytest
from cluster_sweeps import Sweeps
from ray_nodes import RayNodes
from timeline import busy

pytestmark = [pytest.mark.ray, pytest.mark.long]

SHARED = """\
axes: {x: RANGE, y: [a, b, c, d, e, f]}
stages:
  tune: {stage: placed_first, config: {value: $x, seconds: 1}}
  fit: {stage: placed_next, inputs: {number: tune}, config: {label: $y, seconds: 0.3}}
results: [fit]
runtime: {default: {cpus: 1}, tune: {cpus: 1, gpus: 1}}
""".replace("RANGE", str(list(range(1, 31))))


def test_two_sweeps_on_one_cluster_share_its_gpus_and_cores_about_evenly(nodes: RayNodes, sweeps: Sweeps) -> None:
    nodes.join(num_cpus=8, num_gpus=2)
    early = sweeps.start(SHARED, "early")
    sweeps.wait_for(lambda: len(sweeps.spans("tune", "early")) > 4)
    late = sweeps.start(SHARED, "late")
    for driver in (early, late):
        driver.finish()
        driver.check_done_once()
    for entry, whole in (("tune", 2), ("fit", 6)):
        # From when the late one can have begun, until one of them has begun all it has.
        both = {name: sweeps.spans(entry, name) for name in ("early", "late")}
        begin = both["late"][0].begin
        end = min(spans[-1].begin for spans in both.values())
        used = (
            {name: busy(spans, begin, end) for name, spans in both.items()} if begin < end else {"early": 1, "late": 0}
        )
        share = used["late"] / sum(used.values())
        print(f"{entry}: {used} of {whole} at once over {end - begin:.0f} s; share of the late one {share:.0%}")
        assert 0.3 < share < 0.7

"""Two sweeps on one cluster share it."""

from __future__ import annotations

import pytest
from cluster_sweeps import Sweeps
from ray_nodes import RayNodes
from timeline import busy

pytestmark = [pytest.mark.ray, pytest.mark.long]

SHARED = """\
axes: {x: RANGE, y: [a, b, c, d]}
stages:
  tune: {stage: placed_model, config: {value: $x, model: one, seconds: 1}}
  fit: {stage: placed_first, config: {value: $x, label: $y, seconds: 0.3}}
results: [tune, fit]
runtime: {default: {cpus: 1}, tune: {cpus: 1, gpus: 1}}
""".replace("RANGE", str(list(range(1, 31))))


def test_two_sweeps_on_one_cluster_share_its_gpus_and_cores_about_evenly(nodes: RayNodes, sweeps: Sweeps) -> None:
    nodes.join(num_cpus=4, num_gpus=2)
    early = sweeps.start(SHARED, "early")
    sweeps.wait_for(lambda: len(sweeps.spans("tune", "early")) > 2)
    late = sweeps.start(SHARED, "late")
    for driver in (early, late):
        driver.finish()
        driver.check_done_once()
    begin = sweeps.spans(sweep="late")[0].begin
    shares = {}
    for entry in ("tune", "fit"):
        # While both have work that has not begun.
        both = {name: sweeps.spans(entry, name) for name in ("early", "late")}
        end = min(spans[-1].begin for spans in both.values())
        used = {name: busy(spans, begin, end) for name, spans in both.items()}
        shares[entry] = used["late"] / sum(used.values())
        print(f"{entry}: {used} at once over {end - begin:.0f} s; share of the late one {shares[entry]:.0%}")
    assert all(0.3 < each < 0.7 for each in shares.values())


#: Steps that take a core each, more than are handed out before the drivers know of each other.
CROWDED = """\
axes: {x: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]}
stages: {fit: {stage: placed_first, config: {value: $x, seconds: 1}}}
results: [fit]
runtime: {default: {cpus: 1}}
"""


def test_three_sweeps_on_two_cores_have_less_than_a_core_each_and_all_get_on(nodes: RayNodes, sweeps: Sweeps) -> None:
    nodes.join(num_cpus=2)
    drivers = [sweeps.start(CROWDED, name) for name in ("one", "two", "three")]
    for driver in drivers:
        driver.finish()
        driver.check_done_once()
    spans = sweeps.spans("fit")
    used = busy(spans, spans[0].begin, spans[-1].begin)
    print(f"{used:.2f} of 2 cores busy")
    assert used > 1.5


#: More GPU steps than one turn has room for.
IN_TURNS = """\
axes: {x: RANGE}
stages: {tune: {stage: placed_model, config: {value: $x, model: one, seconds: 1}}}
results: [tune]
runtime: {default: {cpus: 1, gpus: 1}}
""".replace("RANGE", str(list(range(1, 26))))


def test_two_sweeps_have_the_only_gpu_in_turns(nodes: RayNodes, sweeps: Sweeps) -> None:
    nodes.join(num_cpus=2, num_gpus=1)
    early = sweeps.start(IN_TURNS, "early", CYCLE="16")
    sweeps.wait_for(lambda: len(sweeps.spans("tune", "early")) > 1)
    late = sweeps.start(IN_TURNS, "late", CYCLE="16")
    for driver in (early, late):
        driver.finish()
        driver.check_done_once()
    both = {name: sweeps.spans("tune", name) for name in ("early", "late")}
    begin, end = both["late"][0].begin, min(spans[-1].begin for spans in both.values())
    used = {name: busy(spans, begin, end) for name, spans in both.items()}
    order = "".join(name[0] for _, name in sorted((span.begin, name) for name in both for span in both[name]))
    print(f"{used} over {end - begin:.0f} s: {order}")
    assert 0.3 < used["late"] / sum(used.values()) < 0.7

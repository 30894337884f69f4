"""GPU steps come first: no CPU work keeps them from their cores, and CPU work fills what they leave."""

from __future__ import annotations

import pytest
from cluster_sweeps import STARVED, Sweeps
from ray_nodes import RayNodes
from timeline import at_once, busy

pytestmark = [pytest.mark.ray, pytest.mark.long]


def test_whatever_cpu_work_is_queued_a_ready_gpu_step_is_given_cores_at_once_and_cpu_work_fills_what_is_left(
    nodes: RayNodes, sweeps: Sweeps
) -> None:
    nodes.join(num_cpus=8, num_gpus=2)
    driver = sweeps.start(STARVED)
    driver.finish()
    driver.check_done_once()
    ready = {each.value: each.end for each in sweeps.spans("prepare")}
    tunes, fits = sweeps.spans("tune"), sweeps.spans("fit")
    waits, stolen = [], []
    for number, tune in enumerate(tunes):
        # It was ready, and of the two GPUs one was free, since all steps but one had ended that were there before it.
        ends = sorted(each.end for each in tunes[:number] if each.end)
        due = max(ready[tune.value], ends[-2]) if number > 1 else ready[tune.value]
        waits.append(tune.begin - due)
        stolen.append(sum(due < fit.begin < tune.begin for fit in fits))
    first, last = min(ready.values()), max(each.end for each in tunes)
    share = busy(tunes, first, last) / 2
    print("waits of GPU steps for cores, with the start of a process:", [round(each, 1) for each in waits])
    print("CPU steps that began meanwhile:", stolen)
    print(f"GPUs busy {share:.0%} of {last - first:.1f} s; CPU steps at once beside GPU steps:")
    # With both GPUs taken, their steps have all cores: no more begins than what was on its way to the cores.
    assert max(stolen[:-1]) <= 8
    # Beside the last one, which is alone, four cores are left, and used; it need not wait for its own.
    alone = tunes[-1]
    beside = [each for each in fits if alone.begin - waits[-1] < each.begin < alone.end]
    print(f"  {busy(fits, alone.begin, alone.end):.1f} on average, {at_once(beside)} at most")
    assert busy(fits, alone.begin, alone.end) > 2
    assert all(sum(one.covers(each.begin) for one in fits) <= 4 for each in beside)

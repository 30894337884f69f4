"""A night on machines that may be taken away, rehearsed: `python tests/cluster/rehearse_cluster.py --seconds 600`.

One sweep of toy stages runs on four nodes, each of which is lost with a chance of 30 % in an hour; the night has eight
hours, which are squeezed into so many seconds. Every second loss is announced: ten seconds before it the node is
drained, as spot machines are. Half an hour after it another node is there. Once an hour a device is sick, for half an
hour: everything on it fails with a CUDA error. It prints what happened, and fails if a step is missing, was committed
twice, or failed for good.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
# As tests/conftest.py has it.
os.environ.update(RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0", OMP_NUM_THREADS="1")

from cluster_sweeps import Driver, Sweeps
from ray_nodes import RayNodes
from timeline import busy

#: A tune step has a process of its own, an ask step one that keeps a model; fits need no GPU.
SWEEP = """\
axes: {x: XS, y: [a, b, c, d]}
stages:
  prepare: {stage: placed_first, config: {value: $x, seconds: 0.3}}
  tune: {stage: placed_next, inputs: {number: prepare}, config: {seconds: 1, trouble: sick_device, place: "SICK"}}
  ask: {stage: placed_model, config: {value: $x, model: one, seconds: 1, trouble: sick_device, place: "SICK"}}
  fit: {stage: placed_first, config: {value: $x, label: $y, seconds: 0.5}}
results: [tune, ask, fit]
runtime: {default: {cpus: 1}, tune: {cpus: 1, gpus: 1}, ask: {cpus: 1, gpus: 1}}
"""

HOURS = 8
LOSSES_PER_HOUR = 0.3
NODES = 4
DEVICES = 2


class Night:
    """What befalls the nodes of a sweep."""

    def __init__(self, nodes: RayNodes, sick: Path, seconds: float, seed: int) -> None:
        self._nodes = nodes
        self._sick = sick
        self._hour = seconds / HOURS
        self._chance = random.Random(seed)
        self._start = time.monotonic()
        self._due: list[tuple[float, str, str]] = []
        """What is to happen: (seconds from the start, what, node or device)."""
        self.counts: Counter[str] = Counter()
        for _ in range(NODES):
            self._join()
        self._plan("sicken", self._hour / 2)

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._start:6.0f} s  {text}", flush=True)

    def pass_by(self) -> None:
        """Let happen what is due."""
        now = time.monotonic() - self._start
        due = sorted(each for each in self._due if each[0] <= now)
        self._due = [each for each in self._due if each[0] > now]
        for _, name, about in due:
            getattr(self, f"_{name}")(*([about] if about else []))

    def _plan(self, name: str, seconds: float, about: str = "") -> None:
        self._due.append((time.monotonic() - self._start + seconds, name, about))

    def _happen(self, name: str, text: str) -> None:
        self.counts[name] += 1
        self.say(text)

    def _join(self) -> None:
        node = self._nodes.join(num_cpus=4, num_gpus=DEVICES)
        self._happen("joined", f"node {node[:6]} joined")
        life = self._chance.expovariate(LOSSES_PER_HOUR) * self._hour
        if self._chance.random() < 0.5:
            # Not squeezed: a step takes as long as otherwise.
            self._plan("drain", max(0.0, life - 10), node)
        self._plan("lose", life, node)

    def _drain(self, node: str) -> None:
        self._happen("drained", f"node {node[:6]} is drained")
        self._nodes.drain(node, 10)

    def _lose(self, node: str) -> None:
        self._happen("lost", f"node {node[:6]} is lost")
        self._nodes.crash(node)
        self._plan("join", self._hour / 2)

    def _sicken(self) -> None:
        if joined := self._nodes.joined():
            device = f"{self._chance.choice(joined)}:{self._chance.randrange(DEVICES)}"
            self._sick.write_text(device)
            self._happen("sick", f"device {device[:6]}:{device[-1]} is sick")
        self._plan("heal", self._hour / 2)

    def _heal(self) -> None:
        self._sick.write_text("")
        self.say("no device is sick")
        self._plan("sicken", self._hour / 2)


def report(night: Night, driver: Driver, sweeps: Sweeps) -> None:
    """What it cost."""
    spans = sweeps.spans()
    gpu = [each for each in spans if each.device]
    end = max(each.end for each in spans if each.end)
    lost, failed = (Counter(each.entry for each in spans if one(each)) for one in (_is_lost, lambda each: each.failed))
    night.say(f"nodes: {dict(night.counts)}")
    night.say(
        f"calls: {dict(Counter(each.entry for each in spans))}; lost {dict(lost)}; failed when sick {dict(failed)}"
    )
    night.say(f"attempts on record: {dict(Counter(each.outcome.value for each in driver.attempts()))}")
    used = busy([each for each in gpu if not _is_lost(each)], gpu[0].begin, end)
    night.say(f"steps held {used:.1f} of at most {NODES * DEVICES} GPUs at once on average")


def _is_lost(span: object) -> bool:
    return getattr(span, "end", None) is None


def main(seconds: float, seed: int) -> None:
    """Play the night, and look in the morning."""
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as place:
        folder, trace = Path(place), Path(place, "trace")
        sick = folder / "sick"
        sick.write_text("")
        # What takes about so many seconds on two cores, most of which go into starting processes.
        xs = list(range(max(8, int(seconds / 5))))
        nodes = RayNodes({"CLUSTER_TRACE": str(trace)})
        try:
            with Sweeps(nodes, folder, trace) as sweeps:
                night = Night(nodes, sick, seconds, seed)
                driver = sweeps.start(SWEEP.replace("XS", str(xs)).replace("SICK", str(sick)), "night")
                while driver.running:
                    night.pass_by()
                    time.sleep(0.2)
                report(night, driver, sweeps)
                driver.finish()
                driver.check_done_once()
                night.say(f"{len(xs) * 4} cells: every step was done once")
        finally:
            nodes.end()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=19)
    given = parser.parse_args()
    main(given.seconds, given.seed)

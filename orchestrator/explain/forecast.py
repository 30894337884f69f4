"""What the steps that are to be run will probably cost, told from finished steps that cost alike."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

import numpy as np

from orchestrator.explain.estimator import Estimator, missing_steps, runtimes
from orchestrator.explain.eta import Eta
from orchestrator.run.schedule import Schedule
from orchestrator.store import Store
from orchestrator.types import Runtime


@dataclass(frozen=True, slots=True)
class Cost:
    """What the steps of an entry that are to be run will probably use, so far as that is known."""

    seconds: float
    """Of one step, on average."""
    known: int
    """How many finished steps say so."""
    unknown: int
    """Steps to be run of which nobody knows what they cost; nothing here counts them."""
    cpu_hours: float
    gpu_hours: float
    bytes: float
    """On disk."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The cost of what is to be run; entries of which no step is known to cost anything are left out."""

    costs: dict[str, Cost]
    eta: Eta
    """Wall time."""


def forecast(schedule: Schedule, store: Store, cpus: float, gpus: float) -> Forecast:
    """Estimate what the steps that are to be run will cost on machines with so many CPU cores and GPUs.

    Raises:
        StoreError: the store cannot be read.
    """
    plan, to_run = schedule.plan, missing_steps(schedule)
    estimator = Estimator(schedule, lambda runtime: _slots(runtime, cpus, gpus))
    finished = estimator.read_finished(store)
    costs = {}
    for name, numbers in to_run.items():
        seconds = cpu_seconds = gpu_seconds = size = 0.0
        known = unknown = 0
        for kind, mine in estimator.likeness.split(numbers).items():
            manifests = finished[name].get(kind, [])
            if not manifests:
                unknown += len(mine)
                continue
            known += len(manifests)
            together = len(mine) * fmean(each.seconds for each in manifests)
            seconds += together
            size += len(mine) * fmean(sum(size for size, _ in each.files.values()) for each in manifests)
            used = runtimes(plan, mine)
            cpu_seconds += together * sum(each.cpus * count for each, count in used.items()) / used.total()
            gpu_seconds += together * sum(each.gpus * count for each, count in used.items()) / used.total()
        if known:
            mean = seconds / (len(numbers) - unknown)
            costs[name] = Cost(mean, known, unknown, cpu_seconds / 3600, gpu_seconds / 3600, size)
    missing = np.concatenate(list(to_run.values())) if to_run else np.zeros(0, np.int64)
    return Forecast(costs, estimator.throughput.eta(estimator.likeness.count(missing)))


def _slots(runtime: Runtime, cpus: float, gpus: float) -> float:
    """Return how many such steps so many cores and GPUs run at once; one, however few there are."""
    return max(1.0, min(cpus // runtime.cpus, gpus // runtime.gpus if runtime.gpus else float("inf")))

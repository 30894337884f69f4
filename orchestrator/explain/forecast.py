"""What the steps that are to be run will probably cost, told from finished steps that cost alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from orchestrator.explain.estimator import Estimator, by_entry, missing_steps, runtimes
from orchestrator.explain.eta import Eta
from orchestrator.explain.likeness import Likeness
from orchestrator.plan.columns import Plan
from orchestrator.plan.grid import Mask
from orchestrator.run.schedule import Schedule
from orchestrator.store import Store
from orchestrator.types import Manifest, Runtime


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
    coming: dict[str, Cost]
    """The cost of what may come."""
    coming_eta: Eta
    """Wall time of what is to be run and all that may come."""


def forecast(schedule: Schedule, store: Store, cpus: float, gpus: float, coming: Mask) -> Forecast:
    """Estimate what the steps that are to be run will cost on machines with so many CPU cores and GPUs.

    Args:
        schedule: the steps.
        store: where finished steps like them are looked for.
        cpus: cores of the machines.
        gpus: GPUs of the machines.
        coming: mask of the steps that studies may add.

    Raises:
        StoreError: the store cannot be read.
    """
    estimator = Estimator(schedule, lambda runtime: _slots(runtime, cpus, gpus))
    finished = estimator.read_finished(store, coming)

    def costs(steps: dict[str, np.ndarray]) -> dict[str, Cost]:
        each = {
            name: _cost(schedule.plan, estimator.likeness, numbers, finished[name]) for name, numbers in steps.items()
        }
        return {name: cost for name, cost in each.items() if cost}

    def eta(steps: dict[str, np.ndarray]) -> Eta:
        numbers = np.concatenate(list(steps.values())) if steps else np.zeros(0, np.int64)
        return estimator.throughput.eta(estimator.likeness.count(numbers))

    certain = missing_steps(schedule)
    possible = by_entry(schedule.plan, coming)
    return Forecast(costs(certain), eta(certain), costs(possible), eta(missing_steps(schedule, coming)))


def _cost(
    plan: Plan, likeness: Likeness, numbers: np.ndarray, finished: Mapping[str, Sequence[Manifest]]
) -> Cost | None:
    """Return the cost of some steps of an entry, given finished steps by kind; None where nothing is known of it."""
    seconds = cpu_seconds = gpu_seconds = size = 0.0
    known = unknown = 0
    for kind, mine in likeness.split(numbers).items():
        manifests = finished.get(kind, ())
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
    if not known:
        return None
    mean = seconds / (len(numbers) - unknown)
    return Cost(mean, known, unknown, cpu_seconds / 3600, gpu_seconds / 3600, size)


def _slots(runtime: Runtime, cpus: float, gpus: float) -> float:
    """Return how many such steps so many cores and GPUs run at once; one, however few there are."""
    return max(1.0, min(cpus // runtime.cpus, gpus // runtime.gpus if runtime.gpus else float("inf")))

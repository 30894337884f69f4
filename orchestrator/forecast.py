"""What the rest of a sweep will cost, told from steps that were run before."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from orchestrator.pace import Left, Pace
from orchestrator.plan import Plan
from orchestrator.schedule import Schedule, State
from orchestrator.store import Store
from orchestrator.types import Manifest, Runtime

#: So many steps tell of an entry: their mean is then good to a tenth of their spread.
_SAMPLE = 100


@dataclass(frozen=True, slots=True)
class Cost:
    """What the steps of an entry that are to be run will probably use."""

    seconds: float
    """Of one step."""
    known: int
    """How many steps of the past say so."""
    cpu_hours: float
    gpu_hours: float
    bytes: float
    """On disk."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The cost of what is to be run; entries of which no step was ever run are not in it."""

    costs: dict[str, Cost]
    left: Left
    """Wall time."""


def past_steps(schedule: Schedule, store: Store) -> dict[str, list[Manifest]]:
    """Some finished steps like those of each entry that has something to run: of this sweep, else of the same stage."""
    plan = schedule.plan
    to_run = _to_run(schedule)
    kinds = {name: {v.kind for v in plan.by_entry[name].wired.variants if v} for name in to_run}
    listed = store.committed({kind for each in kinds.values() for kind in each})
    chosen = {}
    for position, name in enumerate(plan.entries):
        if name not in to_run:
            continue
        own = np.flatnonzero((plan.home == position) & schedule.committed)
        addresses = [plan.address(int(number)) for number in _some(own)]
        if not addresses:
            others = sorted(address for address in listed if address.stage in kinds[name])
            addresses = [others[int(index)] for index in _some(np.arange(len(others)))]
        chosen[name] = addresses
    read = store.manifests({address for each in chosen.values() for address in each})
    found: dict[str, list[Manifest]] = {}
    for name, addresses in chosen.items():
        manifests = [read[address] for address in addresses]
        found[name] = [each for each in manifests if isinstance(each, Manifest)]
    return found


def forecast(schedule: Schedule, store: Store, cpus: float, gpus: float) -> Forecast:
    """What the steps that are to be run will cost on machines with so many CPU cores and GPUs."""
    plan, to_run = schedule.plan, _to_run(schedule)
    runtimes = {name: _runtimes(plan, numbers) for name, numbers in to_run.items()}
    typical = {name: max(each, key=lambda runtime: each[runtime]) for name, each in runtimes.items()}
    pace = Pace(
        {name: slots(runtime, cpus, gpus) for name, runtime in typical.items()},
        frozenset(name for name, runtime in typical.items() if runtime.gpus),
    )
    costs = {}
    for name, manifests in past_steps(schedule, store).items():
        for manifest in manifests:
            pace.note(name, manifest.seconds)
        if not manifests:
            continue
        seconds = fmean(each.seconds for each in manifests)
        size = fmean(sum(size for size, _ in each.files.values()) for each in manifests)
        steps, some = len(to_run[name]), runtimes[name].total()
        hours = steps * seconds / 3600
        costs[name] = Cost(
            seconds=seconds,
            known=len(manifests),
            cpu_hours=hours * sum(runtime.cpus * count for runtime, count in runtimes[name].items()) / some,
            gpu_hours=hours * sum(runtime.gpus * count for runtime, count in runtimes[name].items()) / some,
            bytes=steps * size,
        )
    return Forecast(costs, pace.left({name: len(numbers) for name, numbers in to_run.items()}))


def slots(runtime: Runtime, cpus: float, gpus: float) -> float:
    """How many such steps so many cores and GPUs run at once; one, however few there are."""
    return max(1.0, min(cpus // runtime.cpus, gpus // runtime.gpus if runtime.gpus else float("inf")))


def _to_run(schedule: Schedule) -> dict[str, np.ndarray]:
    missing = schedule.needed & (schedule.codes != State.COMMITTED)
    of_entries = {
        name: np.flatnonzero(missing & (schedule.plan.home == position))
        for position, name in enumerate(schedule.plan.entries)
    }
    return {name: numbers for name, numbers in of_entries.items() if len(numbers)}


def _some(numbers: np.ndarray) -> np.ndarray:
    """At most so many, spread evenly."""
    if len(numbers) <= _SAMPLE:
        return numbers
    return numbers[np.linspace(0, len(numbers) - 1, _SAMPLE).astype(np.int64)]


def _runtimes(plan: Plan, numbers: np.ndarray) -> Counter[Runtime]:
    name = plan.entry_of(int(numbers[0]))
    return Counter(plan.spec.runtime_of(name, plan.coords(int(number))) for number in _some(numbers))

"""What the rest of a sweep will cost, told from steps that were run before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from orchestrator.explain.eta import Left, Pace
from orchestrator.plan.columns import Plan
from orchestrator.plan.grid import Mask
from orchestrator.run.schedule import Schedule
from orchestrator.store import Store
from orchestrator.types import Artifact, Manifest, Runtime

#: At least so many steps are asked in an entry, if there are as many: their mean is good to a tenth of their spread.
_SAMPLE = 100


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
    """The cost of what is to be run; entries of which no step is known to cost anything are not in it."""

    costs: dict[str, Cost]
    left: Left
    """Wall time."""


def past_steps(schedule: Schedule, store: Store) -> dict[str, dict[str, list[Manifest]]]:
    """Some finished steps that cost like those that are to be run, of this sweep, else of others.

    Returns:
        entry -> kind (`Likeness`) -> manifests. A kind of which no step was ever finished is not there.
    """
    plan, alike = schedule.plan, schedule.likeness
    to_run = {name: alike.split(numbers) for name, numbers in _to_run(schedule).items()}
    finished = alike.split(np.flatnonzero(schedule.committed))
    chosen: dict[str, dict[str, list[Artifact]]] = {}
    strangers: dict[str, set[str]] = {}
    for name, kinds in to_run.items():
        known = [kind for kind in kinds if kind in finished]
        few = max(1, _SAMPLE // max(len(known), 1))
        chosen[name] = {
            kind: [plan.address(number) for number in _some(finished[kind], few).tolist()] for kind in known
        }
        for kind in kinds.keys() - known:
            strangers.setdefault(plan.address(int(kinds[kind][0])).stage, set()).add(kind)
    elsewhere = _elsewhere(schedule, store, strangers)
    for name, kinds in to_run.items():
        chosen[name] |= {kind: elsewhere[kind] for kind in kinds if kind in elsewhere}
    read = store.manifests({address for kinds in chosen.values() for each in kinds.values() for address in each})
    found: dict[str, dict[str, list[Manifest]]] = {}
    for name, addresses in chosen.items():
        told = {kind: [read[address] for address in each] for kind, each in addresses.items()}
        whole = {kind: [each for each in manifests if isinstance(each, Manifest)] for kind, manifests in told.items()}
        found[name] = {kind: manifests for kind, manifests in whole.items() if manifests}
    return found


def _elsewhere(schedule: Schedule, store: Store, wanted: Mapping[str, Set[str]]) -> dict[str, list[Artifact]]:
    """Kind -> some finished steps of that kind that are not of this sweep; looks at some of each stage only.

    Args:
        schedule: of this sweep.
        store: where.
        wanted: stage -> kinds.
    """
    listed = store.committed(wanted)
    asked = []
    for stage in wanted:
        others = sorted(each for each in listed if each.stage == stage and schedule.plan.number(each) is None)
        asked += [others[index] for index in _some(np.arange(len(others)), _SAMPLE).tolist()]
    found: dict[str, list[Artifact]] = {}
    for address, kind in schedule.likeness.kinds_in(store, asked).items():
        if kind in wanted[address.stage]:
            found.setdefault(kind, []).append(address)
    return found


def forecast(schedule: Schedule, store: Store, cpus: float, gpus: float) -> Forecast:
    """What the steps that are to be run will cost on machines with so many CPU cores and GPUs."""
    plan, to_run = schedule.plan, _to_run(schedule)
    past = past_steps(schedule, store)
    typical = {name: _runtimes(plan, numbers).most_common(1)[0][0] for name, numbers in to_run.items()}
    pace = Pace(
        {name: slots(runtime, cpus, gpus) for name, runtime in typical.items()},
        frozenset(name for name, runtime in typical.items() if runtime.gpus),
    )
    costs = {}
    for name, numbers in to_run.items():
        seconds = cpu_seconds = gpu_seconds = size = 0.0
        known = unknown = 0
        for kind, mine in schedule.likeness.split(numbers).items():
            manifests = past[name].get(kind, [])
            if not manifests:
                unknown += len(mine)
                continue
            known += len(manifests)
            for manifest in manifests:
                pace.note(name, kind, manifest.seconds)
            together = len(mine) * fmean(each.seconds for each in manifests)
            seconds += together
            size += len(mine) * fmean(sum(size for size, _ in each.files.values()) for each in manifests)
            runtimes = _runtimes(plan, mine)
            cpu_seconds += together * sum(each.cpus * count for each, count in runtimes.items()) / runtimes.total()
            gpu_seconds += together * sum(each.gpus * count for each, count in runtimes.items()) / runtimes.total()
        if known:
            mean = seconds / (len(numbers) - unknown)
            costs[name] = Cost(mean, known, unknown, cpu_seconds / 3600, gpu_seconds / 3600, size)
    ahead = schedule.likeness.count(np.flatnonzero(_missing(schedule)))
    return Forecast(costs, pace.left({name: ahead[name] for name in to_run}))


def slots(runtime: Runtime, cpus: float, gpus: float) -> float:
    """How many such steps so many cores and GPUs run at once; one, however few there are."""
    return max(1.0, min(cpus // runtime.cpus, gpus // runtime.gpus if runtime.gpus else float("inf")))


def _missing(schedule: Schedule) -> Mask:
    return schedule.needed & ~schedule.committed


def _to_run(schedule: Schedule) -> dict[str, np.ndarray]:
    missing = _missing(schedule)
    of_entries = {
        name: np.flatnonzero(missing & (schedule.plan.home == position))
        for position, name in enumerate(schedule.plan.entries)
    }
    return {name: numbers for name, numbers in of_entries.items() if len(numbers)}


def _some(numbers: np.ndarray, few: int) -> np.ndarray:
    """At most so many, spread evenly."""
    if len(numbers) <= few:
        return numbers
    return numbers[np.linspace(0, len(numbers) - 1, few).astype(np.int64)]


def _runtimes(plan: Plan, numbers: np.ndarray) -> Counter[Runtime]:
    """How (some of) the steps of an entry are run."""
    name = plan.entry_of(int(numbers[0]))
    # Where no rule speaks of coordinates, one step stands for all.
    few = _SAMPLE if plan.spec.runtime_axes(name) else 1
    return Counter(plan.spec.runtime_of(name, plan.coords(int(number))) for number in _some(numbers, few))

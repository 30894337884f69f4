"""The time that a schedule still takes: learned from finished steps, and from the logs of running ones."""

from __future__ import annotations

import contextlib
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.explain.eta import Eta
from orchestrator.explain.likeness import Likeness
from orchestrator.explain.throughput import Throughput
from orchestrator.plan.columns import Plan
from orchestrator.plan.grid import Mask
from orchestrator.run.schedule import Schedule, State
from orchestrator.store import Store, StoreError
from orchestrator.store.records import name_of_record
from orchestrator.types import Artifact, Attempt, Manifest, Outcome, Runtime
from workers.progress import EVERY, StepProgress, read_progress

#: At least so many finished steps are read of an entry, if it has as many: their mean is good to a tenth of their
#: spread.
_SAMPLE = 100
#: At most so many running steps of an entry are looked at, and so many bytes are read of the end of a log.
_LOOKED_AT, _TAIL = 64, 8192
#: Steps that take less (seconds) log little before they are done.
_LONG = 2 * EVERY


class Estimator:
    """Estimates the time that is left of a schedule, and follows the schedule while it is run."""

    def __init__(self, schedule: Schedule, slots: Callable[[Runtime], float]) -> None:
        """Start with nothing known.

        Args:
            schedule: the steps that are to be run.
            slots: how many steps with a runtime the machines run at once.
        """
        plan, to_run = schedule.plan, missing_steps(schedule)
        typical = {}
        for name, entry in plan.by_entry.items():
            numbers = to_run.get(name, np.arange(entry.first, entry.last))
            typical[name] = runtimes(plan, numbers).most_common(1)[0][0] if len(numbers) else Runtime()
        self._schedule = schedule
        self.likeness = Likeness(plan)
        self.throughput = Throughput(
            {name: float(slots(runtime)) for name, runtime in typical.items()},
            frozenset(name for name, runtime in typical.items() if runtime.gpus),
        )

    def read_finished(self, store: Store, coming: Mask | None = None) -> dict[str, dict[str, list[Manifest]]]:
        """Learn from some finished steps that cost like those that are to be run, of this sweep, else of others.

        Args:
            store: where to look.
            coming: mask of steps that may come, of which it is to be learnt too; None for none.

        Returns:
            entry -> kind (`Likeness`) -> their manifests. A kind of which no step was ever finished is not there.

        Raises:
            StoreError: the store cannot be read.
        """
        plan = self._schedule.plan
        steps = missing_steps(self._schedule, coming)
        to_run = {name: self.likeness.split(numbers) for name, numbers in steps.items()}
        finished = self.likeness.split(np.flatnonzero(self._schedule.committed))
        chosen: dict[str, dict[str, list[Artifact]]] = {}
        strangers: dict[str, set[str]] = {}
        for name, kinds in to_run.items():
            known = [kind for kind in kinds if kind in finished]
            few = max(1, _SAMPLE // max(len(known), 1))
            chosen[name] = {kind: list(map(plan.address, sample(finished[kind], few).tolist())) for kind in known}
            for kind in kinds.keys() - known:
                strangers.setdefault(plan.address(int(kinds[kind][0])).stage, set()).add(kind)
        elsewhere = self._find_elsewhere(store, strangers)
        for name, kinds in to_run.items():
            chosen[name] |= {kind: elsewhere[kind] for kind in kinds if kind in elsewhere}
        read = store.manifests({address for kinds in chosen.values() for each in kinds.values() for address in each})
        found: dict[str, dict[str, list[Manifest]]] = {name: {} for name in chosen}
        for name, addresses in chosen.items():
            for kind, each in addresses.items():
                manifests = [manifest for address in each if isinstance(manifest := read[address], Manifest)]
                if manifests:
                    found[name][kind] = manifests
                for manifest in manifests:
                    self.throughput.add(name, kind, manifest.seconds)
        return found

    def _find_elsewhere(self, store: Store, wanted: Mapping[str, Set[str]]) -> dict[str, list[Artifact]]:
        """Return, by kind, some finished steps that are not of this sweep; looks at some of each stage only.

        Args:
            store: where to look.
            wanted: stage -> kinds.
        """
        listed = store.committed(wanted)
        candidates = []
        for stage in wanted:
            others = sorted(each for each in listed if each.stage == stage and self._schedule.plan.number(each) is None)
            candidates += [others[index] for index in sample(np.arange(len(others)), _SAMPLE).tolist()]
        found: dict[str, list[Artifact]] = {}
        for address, kind in self.likeness.kinds_in(store, candidates).items():
            if kind in wanted[address.stage]:
                found.setdefault(kind, []).append(address)
        return found

    def note(self, attempt: Attempt) -> None:
        """Take in an attempt that has just ended; only those that succeeded tell anything."""
        if attempt.outcome is Outcome.SUCCEEDED:
            number = self._schedule.plan.number(attempt.address)
            assert number is not None, "only steps of this plan are run"
            self.throughput.finish(attempt.entry, self.likeness.kind(number), attempt.seconds)

    def read_logs(self, store: Store) -> None:
        """Learn how far running steps are, where steps take long or nobody knows how long.

        Reads only logs that this machine can read: all of them where nodes share the store's folder. A step that was
        sent and is not begun yet says nothing.
        """
        schedule, plan = self._schedule, self._schedule.plan
        under_way = np.flatnonzero(schedule.codes == State.RUNNING)
        for position, name in enumerate(plan.entries):
            kinds = {
                kind: numbers
                for kind, numbers in self.likeness.split(under_way[plan.home[under_way] == position]).items()
                if (usual := self.throughput.seconds(name, kind)) is None or usual >= _LONG
            }
            few = max(1, _LOOKED_AT // max(len(kinds), 1))
            chosen = {kind: list(map(plan.address, numbers[:few].tolist())) for kind, numbers in kinds.items()}
            logs = _latest_logs(store, [address for each in chosen.values() for address in each])
            running = {}
            for kind, addresses in chosen.items():
                read = [each for address in addresses if address in logs and (each := _read_log(logs[address]))]
                if read:
                    share = statistics.fmean(each.share for each in read)
                    seconds = statistics.fmean(each.seconds for each in read)
                    count = round(len(kinds[kind]) * len(read) / len(addresses))
                    running[kind] = count, StepProgress(share, seconds)
            self.throughput.set_running(name, running)

    def eta(self) -> Eta:
        """Return the time that the chosen steps take which have yet to end."""
        return self.throughput.eta(self._ahead())

    def etas(self) -> dict[str, Eta]:
        """Return the same for each entry alone."""
        return {name: self.throughput.eta({name: kinds}) for name, kinds in self._ahead().items()}

    def to_json(self) -> dict[str, Any]:
        """Return what other processes are told: rates and times per entry, and the time left of all."""
        ahead = self._ahead()
        return {"pace": self.throughput.to_json(ahead), "left": asdict(self.throughput.eta(ahead))}

    def _ahead(self) -> dict[str, dict[str, int]]:
        return self.likeness.count(np.flatnonzero(self._schedule.unfinished))


def missing_steps(schedule: Schedule, coming: Mask | None = None) -> dict[str, np.ndarray]:
    """Return the steps that are to be run, failed ones included, by entry; entries without any are left out.

    Args:
        schedule: the steps.
        coming: mask of others that are to be returned too; None for none.
    """
    missing = schedule.needed & ~schedule.committed
    return by_entry(schedule.plan, missing if coming is None else missing | coming)


def by_entry(plan: Plan, steps: Mask) -> dict[str, np.ndarray]:
    """Return the numbers of some steps by entry; entries without any are left out."""
    of_entries = {name: np.flatnonzero(steps & (plan.home == position)) for position, name in enumerate(plan.entries)}
    return {name: numbers for name, numbers in of_entries.items() if len(numbers)}


def runtimes(plan: Plan, numbers: np.ndarray) -> Counter[Runtime]:
    """Count the runtimes of (some of) the steps of one entry."""
    name = plan.entry_of(int(numbers[0]))
    # Where no rule speaks of coordinates, one step stands for all.
    few = _SAMPLE if plan.spec.runtime_axes(name) else 1
    return Counter(plan.spec.runtime_of(name, plan.coords(int(number))) for number in sample(numbers, few))


def sample(numbers: np.ndarray, few: int) -> np.ndarray:
    """Return at most so many of some numbers, spread evenly."""
    if len(numbers) <= few:
        return numbers
    return numbers[np.linspace(0, len(numbers) - 1, few).astype(np.int64)]


def _latest_logs(store: Store, addresses: Collection[Artifact]) -> dict[Artifact, Path]:
    """Return the logs of the latest attempts of some steps, of those that have one here; by one listing per stage."""
    latest: dict[str, tuple[int, Path]] = {}
    # A file of somebody else has no such name; the time left is not worth a sweep.
    with contextlib.suppress(OSError, StoreError, ValueError):
        for folder in {store.log_path(address, 1).parent for address in addresses}:
            for path in folder.iterdir():
                if record := name_of_record(path.name, "log"):
                    key, number = record
                    latest[key] = max(latest.get(key, (0, path)), (number, path))
    return {address: latest[address.key][1] for address in addresses if address.key in latest}


def _read_log(path: Path) -> StepProgress | None:
    """Read how far a step is from the end of its log."""
    with contextlib.suppress(OSError), path.open("rb") as log:
        log.seek(max(path.stat().st_size - _TAIL, 0))
        return read_progress(log.read().decode(errors="replace"))
    return None

"""`sweep gc`: delete the artifacts that no sweep uses, except pinned ones.

Which artifacts go is decided by sets alone (`divide`, `droppable`); `Survey` reads the store, `delete` changes it. A
driver that starts while artifacts are deleted finds them missing and makes them again; its numbers stay right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np

from orchestrator.attempt.checkpoints import step_of
from orchestrator.maintenance import Progress, ignore
from orchestrator.plan.build import build_plan
from orchestrator.plan.columns import Plan
from orchestrator.plan.needed import needed_steps
from orchestrator.results.heartbeat import read_heartbeat
from orchestrator.results.table import Results
from orchestrator.search.rounds import may_come
from orchestrator.search.studies import Studies
from orchestrator.session import Session
from orchestrator.store import Store, StoreError
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.texts import nearest
from orchestrator.types import Artifact, Manifest

#: Artifacts that are read or deleted between two reports of progress.
_BATCH = 500
NO_REFERENCES: Mapping[Artifact, Artifact] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Division:
    """The artifacts of a store, in two parts."""

    kept: Set[Artifact]
    doomed: Set[Artifact]


def divide(
    committed: Set[Artifact],
    reachable: Set[Artifact],
    pinned: Set[Artifact],
    dropped: Set[Artifact],
    references: Mapping[Artifact, Artifact] = NO_REFERENCES,
) -> Division:
    """Divide artifacts: kept is what some sweep uses and does not drop, what is pinned, and what these refer to.

    Args:
        committed: all that there are.
        reachable: what some sweep uses.
        pinned: what is kept in any case.
        dropped: what the sweeps can do without.
        references: artifact -> the one that it refers to.
    """
    kept = found = committed & ((reachable - dropped) | pinned)
    while found:
        found = (committed & {references[each] for each in found & references.keys()}) - kept
        kept |= found
    return Division(kept, committed - kept)


def reach(plans: Iterable[Plan]) -> set[Artifact]:
    """Collect all steps of some sweeps."""
    return {plan.address(number) for plan in plans for number in plan.known}


def droppable(plans: Sequence[Plan], drops: Iterable[str], whole: Set[Artifact]) -> set[Artifact]:
    """Find the artifacts of some entries that no sweep needs any more.

    What a step that is still to run reads stays, as do targets and what the results table reports. What lies above a
    committed artifact does not count, so that the sweeps have nothing to do afterwards if they had nothing before.

    Args:
        plans: the sweeps; an entry that only some of them have is dropped in those.
        drops: names of entries.
        whole: what is committed and can be read.

    Raises:
        SweepError: no sweep has such an entry, or it is a target or reported wherever there is one.
    """
    chosen: set[Artifact] = set()
    guarded: set[Artifact] = set()
    problems = []
    for name in drops:
        having = [plan for plan in plans if name in plan.entries]
        if not having:
            hint = nearest(name, dict.fromkeys(entry for plan in plans for entry in plan.entries))
            problems.append(Problem(f"--drop {name}", "", f"there is no such entry; {hint}"))
        elif all(name in plan.wanted for plan in having):
            others = dict.fromkeys(entry for plan in having for entry in plan.entries if entry not in plan.wanted)
            choice = ", ".join(others) or "nothing"
            message = f"is a target, or the results table reports it, so it is never dropped; choose from {choice}"
            problems.append(Problem(f"--drop {name}", "", message))
        for plan in having:
            chosen |= {plan.address(number) for number in np.flatnonzero(plan.steps_of(entries=[name])).tolist()}
    if problems:
        raise SweepError(problems)
    for plan in plans:
        guard = plan.steps_of(entries=plan.wanted)
        for number in np.flatnonzero(needed_steps(plan, plan.committed(whole))).tolist():
            guard[list(plan.parents(number))] = True
        guarded |= {plan.address(number) for number in np.flatnonzero(guard).tolist()}
    return chosen - guarded


@dataclass(frozen=True)
class Survey:
    """The contents of a store, and which of them are garbage."""

    division: Division
    sizes: dict[Artifact, int]
    """Bytes, as the manifests say; 0 where one is damaged."""
    records: Set[Artifact]
    """Steps whose attempt records and logs are garbage."""
    remains: dict[str, int]
    """Place -> bytes of what was set aside or never finished."""
    pins: dict[str, frozenset[Artifact]]

    def stages(self) -> dict[str, dict[str, int]]:
        """Count per stage the artifacts and bytes that are kept, and those to be deleted."""
        table: dict[str, dict[str, int]] = {}
        for part, addresses in (("kept", self.division.kept), ("delete", self.division.doomed)):
            for address in sorted(addresses):
                row = table.setdefault(address.stage, {"kept": 0, "kept_bytes": 0, "delete": 0, "delete_bytes": 0})
                row[part] += 1
                row[f"{part}_bytes"] += self.sizes[address]
        return dict(sorted(table.items()))

    def report(self) -> dict[str, Any]:
        """Convert to JSON."""
        return {
            "stages": self.stages(),
            "records": len(self.records),
            "remains": len(self.remains),
            "remains_bytes": sum(self.remains.values()),
            "pins": {name: len(pinned) for name, pinned in self.pins.items()},
        }

    @property
    def empty(self) -> bool:
        """Whether there is no garbage."""
        return not (self.division.doomed or self.records or self.remains)


def of_trials(session: Session) -> set[Artifact]:
    """Collect all that the suggested trials of a sweep may ever use.

    That is more than its plan has: with more trials another one may be the best, and be measured again where an earlier
    best one was.

    Raises:
        StoreError: the store cannot be read, or a record is damaged.
    """
    if not session.spec.searched:
        return set()
    studies = Studies(build_plan(session.spec))
    studies.read(session.store)
    for study in studies.all:
        for number, suggestion in study.history.suggestions.items():
            studies.join(study, suggestion, [*study.over[number], *study.fresh[number]])
    return reach([studies.plan])


def awaited(session: Session) -> set[Artifact]:
    """Collect what trials that may still come would read of what no trial alone has.

    Raises:
        StoreError: the store cannot be read, or a record is damaged.
    """
    if not session.spec.searched:
        return set()
    results = Results(session.plan, session.store, session.schedule, session.studies)
    results.look()
    results.read_failures()
    plan, marked = session.plan, np.zeros(len(session.plan), np.bool_)
    unfinished = []
    for study in session.studies.all:
        # Which says of each trial whether it has ended.
        list(study.trials(results))
        if may_come(study, plan.decided):
            unfinished.append(study)
    cells = [cell for study in unfinished for part in (*study.over, *study.fresh) for cell in part]
    for name in plan.entries:
        if not plan.by_entry[name].open:
            plan.mark(marked, plan.groups(name)[cells])
    return {plan.address(number) for number in np.flatnonzero(marked).tolist()}


def survey(
    plans: Sequence[Plan],
    store: Store,
    drops: Collection[str],
    progress: Progress = ignore,
    trials: Set[Artifact] = frozenset(),
    needed: Set[Artifact] = frozenset(),
) -> Survey:
    """Look through a store; nothing is changed.

    Args:
        plans: the sweeps whose artifacts stay.
        store: the store.
        drops: entries of which only what is still needed stays.
        progress: called with the number of manifests read so far, and of all.
        trials: what trials use beyond the plans (`of_trials`).
        needed: what is not dropped whatever it is of (`awaited`).

    Raises:
        SweepError: `drops` names no entry, or one that is never dropped.
        StoreError: the store or a pin cannot be read.
    """
    pins = dict(store.pins())
    pinned = frozenset[Artifact]().union(*pins.values())
    reachable = reach(plans) | trials
    stages = store.stages()
    committed = store.committed(stages)
    sizes: dict[Artifact, int] = {}
    whole: set[Artifact] = set()
    logs: dict[Artifact, Artifact] = {}
    references: dict[Artifact, Artifact] = {}
    for batch in _batches(committed):
        for address, found in store.manifests(batch).items():
            sizes[address] = 0
            if isinstance(found, Manifest):
                whole.add(address)
                sizes[address] = sum(size for size, _ in found.files.values())
                if found.refers_to:
                    references[address] = found.refers_to
                if found.log:
                    # An adopted artifact has its log under the key of the old one.
                    logs[address] = Artifact(address.stage, PurePosixPath(found.log).name.split(".")[0])
        progress(len(sizes), len(committed))
    unfinished = {each for each in committed if (step := step_of(each)) and step in reachable and step not in committed}
    reachable |= unfinished
    division = divide(committed, reachable, pinned, droppable(plans, drops, whole) - needed, references)
    kept_logs = {logs[address] for address in division.kept if address in logs}
    records = store.tried(stages) - reachable - pinned - kept_logs
    return Survey(division, sizes, records, dict(store.remains()), pins)


def delete(found: Survey, store: Store, progress: Progress = ignore) -> None:
    """Delete the garbage of a survey.

    Args:
        found: the survey.
        store: its store.
        progress: called with the number of artifacts deleted so far, and of all.

    Raises:
        StoreError: the store cannot be written; the same command goes on.
    """
    store.prepare()
    done = 0
    for batch in _batches(found.division.doomed):
        store.remove(batch)
        store.sweep()
        done += len(batch)
        progress(done, len(found.division.doomed))
    store.forget(found.records)
    store.clear(found.remains.keys())
    store.sweep(everywhere=True)
    store.tidy()


def refuse_if_a_driver_runs(session: Session) -> None:
    """Refuse to delete beside a driver, which may be about to read what would be deleted.

    A driver is seen by its claims on steps, and by its heartbeat if it shares the output root. The claim of a process
    of this machine and container that is gone does not count.

    Raises:
        StoreError: there is one, with the remedy.
    """
    store = session.store
    for address, claim in store.claims().items():
        if not claim.process.gone():
            place = f"{store.location}/claims/{address.stage}/{address.key}"
            raise StoreError(
                f"{claim} works on {address.stage}/{address.key}: a driver is running, so nothing was deleted; wait "
                f"for it and give the same command again. If that process is dead, `sweep run` of its sweep takes the "
                f"step over; or delete {place} yourself"
            )
    for name in _sweeps_under_way(session):
        raise StoreError(
            f"a driver of the sweep {name!r} is running, so nothing was deleted; wait for it and give the same "
            f"command again (a driver that crashed is forgotten after a few seconds)"
        )


def _sweeps_under_way(session: Session) -> list[str]:
    """The sweeps of this output root that have a living driver."""
    folder = session.outputs.root / "sweeps"
    return [path.name for path in folder.iterdir() if read_heartbeat(path)] if folder.is_dir() else []


def _batches(addresses: Collection[Artifact]) -> Iterator[list[Artifact]]:
    ordered = sorted(addresses)
    for start in range(0, len(ordered), _BATCH):
        yield ordered[start : start + _BATCH]


def collect(
    sessions: Sequence[Session],
    drops: Sequence[str],
    delete_it: bool,
    reading: Progress = ignore,
    deleting: Progress = ignore,
) -> dict[str, Any]:
    """Survey the store of some sweeps, and delete the garbage with `delete_it`; returns the numbers.

    Args:
        sessions: the sweeps whose artifacts stay.
        drops: entries of which only what is still needed stays.
        delete_it: delete; otherwise only look.
        reading: called with the number of manifests read so far, and of all.
        deleting: called with the number of artifacts deleted so far, and of all.

    Raises:
        SweepError: the sweeps lie in different stores, or an entry cannot be dropped.
        StoreError: the store cannot be read or written, or a driver runs.
    """
    session = sessions[0]
    if any(each.store.location != session.store.location for each in sessions):
        message = "its store is {}; name sweeps of one store, or give --store"
        raise SweepError([Problem(str(each.file), "", message.format(each.store.location)) for each in sessions])
    if delete_it:
        refuse_if_a_driver_runs(session)
    trials = set[Artifact]().union(*map(of_trials, sessions))
    needed = set[Artifact]().union(*map(awaited, sessions))
    found = survey([each.plan for each in sessions], session.store, drops, reading, trials, needed)
    if delete_it and not found.empty:
        # Reading a large store takes a while; somebody may have started a driver.
        refuse_if_a_driver_runs(session)
        delete(found, session.store, deleting)
    return {"store": session.store.location, "deleted": delete_it, **found.report()}


def deleting_command(sessions: Sequence[Session], drops: Iterable[str]) -> str:
    """Format the command that deletes what `collect` found."""
    first, *others = sessions
    dropped = [word for name in drops for word in ("--drop", name)]
    return first.command("gc", *(str(session.file) for session in others), *dropped, "--delete")

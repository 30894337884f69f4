"""`sweep gc`, `sweep pin`, `sweep unpin`: what no sweep reaches is deleted, what has a name is not.

Which artifacts go is decided by sets alone (`divide`, `droppable`); `Survey` reads the store, `delete` changes it. A
driver that starts while artifacts are deleted finds them missing and makes them again; its numbers stay right.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from orchestrator.cli import show_store as screen_store
from orchestrator.plan.columns import Plan
from orchestrator.results.heartbeat import read_heartbeat
from orchestrator.session import Session
from orchestrator.store import Store, StoreError
from orchestrator.store.claims import PATIENCE, parse_holder
from orchestrator.sweep.document import Problem, SweepError, nearest
from orchestrator.types import Artifact, Manifest

#: So many artifacts are read or deleted between two steps of a progress bar.
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Division:
    """All artifacts of a store, in two parts."""

    kept: Set[Artifact]
    doomed: Set[Artifact]


def divide(
    committed: Set[Artifact], reachable: Set[Artifact], pinned: Set[Artifact], dropped: Set[Artifact]
) -> Division:
    """What is kept: all that a sweep reaches, without what it is to drop, and all that is pinned."""
    kept = committed & ((reachable - dropped) | pinned)
    return Division(kept, committed - kept)


def reach(plans: Iterable[Plan]) -> set[Artifact]:
    """All steps of some sweeps."""
    return {plan.address(number) for plan in plans for number in range(len(plan))}


def droppable(plans: Sequence[Plan], drops: Iterable[str], whole: Set[Artifact]) -> set[Artifact]:
    """The artifacts of some entries that no sweep asks for any more.

    What a step that is still to run reads stays, as do targets and what the results table reports. What lies above a
    committed artifact is not looked at, so that the sweeps have nothing to do afterwards if they had nothing before.

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
        for number in np.flatnonzero(plan.needed(plan.committed(whole))).tolist():
            guard[list(plan.parents(number))] = True
        guarded |= {plan.address(number) for number in np.flatnonzero(guard).tolist()}
    return chosen - guarded


@dataclass(frozen=True)
class Survey:
    """What is in a store, and what of it is garbage."""

    division: Division
    sizes: dict[Artifact, int]
    """Bytes, as the manifests say; 0 where one is damaged."""
    records: Set[Artifact]
    """Steps whose attempt records and logs are garbage."""
    remains: dict[str, int]
    """Place -> bytes of what was set aside or never finished."""
    pins: dict[str, frozenset[Artifact]]

    def stages(self) -> dict[str, dict[str, int]]:
        """Per stage: artifacts and bytes that are kept, and that are to be deleted."""
        table: dict[str, dict[str, int]] = {}
        for part, addresses in (("kept", self.division.kept), ("delete", self.division.doomed)):
            for address in sorted(addresses):
                row = table.setdefault(address.stage, {"kept": 0, "kept_bytes": 0, "delete": 0, "delete_bytes": 0})
                row[part] += 1
                row[f"{part}_bytes"] += self.sizes[address]
        return dict(sorted(table.items()))

    def report(self) -> dict[str, Any]:
        """The numbers, for `--json`."""
        return {
            "stages": self.stages(),
            "records": len(self.records),
            "remains": len(self.remains),
            "remains_bytes": sum(self.remains.values()),
            "pins": {name: len(pinned) for name, pinned in self.pins.items()},
        }

    @property
    def empty(self) -> bool:
        """There is no garbage."""
        return not (self.division.doomed or self.records or self.remains)


def survey(plans: Sequence[Plan], store: Store, drops: Collection[str]) -> Survey:
    """Look through a store; nothing is changed.

    Raises:
        SweepError: `drops` names no entry, or one that is never dropped.
        StoreError: the store or a pin cannot be read.
    """
    pins = dict(store.pins())
    pinned = frozenset[Artifact]().union(*pins.values())
    reachable = reach(plans)
    stages = store.stages()
    committed = store.committed(stages)
    sizes: dict[Artifact, int] = {}
    whole: set[Artifact] = set()
    logs: dict[Artifact, Artifact] = {}
    with screen_store.bar("reading manifests") as advance:
        for batch in _batches(committed):
            for address, found in store.manifests(batch).items():
                sizes[address] = 0
                if isinstance(found, Manifest):
                    whole.add(address)
                    sizes[address] = sum(size for size, _ in found.files.values())
                    if found.log:
                        # An adopted artifact has its log under the key of the old one.
                        logs[address] = Artifact(address.stage, PurePosixPath(found.log).name.split(".")[0])
            advance(len(sizes), len(committed))
    division = divide(committed, reachable, pinned, droppable(plans, drops, whole))
    spoken_of = {logs[address] for address in division.kept if address in logs}
    records = store.tried(stages) - reachable - pinned - spoken_of
    return Survey(division, sizes, records, dict(store.remains()), pins)


def delete(found: Survey, store: Store) -> None:
    """Delete the garbage of a survey.

    Raises:
        StoreError: the store cannot be written; the same command goes on.
    """
    store.prepare()
    done = 0
    with screen_store.bar("deleting artifacts") as advance:
        for batch in _batches(found.division.doomed):
            store.remove(batch)
            store.sweep(PATIENCE)
            done += len(batch)
            advance(done, len(found.division.doomed))
    store.forget(found.records)
    store.clear(found.remains.keys())
    for address, holder in store.claims().items():
        if _is_gone(holder):
            store.release(address, holder)


def refuse_if_a_driver_runs(session: Session) -> None:
    """Deleting beside a driver would take away what it is about to read.

    A driver is seen by its claims on steps, and by its heartbeat if it shares the output root. The claim of a process
    of this machine and container that is gone does not count.

    Raises:
        StoreError: there is one, with the remedy.
    """
    store = session.store
    for address, text in store.claims().items():
        if not _is_gone(text):
            holder = parse_holder(text)
            who = f"process {holder.process.pid} on {holder.host}" if holder else "a process"
            place = f"{store.location}/claims/{address.stage}/{address.key}"
            raise StoreError(
                f"{who} works on {address.stage}/{address.key}: a driver is running, so nothing was deleted; wait for "
                f"it and give the same command again. If that process is dead, `sweep run` of its sweep takes the step "
                f"over; or delete {place} yourself"
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


def _is_gone(text: str) -> bool:
    holder = parse_holder(text)
    return holder is not None and holder.gone()


def _batches(addresses: Collection[Artifact]) -> Iterator[list[Artifact]]:
    ordered = sorted(addresses)
    for start in range(0, len(ordered), _BATCH):
        yield ordered[start : start + _BATCH]


# --- the commands


def collect(sessions: Sequence[Session], drops: Sequence[str], delete_it: bool) -> dict[str, Any]:
    """Survey the store of some sweeps, and delete the garbage if told so; returns the numbers.

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
    found = survey([each.plan for each in sessions], session.store, drops)
    if delete_it and not found.empty:
        # Reading a large store takes a while; somebody may have started a driver.
        refuse_if_a_driver_runs(session)
        delete(found, session.store)
    return {"store": session.store.location, "deleted": delete_it, **found.report()}


def spell_command(sessions: Sequence[Session], drops: Iterable[str]) -> str:
    """The command that deletes."""
    first, *others = sessions
    dropped = [word for name in drops for word in ("--drop", name)]
    return first.command("gc", *(str(session.file) for session in others), *dropped, "--delete")


def pin(session: Session, name: str | None) -> dict[str, Any]:
    """Pin what is committed of a sweep; a pin of the same name may only grow.

    Raises:
        SweepError: the name is none, nothing is committed, or artifacts of the old pin would be left out.
    """
    name = session.spec.name if name is None else name
    _check_name(name)
    plan = session.plan
    found = {plan.address(number) for number in np.flatnonzero(session.schedule.committed).tolist()}
    if not found:
        raise SweepError([Problem(str(session.file), "", f"nothing of it is committed in {session.store.location}")])
    lost = session.store.pins().get(name, frozenset()) - found
    if lost:
        message = (
            f"holds {len(lost)} artifacts that this sweep does not have now; choose another --name, or drop it first: "
            f"sweep unpin {name}"
        )
        raise SweepError([Problem(f"pin {name}", "", message)])
    session.store.prepare()
    session.store.pin(name, found)
    return {"store": session.store.location, "name": name, "artifacts": len(found)}


def list_pins(store: Store) -> dict[str, dict[str, int]]:
    """Per pin: its artifacts, and how many of them are there."""
    pins = store.pins()
    committed = store.committed(store.stages())
    return {name: {"artifacts": len(pinned), "there": len(pinned & committed)} for name, pinned in pins.items()}


def unpin(store: Store, name: str) -> None:
    """Drop a pin.

    Raises:
        SweepError: there is none of that name.
    """
    _check_name(name)
    if not store.unpin(name):
        message = f"there is no such pin in {store.location}; {nearest(name, store.pins())}"
        raise SweepError([Problem(f"pin {name}", "", message)])


def _check_name(name: str) -> None:
    """A name becomes the name of a file."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        message = "the name of a pin is made of letters, digits, dots, dashes and underscores"
        raise SweepError([Problem(f"pin {name}", "", message)])

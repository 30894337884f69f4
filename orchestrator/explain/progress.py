"""How far running steps are, as their logs tell; and how long they take where none has finished yet."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Collection
from pathlib import Path

import numpy as np

from orchestrator.explain.eta import Guess, Pace
from orchestrator.run.schedule import Schedule, State
from orchestrator.store import Store, StoreError
from orchestrator.store.records import name_of_record
from orchestrator.types import Artifact
from workers.progress import EVERY, Headway, read_headway

#: So many steps of an entry are asked at most, and so many bytes are read of the end of a log.
_ASKED, _TAIL = 64, 8192
#: Steps that take less (seconds) say little before they are done.
_LONG = 2 * EVERY


def listen(schedule: Schedule, store: Store, pace: Pace) -> None:
    """Tell the pace how far the running steps of each entry are, where steps take long or nobody knows how long.

    Only logs that this machine can read: all of them where nodes share the store's folder. A step that was sent and is
    not begun yet says nothing.
    """
    under_way = np.flatnonzero(schedule.codes == State.RUNNING)
    for position, name in enumerate(schedule.plan.entries):
        running = under_way[schedule.plan.home[under_way] == position]
        kinds = {
            kind: numbers
            for kind, numbers in schedule.likeness.split(running).items()
            if (usual := pace.seconds(name, kind)) is None or usual >= _LONG
        }
        few = max(1, _ASKED // max(len(kinds), 1))
        asked = {kind: list(map(schedule.plan.address, numbers[:few].tolist())) for kind, numbers in kinds.items()}
        logs = _latest_logs(store, [address for each in asked.values() for address in each])
        guesses = {}
        for kind, numbers in kinds.items():
            told = [each for address in asked[kind] if address in logs and (each := _headway(logs[address]))]
            if told:
                seconds = statistics.fmean(each.seconds for each in told)
                share = statistics.fmean(each.share for each in told)
                guesses[kind] = Guess(seconds, round(len(numbers) * len(told) / len(asked[kind])), share)
        pace.guess(name, guesses)


def _latest_logs(store: Store, addresses: Collection[Artifact]) -> dict[Artifact, Path]:
    """The logs of the latest tries of some steps, of those that have one here; by one listing per stage."""
    latest: dict[str, tuple[int, Path]] = {}
    # A file of somebody else has no such name; the time left is not worth a sweep.
    with contextlib.suppress(OSError, StoreError, ValueError):
        for folder in {store.log_path(address, 1).parent for address in addresses}:
            for path in folder.iterdir():
                if record := name_of_record(path.name, "log"):
                    key, number = record
                    latest[key] = max(latest.get(key, (0, path)), (number, path))
    return {address: latest[address.key][1] for address in addresses if address.key in latest}


def _headway(path: Path) -> Headway | None:
    """What the end of a log says."""
    with contextlib.suppress(OSError), path.open("rb") as log:
        log.seek(max(path.stat().st_size - _TAIL, 0))
        return read_headway(log.read().decode(errors="replace"))
    return None

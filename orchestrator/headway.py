"""How long steps will take of which none has finished yet, as the logs of those that are running tell."""

from __future__ import annotations

import contextlib
import statistics

import numpy as np

from orchestrator.pace import Guess, Pace
from orchestrator.schedule import Schedule, State
from orchestrator.store import Store, StoreError
from orchestrator.types import Artifact
from workers.progress import Headway, read_headway

#: So many steps of an entry are asked, and so many bytes are read of the end of a log.
_ASKED, _TAIL = 4, 8192


def listen(schedule: Schedule, store: Store, pace: Pace) -> None:
    """Tell the pace of entries of which no step has finished yet how far those that are running are.

    Only logs that this machine can read: all of them where nodes share the store's folder.
    """
    for name, counts in schedule.counts().items():
        if not counts[State.RUNNING] or pace.seconds(name) is not None:
            continue
        running = np.flatnonzero((schedule.codes == State.RUNNING) & schedule.plan.steps_of(entries=[name]))
        asked = [_headway(store, schedule.plan.address(number)) for number in running[:_ASKED].tolist()]
        if told := [each for each in asked if each]:
            seconds, share = (statistics.fmean(getattr(each, name) for each in told) for name in ("seconds", "share"))
            pace.guess(name, Guess(seconds, len(running), share))


def _headway(store: Store, address: Artifact) -> Headway | None:
    with contextlib.suppress(OSError, StoreError):
        logs = store.log_path(address, 1).parent.glob(f"{address.key}.*.log")
        latest = max(logs, key=lambda path: path.stat().st_mtime, default=None)
        if latest:
            with latest.open("rb") as log:
                log.seek(max(latest.stat().st_size - _TAIL, 0))
                return read_headway(log.read().decode(errors="replace"))
    return None

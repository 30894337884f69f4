"""How long steps will take of which none has finished yet, as the logs of those that are running tell."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator

import numpy as np

from orchestrator.pace import Pace
from orchestrator.schedule import Schedule, State
from orchestrator.store import Store, StoreError
from orchestrator.types import Artifact
from workers.progress import expected_seconds

#: So many steps of an entry are asked, and so many bytes are read of the end of a log.
_ASKED, _TAIL = 4, 8192


def headway(schedule: Schedule, store: Store, pace: Pace) -> Iterator[tuple[str, float]]:
    """Entries of which no step has finished, and the seconds that one will probably take.

    Only logs that this machine can read: all of them where nodes share the store's folder.
    """
    for name, counts in schedule.counts().items():
        if not counts[State.RUNNING] or pace.seconds(name) is not None:
            continue
        running = np.flatnonzero((schedule.codes == State.RUNNING) & schedule.plan.steps_of(entries=[name]))
        told = [_expected(store, schedule.plan.address(number)) for number in running[:_ASKED].tolist()]
        if known := [seconds for seconds in told if seconds is not None]:
            yield name, statistics.fmean(known)


def _expected(store: Store, address: Artifact) -> float | None:
    with contextlib.suppress(OSError, StoreError):
        logs = store.log_path(address, 1).parent.glob(f"{address.key}.*.log")
        latest = max(logs, key=lambda path: path.stat().st_mtime, default=None)
        if latest:
            with latest.open("rb") as log:
                log.seek(max(latest.stat().st_size - _TAIL, 0))
                return expected_seconds(log.read().decode(errors="replace"))
    return None

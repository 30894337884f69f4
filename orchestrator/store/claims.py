"""Claims on steps, so that two drivers do not compute one twice. Claims advise, publishing decides.

No clock is compared with another one: a holder renews its claim every `BEAT` seconds, and a driver that saw one
unchanged for `PATIENCE` seconds takes the step over. Only a holder of this very machine and container is looked up.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

from orchestrator.store.artifacts import Store
from orchestrator.store.errors import StoreError
from orchestrator.store.heartbeat import Heartbeat
from orchestrator.store.process import Process, this_process
from orchestrator.store.scratch import BEAT
from orchestrator.types import Artifact

#: Several missed heartbeats: a long pause of a busy node is no death.
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that works on a step."""

    driver: str
    """The name of one run of one driver."""
    host: str
    """For people; two containers may have one name."""
    process: Process
    renewals: int = 0
    """How often it renewed its claim."""

    def to_text(self) -> str:
        """Write the holder as the store keeps it; `parse_holder` reads it."""
        process = self.process
        return f"{self.driver} {self.host} {process.space} {process.pid} {process.started} {self.renewals}"

    def gone(self) -> bool:
        """Whether its process certainly exists no more; False also where that cannot be seen from here."""
        return self.process.gone()


def parse_holder(text: str) -> Holder | None:
    """Read a holder back; None if it was torn."""
    try:
        driver, host, space, pid, started, renewals = text.split(" ")
        return Holder(driver, host, Process(space, int(pid), int(started)), int(renewals))
    except ValueError:
        return None


class ClaimedError(Exception):
    """Another driver works on the step."""

    def __init__(self, holder: str) -> None:
        found = parse_holder(holder)
        where = f"process {found.process.pid} on {found.host}" if found else "another process"
        super().__init__(f"is being computed by another driver ({where})")
        self.holder = holder


#: Location of a store and step -> the claim of this process on it.
_held: dict[tuple[str, Artifact], tuple[Store, Holder]] = {}
_lock = threading.Lock()


def _renew_all() -> None:
    with _lock:
        for (location, address), (store, holder) in _held.items():
            renewed = replace(holder, renewals=holder.renewals + 1)
            with contextlib.suppress(StoreError):
                store.renew(address, renewed.to_text())
                _held[location, address] = (store, renewed)


#: Renews the claims of this process.
heartbeat = Heartbeat("claim", BEAT, _renew_all)


@contextlib.contextmanager
def claimed(store: Store, address: Artifact, driver: str, stale: str | None) -> Iterator[None]:
    """Hold a step.

    Args:
        store: the store that the step's artifact goes into.
        address: the step.
        driver: the driver that it is computed for.
        stale: a claim that was seen unchanged for `PATIENCE` seconds, and may be taken over.

    Raises:
        ClaimedError: a living process of another driver holds it.
    """
    mine = Holder(driver, socket.gethostname(), this_process())
    refused = False
    # Ctrl-C may come at any instant, and in a notebook this process lives on, for which a claim would be left behind.
    try:
        held = store.claim(address, mine.to_text())
        if held is not None:
            holder = parse_holder(held)
            refused = held != stale and not (holder and (holder.driver == driver or holder.gone()))
            if refused:
                raise ClaimedError(held)
            store.renew(address, mine.to_text())
        with _lock:
            _held[store.location, address] = (store, mine)
        heartbeat.start()
        yield
    finally:
        if not refused:
            with _lock:
                _, last = _held.pop((store.location, address), (store, mine))
            # A claim that stays behind is taken over; the outcome of the step matters more.
            with contextlib.suppress(StoreError):
                store.release(address, last.to_text())

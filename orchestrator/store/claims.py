"""Who works on a step: so that two drivers do not compute it twice. Claims advise, publishing decides.

No clock is compared with another one: a holder renews its claim every `BEAT` seconds, and a driver that saw one stay
the same for `PATIENCE` seconds takes the step over. Only a holder of this very machine and container is looked up.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from orchestrator.store import Store, StoreError
from orchestrator.store.process import Process, this_process
from orchestrator.store.scratch import BEAT
from orchestrator.types import Artifact

#: Several missed beats: a long pause of a busy node is no death.
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that works on a step."""

    driver: str
    """Names one run of one driver."""
    host: str
    """For people; two containers may have one name."""
    process: Process
    beat: int = 0

    def spell(self) -> str:
        """As it is written into the store."""
        process = self.process
        return f"{self.driver} {self.host} {process.space} {process.pid} {process.started} {self.beat}"

    def gone(self) -> bool:
        """Whether its process exists no more, for certain; False also where that cannot be seen from here."""
        return self.process.gone()


def parse_holder(text: str) -> Holder | None:
    """Read a holder back; None if it was torn."""
    try:
        driver, host, space, pid, started, beat = text.split(" ")
        return Holder(driver, host, Process(space, int(pid), int(started)), int(beat))
    except ValueError:
        return None


class ClaimedError(Exception):
    """Another driver works on the step."""

    def __init__(self, holder: str) -> None:
        found = parse_holder(holder)
        where = f"process {found.process.pid} on {found.host}" if found else "another process"
        super().__init__(f"is being computed by another driver ({where})")
        self.holder = holder


@contextlib.contextmanager
def claimed(store: Store, address: Artifact, driver: str, stale: str | None) -> Iterator[None]:
    """Hold a step.

    Args:
        store: where the step's artifact goes.
        address: the step.
        driver: for whom.
        stale: a claim that was seen unchanged for long enough, and may be taken over.

    Raises:
        ClaimedError: a living process of another driver holds it.
    """
    mine = Holder(driver, socket.gethostname(), this_process())
    held = store.claim(address, mine.spell())
    if held is not None:
        holder = parse_holder(held)
        if held != stale and not (holder and (holder.driver == driver or holder.gone())):
            raise ClaimedError(held)
        store.renew(address, mine.spell())
    _Heart.beat_for(store, address, mine)
    try:
        yield
    finally:
        last = _Heart.rest(address) or mine
        # A claim that stays behind is taken over; the outcome of the step matters more.
        with contextlib.suppress(StoreError):
            store.release(address, last.spell())


class _Heart:
    """Renews the claims of this process from a thread of its own."""

    _held: ClassVar[dict[Artifact, tuple[Store, Holder]]] = {}
    _lock = threading.Lock()
    _thread: threading.Thread | None = None

    @classmethod
    def beat_for(cls, store: Store, address: Artifact, holder: Holder) -> None:
        with cls._lock:
            cls._held[address] = (store, holder)
        if cls._thread is None or not cls._thread.is_alive():
            cls._thread = threading.Thread(target=cls._run, name="claim", daemon=True)
            cls._thread.start()

    @classmethod
    def rest(cls, address: Artifact) -> Holder | None:
        """Let a claim be; returns it as it was renewed last."""
        with cls._lock:
            held = cls._held.pop(address, None)
        return held[1] if held else None

    @classmethod
    def _run(cls) -> None:
        pause = threading.Event()
        while not pause.wait(BEAT):
            with cls._lock:
                for address, (store, holder) in cls._held.items():
                    renewed = replace(holder, beat=holder.beat + 1)
                    with contextlib.suppress(StoreError):
                        store.renew(address, renewed.spell())
                        cls._held[address] = (store, renewed)

"""Leases: who makes an artifact now. Each change of one is a compare-and-swap at the store, never a guess.

A lease is taken by creating its claim where there is none, and shows life by altering it every `BEAT` seconds. A claim
may be evicted, exactly as it was seen, by whoever knows that its holder works no more:

- the holder's process existed in this very PID namespace, and exists no more;
- the holder made an earlier attempt for the driver that wants the step again, which knows that it has ended;
- an observer saw the claim unchanged for `TERM` seconds of its own monotonic clock.

A holder that was evicted may go on computing. It can neither commit, nor release or sweep what is another's, since
each of these succeeds only on the claim that it made. States and invariants: `orchestrator/decisions/0016-leases.md`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.store.errors import NOT_THERE, ClaimedError, LostOutputError, StoreError
from orchestrator.store.files import check_name
from orchestrator.store.heartbeat import Heartbeat
from orchestrator.store.process import Process, this_process
from orchestrator.types import Artifact, Manifest

#: Seconds between two signs of life of a claim.
BEAT = 20.0
#: Seconds without a sign of life after which a claim has expired. NFS may show a folder as it was 60 s ago (nfs(5),
#: acdirmax), and a holder may miss five beats: a pause of a busy node, or of its file server, is no death.
TERM = 180.0
#: Tries at a claim that is in the way and cannot be read, before its step fails.
_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim on a step, as an observer sees it."""

    epoch: int
    """One more than that of the claim that was evicted for this one, else 1."""
    token: str
    """Drawn at random for each claim."""
    driver: str
    """Id of one run of one driver."""
    attempt: int
    """The number of that driver's attempt at the step: a later one follows only when it gave up the earlier."""
    process: Process
    """The process that computes the step."""
    host: str
    """For people; two containers may have one name."""
    beat: str = ""
    """Altered by every sign of life."""

    @property
    def name(self) -> str:
        """All but the beat, as a file name."""
        process = self.process
        maker = f"{process.space}-{process.pid}-{process.started}-{self.host}"
        return f"{self.epoch}-{self.token}-{self.driver}-{self.attempt}-{maker}"

    def to_text(self) -> str:
        """Write the claim as one word for the name and one for the beat; `parse_claim` reads it."""
        return f"{self.name} {self.beat}"

    def __str__(self) -> str:
        return f"process {self.process.pid} on {self.host}"


#: A number as it is written: with other digits the name would not be that of the claim, which nobody could then evict.
_NUMBER = r"(0|[1-9]\d{0,18})"
_CLAIM = re.compile(
    rf"{_NUMBER}-([0-9a-f]{{16}})-(\w+)-{_NUMBER}-(\w+)-{_NUMBER}-{_NUMBER}-([\w.-]+)(?: (\w*))?", re.ASCII
)


def parse_claim(text: str, beat: str | None = None) -> Claim | None:
    """Read a claim back, from its text or its name and beat; None if it is something else."""
    found = _CLAIM.fullmatch(text)
    if found is None:
        return None
    epoch, token, driver, attempt, space, pid, started, host, last = found.groups()
    process = Process(space, int(pid), int(started))
    return Claim(int(epoch), token, driver, int(attempt), process, host, last if beat is None else beat)


class Lease(ABC):
    """The right of this process to make one artifact, and the local folder that it is made in."""

    def __init__(self, claims: Claims, address: Artifact, claim: Claim, folder: Path) -> None:
        """Open a folder that exists.

        Raises:
            OSError: it cannot be opened.
        """
        self.claims = claims
        self.address = address
        self.claim = claim
        self.folder = folder
        #: Files that are created through it are in no other folder; while it is open, the inode number is not reused.
        self.descriptor: int | None = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.lock = threading.Lock()
        _held[claim.token] = self
        heartbeat.start()

    @abstractmethod
    def renew(self) -> None:
        """Show life; a claim that was evicted is left alone. Raises errors of the medium."""

    def commit(self, manifest: Manifest) -> bool:
        """Publish the folder and end the lease; False if there is such an artifact already, which stays.

        After a StoreError it may be called again.

        Raises:
            LostOutputError: the lease or the folder is lost. Nothing was published.
            UnfitError: a file cannot have its name.
            StoreError: the store cannot be written.
        """
        for name in manifest.files:
            check_name(name)
        with self.claims.translate_errors():
            return self._commit(manifest)

    @abstractmethod
    def _commit(self, manifest: Manifest) -> bool:
        """Do what `commit` promises, and raise the errors of the medium."""

    @abstractmethod
    def release(self) -> None:
        """End the lease and delete the folder, unless it has ended. Raises errors of the medium."""

    def same_folder(self, path: str | Path) -> bool:
        """Tell whether a path leads to the folder that was made for this lease."""
        try:
            mine = os.fstat(self.descriptor) if self.descriptor is not None else None
        except OSError as error:
            # NFS: the folder was deleted at the server.
            if error.errno != errno.ESTALE:
                raise
            mine = None
        if mine is None:
            return False
        try:
            return os.path.samestat(mine, os.lstat(path))
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
            return False

    def confirm(self) -> None:
        """Make sure that the folder is the one that was made, if the lease has not ended.

        Raises:
            LostOutputError: it was deleted or replaced, or moved away because the claim was evicted.
            StoreError: that cannot be found out.
        """
        with self.claims.translate_errors():
            if self.descriptor is not None and not self.same_folder(self.folder):
                raise LostOutputError(self.folder)

    def close(self) -> None:
        """Forget the folder: the lease has ended."""
        _held.pop(self.claim.token, None)
        descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            os.close(descriptor)


#: Token -> lease of this process. A child process has none of them.
_held: dict[str, Lease] = {}
os.register_at_fork(after_in_child=_held.clear)


def held_here(token: str) -> bool:
    """Tell whether this process holds a lease."""
    return token in _held


def _renew_all() -> None:
    for lease in list(_held.values()):
        # One that is being published or given back needs no sign of life.
        if lease.lock.acquire(blocking=False):
            try:
                with contextlib.suppress(Exception):
                    if lease.descriptor is not None:
                        lease.renew()
            finally:
                lease.lock.release()


#: Renews the leases of this process.
heartbeat = Heartbeat("lease", BEAT, _renew_all)


class Stillness:
    """For how long things were seen unchanged."""

    def __init__(self, clock: Callable[[], float] = lambda: time.monotonic()) -> None:
        """Start without looks; `clock` returns seconds."""
        self._clock = clock
        self._looks: dict[Any, tuple[object, float, float]] = {}
        """Thing -> (how it looked, for how many seconds it has, time of the last look)."""

    def seconds(self, thing: Any, look: object) -> float:
        """Note how a thing looks; return the seconds for which it has looked like that.

        Between two looks no more than `BEAT` counts: a longer pause may have been everybody's.
        """
        now = self._clock()
        before, still, looked = self._looks.get(thing, (None, 0.0, now))
        still = still + min(now - looked, BEAT) if before == look else 0.0
        self._looks[thing] = look, still, now
        return still

    def keep(self, things: set[Any]) -> None:
        """Forget all other things."""
        self._looks = {thing: self._looks[thing] for thing in things if thing in self._looks}


class Claims(ABC):
    """The claims of one store."""

    def __init__(self, translate_errors: Callable[[], AbstractContextManager[None]]) -> None:
        """Start without observations; `translate_errors` turns errors of the medium into StoreError."""
        self.translate_errors = translate_errors
        self._stillness = Stillness()

    @abstractmethod
    def create(self, address: Artifact, claim: Claim) -> Lease | None:
        """Make a claim unless there is one; None if there is."""

    @abstractmethod
    def look(self, address: Artifact) -> list[Claim]:
        """Return the claims on a step as they are now; an eviction that was cut short may leave none, or several."""

    @abstractmethod
    def evict(self, address: Artifact, claim: Claim) -> bool:
        """End a claim that is as it was seen, so that nothing of its holder is committed; returns whether it was."""

    @abstractmethod
    def all(self) -> Mapping[Artifact, Claim]:
        """Return all claims."""

    @abstractmethod
    def sweep(self, ended: str | None, running: str | None, everywhere: bool) -> None:
        """Evict claims whose holders work no more, and delete what is left of their folders.

        Args:
            ended: a driver whose run is over; None for none.
            running: a driver that knows by itself which of its workers are alive; None for none.
            everywhere: whether to look at all claims, however many requests that takes.
        """

    @abstractmethod
    def tidy(self) -> None:
        """Delete what claims leave that were given back, while no driver runs."""

    def take(self, address: Artifact, driver: str, stale: str | None, token: str, attempt: int = 1) -> Lease:
        """Take the lease on a step.

        Args:
            address: the step.
            driver: the driver that it is computed for.
            stale: text of a claim that its observer has seen unchanged for `TERM` seconds.
            token: of the new claim.
            attempt: the number of the driver's attempt.

        Raises:
            ClaimedError: another driver holds it.
        """
        if not driver.isalnum():
            raise ValueError(f"the id of a driver consists of letters and digits, not {driver!r}")
        epoch = 1
        # A round is lost where another process was faster, and gave the lease back since.
        for _ in range(_ROUNDS):
            lease = self.create(address, Claim(epoch, token, driver, attempt, this_process(), _host()))
            if lease:
                return lease
            for claim in self.look(address):
                if claim.to_text() != stale and not self.over(claim, driver, attempt):
                    raise ClaimedError(str(claim), claim.to_text())
                self.evict(address, claim)
                epoch = max(epoch, claim.epoch + 1)
        raise StoreError(f"the claim on {address.stage}/{address.key} can be neither taken nor read, {_ROUNDS} times")

    def over(self, claim: Claim, driver: str | None, attempt: int | None = None) -> bool:
        """Tell whether the holder of a claim is known to work no more, because of its driver or its process.

        Args:
            claim: as it was seen.
            driver: a driver whose attempts have ended; None for none.
            attempt: the last of them that has; None for all.
        """
        return (claim.driver == driver and (attempt is None or claim.attempt <= attempt)) or claim.process.gone()


@cache
def _host() -> str:
    return re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII)[:64] or "unknown"


@contextlib.contextmanager
def taken(
    claims: Claims, address: Artifact, driver: str, stale: str | None = None, attempt: int = 1
) -> Iterator[Lease]:
    """Take the lease on a step, and give it back in the end unless it was committed; see `Store.lease`.

    Raises:
        ClaimedError: another driver holds it.
        LostOutputError: in place of whatever went wrong, where the lease or its folder was lost.
        StoreError: the store cannot be read or written.
    """
    token = secrets.token_hex(8)
    # Ctrl-C may come at any instant, and in a notebook this process lives on, for which a claim would be left behind.
    try:
        with claims.translate_errors():
            lease = claims.take(address, driver, stale, token, attempt)
        try:
            yield lease
        except StoreError:
            raise
        except Exception:
            lease.confirm()
            raise
    finally:
        left = _held.get(token)
        if left:
            # A claim that stays behind shows no life and is evicted later; the outcome of the step matters more.
            with contextlib.suppress(Exception):
                left.release()
            left.close()

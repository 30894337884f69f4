"""The checkpoints of a step, kept in its store as artifacts of their own until the step is committed.

They are made, verified and deleted like every artifact, in folders and object stores alike. Of two processes that work
on one step, one of which was given up, each may keep checkpoints of its own and read the other's: all are parts of the
same result.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator.attempt.process import PROCESS
from orchestrator.attempt.request import Request
from orchestrator.store import (
    ClaimedError,
    DamagedArtifactError,
    LostOutputError,
    Store,
    StoreError,
    UnfitError,
    list_files,
)
from orchestrator.types import Artifact, Manifest, Outcome
from workers.checkpoints import Checkpoints

#: The stage that checkpoints are kept as; no stage of work has this name.
STAGE = "checkpoints"
#: Seconds between two checkpoints, unless `runtime.<entry>.checkpoint_every` says otherwise: what a lost machine costs.
EVERY = 300.0
#: Outcomes for which a checkpoint may be to blame: to put one back may take more memory than to make it.
_ENDS = (Outcome.CRASHED, Outcome.OUT_OF_MEMORY)
#: The greatest part of the time that checkpoints may take after the first: those of large models have 100 GB and more.
_SHARE = 1 / 50


def checkpoint_address(step: Artifact, name: str) -> Artifact:
    """Return the address of a checkpoint of a step."""
    return Artifact(STAGE, f"{step.stage}.{step.key}.{name}")


def step_of(checkpoint: Artifact) -> Artifact | None:
    """Return the step that a checkpoint belongs to; None for another artifact."""
    parts = checkpoint.key.rsplit(".", 2)
    return Artifact(parts[0], parts[1]) if checkpoint.stage == STAGE and len(parts) == 3 else None


class StepCheckpoints(Checkpoints):
    """The checkpoints of the step that an attempt is made at."""

    def __init__(self, request: Request, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        """Look for those of earlier attempts.

        Args:
            request: the attempt.
            store: where they are.
            clock: returns the time in seconds.

        Raises:
            StoreError: the store cannot be read.
        """
        self._request = request
        self._store = store
        self._clock = clock
        self._every = EVERY if request.runtime.checkpoint_every is None else request.runtime.checkpoint_every
        self._last = clock()
        self._began: float | None = None
        """When the one that is being made was asked for."""
        self._cost = 0.0
        """Seconds that the last one took."""
        step = request.step.address
        found = {each for each in store.committed([STAGE]) if step_of(each) == step}
        self._there = {each.key.rpartition(".")[2]: each for each in sorted(found)}
        """Name -> address."""
        self.resumed = False
        """Whether this attempt has read any, and kept none since."""
        if self._there and self._ended_processes():
            PROCESS.log("the checkpoints are deleted: a process that went on from them died before it kept another\n")
            self.clear()

    def _ended_processes(self) -> bool:
        """Tell whether an attempt has ended its process since the last checkpoint was made.

        The clocks of two machines are compared. Where they differ by more than such an attempt took, work is done
        again, or an attempt more is lost.
        """
        made = self._store.manifests(self._there.values()).values()
        newest = max((each.finished for each in made if isinstance(each, Manifest)), default=0.0)
        tried = self._store.histories([self._request.step.address]).get(self._request.step.address, ())
        return any(each.started > newest and each.outcome in _ENDS for each in tried)

    def found(self) -> Mapping[str, Path]:
        """See `Checkpoints.found`. What is damaged, or cannot be read now, is as if it were not there."""
        folders = {}
        for name, address in list(self._there.items()):
            try:
                folders[name] = self._store.fetch(address)
            except DamagedArtifactError as error:
                PROCESS.log(f"the checkpoint {name} is damaged, and deleted: {error}\n")
                self.drop(name)
            except StoreError as error:
                PROCESS.log(f"the checkpoint {name} cannot be read: {error}\n")
        self.resumed = self.resumed or bool(folders)
        return folders

    def due(self) -> bool:
        """See `Checkpoints.due`."""
        now = self._clock()
        if now - self._last < max(self._every, self._cost / _SHARE):
            return False
        self._began = now
        return True

    def keep(self, name: str, write: Callable[[Path], None]) -> bool:
        """See `Checkpoints.keep`."""
        if not (name.isalnum() and name.isascii()):
            raise ValueError(f"the name of a checkpoint consists of letters and digits, not {name!r}")
        began = self._clock() if self._began is None else self._began
        address = checkpoint_address(self._request.step.address, name)
        try:
            with self._store.lease(address, self._request.driver, attempt=self._request.number) as lease:
                write(lease.folder)
                lease.commit(self._manifest(address, lease.folder))
            self._store.flush([address])
            self._there[name] = address
            self.resumed = False
            return True
        except (StoreError, ClaimedError, LostOutputError, UnfitError, OSError) as error:
            PROCESS.log(f"no checkpoint is kept, and the step goes on: {error}\n")
            return False
        finally:
            self._last, self._began = self._clock(), None
            self._cost = self._last - began

    def _manifest(self, address: Artifact, folder: Path) -> Manifest:
        return Manifest(
            address=address,
            identity=self._request.step.identity,
            files=list_files(folder),
            metrics={},
            attempt=self._request.number,
            seconds=0.0,
            finished=time.time(),
            host=socket.gethostname(),
            code_commit=self._request.code_commit,
            versions=PROCESS.versions(),
        )

    def drop(self, name: str) -> None:
        """See `Checkpoints.drop`. What cannot be deleted now is deleted by `sweep gc`."""
        address = self._there.pop(name, None)
        if address:
            with contextlib.suppress(StoreError):
                self._store.remove([address])

    def clear(self) -> None:
        """Delete all: the step is committed, or they lead nowhere."""
        for name in list(self._there):
            self.drop(name)

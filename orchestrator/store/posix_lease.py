"""Leases in a folder of a POSIX file system: a claim is the very folder that its holder writes into.

`claims/<stage>/<key>/` holds that one folder, whose name is the claim. Every change is one rename, of a name that is
never used again, so it succeeds for one process only:

- take: a private folder with the new one in it becomes `claims/<stage>/<key>`, which must be absent or empty;
- evict, release: the folder goes to the trash;
- commit: the folder becomes the artifact. That publishes it, proves the lease and ends it, in one step.

Where the answer to a rename is lost, NFS asks again and is told that the name is gone: the folder itself, which is
kept open, then tells what happened. The sign of life is the folder's time of change.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.store.errors import NOT_THERE, LostOutputError
from orchestrator.store.files import MANIFEST
from orchestrator.store.lease import TERM, Claim, Claims, Lease, held_here, parse_claim
from orchestrator.store.posix_medium import PosixMedium, create_file
from orchestrator.store.records import manifest_to_json
from orchestrator.store.trash import Trash
from orchestrator.types import Artifact, Manifest

#: Errors of a rename onto a folder that is not empty.
_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST})


class PosixLease(Lease):
    """A lease whose claim is its folder."""

    def __init__(self, claims: PosixClaims, address: Artifact, claim: Claim, folder: Path) -> None:
        """Open the folder, which is not in its place yet."""
        super().__init__(claims, address, claim, folder)
        self._claims = claims
        self.folder = Path(f"{claims.place(address)}/{claim.name}")

    def renew(self) -> None:
        """Set the folder's time of change to now."""
        with contextlib.suppress(FileNotFoundError):
            self._claims.system.utime(self.folder)

    def confirm(self) -> None:
        """See `Lease.confirm`."""
        try:
            super().confirm()
        except LostOutputError as error:
            # Linux tells where an open folder is; what a stage deletes was never in the trash.
            with contextlib.suppress(OSError):
                if "/trash/" in os.readlink(f"/proc/self/fd/{self.descriptor}"):  # noqa: PTH115
                    raise LostOutputError(self.folder, evicted=True) from error
            raise

    def _commit(self, manifest: Manifest) -> bool:
        """Write the manifest, then rename the folder into its place."""
        with self.lock:
            stage, key = self.address
            target = f"{self._claims.root}/artifacts/{stage}/{key}"
            if self.descriptor is None:
                raise LostOutputError(self.folder)
            if self.same_folder(target):
                # Published by an earlier call, whose answer was lost.
                self._end()
                return True
            self.confirm()
            # Through the descriptor: a folder that takes this one's place from here on has no manifest. There is one of
            # an earlier call, if that failed.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(MANIFEST, dir_fd=self.descriptor)
            try:
                create_file(MANIFEST, manifest_to_json(manifest), self.descriptor)
            except FileNotFoundError:
                # Just now the folder was deleted.
                self.confirm()
                raise
            try:
                self._publish(target)
            except OSError as error:
                if error.errno not in _TAKEN | NOT_THERE:
                    raise
                if not self.same_folder(target):
                    if error.errno in NOT_THERE or not os.path.isdir(target):  # noqa: PTH112
                        self.confirm()
                        raise
                    # There is an artifact of this key; both are the same work.
                    self._give_back()
                    return False
            self._end()
            return True

    def _publish(self, target: str) -> None:
        try:
            self._claims.system.rename(self.folder, target)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
            self._claims.system.rename(self.folder, target)

    def release(self) -> None:
        """Move the folder to the trash, and delete it."""
        with self.lock:
            self._give_back()

    def _give_back(self) -> None:
        self._claims.trash.throw_away(self.folder)
        self._end()

    def _end(self) -> None:
        self.close()
        # Until then it is free all the same.
        with contextlib.suppress(OSError):
            self._claims.system.rmdir(self._claims.place(self.address))


class PosixClaims(Claims):
    """The claims of a store in a folder."""

    def __init__(self, medium: PosixMedium, system: Any = os) -> None:
        """Address them.

        Args:
            medium: the folder of the store.
            system: has `mkdir`, `rename`, `rmdir`, `unlink` and `utime` as `os` has them, for tests that interleave
                processes.
        """
        super().__init__(medium.translate_errors)
        self.root = medium.root
        self.system = system
        self.trash = Trash(f"{self.root}/trash", system)

    def place(self, address: Artifact) -> str:
        """Return the folder that holds the claim on a step."""
        return f"{self.root}/claims/{address.stage}/{address.key}"

    def create(self, address: Artifact, claim: Claim) -> Lease | None:
        """See `Claims.create`."""
        private = f"{self.root}/claims/.{claim.token}"
        lease = None
        try:
            try:
                self._make(lambda: self.system.mkdir(private), f"{self.root}/claims")
            except FileExistsError:
                # The name is of this claim alone: the answer was lost, or an earlier round could not delete it all.
                for name in _names(private):
                    self.trash.throw_away(f"{private}/{name}")
            self._mkdir(f"{private}/{claim.name}")
            lease = PosixLease(self, address, claim, Path(f"{private}/{claim.name}"))
            place = self.place(address)
            try:
                self._make(lambda: self.system.rename(private, place), os.path.dirname(place))  # noqa: PTH120
            except OSError as error:
                # A lost answer looks like a folder that is not there.
                if not lease.same_folder(lease.folder):
                    if error.errno not in _TAKEN and error.errno not in NOT_THERE:
                        raise
                    self._undo(lease, private)
                    return None
            return lease
        except FileNotFoundError:
            # This process stood still for so long that the private folder was swept away; it tries again.
            self._undo(lease, private)
            return None
        except BaseException:
            self._undo(lease, private)
            raise

    def _mkdir(self, path: str) -> None:
        """Make a folder of a name that nobody else uses: if there is one, the answer to this was lost."""
        with contextlib.suppress(FileExistsError):
            self.system.mkdir(path)

    def _make(self, action: Callable[[], None], folder: str) -> None:
        """Do something; make a folder first where it is missing."""
        try:
            action()
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
            action()

    def _undo(self, lease: Lease | None, private: str) -> None:
        with contextlib.suppress(OSError):
            self.trash.throw_away(private)
        if lease:
            with contextlib.suppress(OSError):
                lease.release()

    def look(self, address: Artifact) -> list[Claim]:
        """See `Claims.look`."""
        place = self.place(address)
        found = []
        # Nothing but a folder belongs here: it would be in the way for ever. By now there may be one, which `unlink`
        # spares: somebody's claim.
        with contextlib.suppress(OSError):
            if not stat.S_ISDIR(os.lstat(place).st_mode):
                self.system.unlink(place)
        for name in _names(place):
            claim = parse_claim(name, _beat(f"{place}/{name}"))
            if claim:
                found.append(claim)
            else:
                self.trash.throw_away(f"{place}/{name}")
        return found

    def evict(self, address: Artifact, claim: Claim) -> bool:
        """Move the folder to the trash, if the claim is as it was seen."""
        path = f"{self.place(address)}/{claim.name}"
        return _beat(path) == claim.beat and self.trash.throw_away(path)

    def all(self) -> Mapping[Artifact, Claim]:
        """See `Claims.all`."""
        return {address: claim for address, claim, _ in self._found() if claim and address.stage}

    def _found(self) -> Iterator[tuple[Artifact, Claim | None, str]]:
        """Yield all folders of claims: their step, what they claim, and their path.

        The private folder of a claim that is being made has no step.
        """
        for stage in _names(f"{self.root}/claims"):
            if stage.startswith("."):
                path = f"{self.root}/claims/{stage}"
                name = next(iter(_names(path)), "")
                yield Artifact("", stage[1:]), parse_claim(name, _beat(f"{path}/{name}")), path
                continue
            for key in _names(f"{self.root}/claims/{stage}"):
                place = f"{self.root}/claims/{stage}/{key}"
                names = _names(place)
                for name in names:
                    path = f"{place}/{name}"
                    yield Artifact(stage, key), parse_claim(name, _beat(path)), path
                if not names:
                    # Its holder died between publishing and this; it is free all the same.
                    with contextlib.suppress(OSError):
                        self.system.rmdir(place)

    def sweep(self, ended: str | None, running: str | None, everywhere: bool) -> None:
        """See `Claims.sweep`."""
        seen = set()
        for address, claim, path in list(self._found()):
            if held_here(claim.token if claim else address.key):
                continue
            seen.add(path)
            still = self._stillness.seconds(path, claim.beat if claim else _beat(path))
            if not (claim and self.over(claim, ended)) and (still < TERM or (claim and claim.driver == running)):
                continue
            if claim and address.stage:
                self.evict(address, claim)
                with contextlib.suppress(OSError):
                    self.system.rmdir(self.place(address))
            else:
                self.trash.throw_away(path)
        self._stillness.keep(seen)
        self.trash.empty()

    def tidy(self) -> None:
        """See `Claims.tidy`; there is nothing."""


def _beat(path: str) -> str:
    """Read what a sign of life alters. Opening the folder makes NFS ask its server; a look at the name does not."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return str(os.fstat(descriptor).st_mtime_ns)
        finally:
            os.close(descriptor)
    except OSError:
        # It is gone, or goes at this moment, which NFS calls a stale handle.
        return ""


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise
        return []

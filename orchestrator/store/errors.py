"""What may go wrong with a store, and which errors are over after a while."""

from __future__ import annotations

import errno
from pathlib import Path

from orchestrator.types import Artifact, Manifest

#: Errors of a file system that nobody can write to.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
#: Errors that mean that a path, or a folder on the way to it, is not there; a link to itself leads nowhere.
NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
#: Errors that mean that there is no file of that name, but at most something else.
NO_FILE = NOT_THERE | {errno.EISDIR, errno.ENXIO}
#: Errors of deleting what others delete too, or what NFS keeps under another name while somebody has it open.
TOLERABLE = frozenset({errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY, errno.ESTALE})
#: Errors of the network, of a file server, and of too many open files.
_PASSING = frozenset(
    {
        errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EPIPE,
        errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
        errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH, errno.EREMOTEIO, errno.EMFILE, errno.ENFILE,
    }
)  # fmt: skip
#: Errors that are this process's own, or this machine's: the store may well answer others.
_OWN = frozenset({errno.EMFILE, errno.ENFILE})
#: Errors of the network in requests, urllib3, httpx, aiohttp and botocore, by name: their classes share no base.
_NETWORK = frozenset(
    {
        "ChunkedEncodingError", "ClientConnectorError", "ClientPayloadError", "ConnectError", "ConnectTimeout",
        "ConnectTimeoutError", "ConnectionClosedError", "ConnectionError", "EndpointConnectionError",
        "IncompleteReadError", "ProtocolError", "ReadError", "ReadTimeout", "ReadTimeoutError", "RemoteProtocolError",
        "ResponseStreamingError", "ServerDisconnectedError",
    }
)  # fmt: skip


def passes(error: BaseException | None) -> bool:
    """Whether the same may succeed a little later: not with a full disk, a missing file or a wrong password."""
    if isinstance(error, OSError) and error.errno in _PASSING:
        return True
    return any(base.__name__ in _NETWORK for base in type(error).__mro__)


class StoreError(Exception):
    """The store cannot be read or written: full, read-only, or gone. The message names the place and the remedy."""

    @property
    def passes(self) -> bool:
        """Whether its cause is over after a while (`passes`)."""
        # s3fs has no number for a request that took too long.
        return isinstance(self.__cause__, TimeoutError) or passes(self.__cause__)

    @property
    def stops(self) -> bool:
        """Whether no step can be committed before somebody acts: the disk is full or read-only, the service refuses."""
        cause = self.__cause__
        if isinstance(cause, PermissionError | FileNotFoundError) and cause.errno is None:
            # A file system gives a number. This is a service's answer: no access, no such bucket.
            return True
        return isinstance(cause, OSError) and cause.errno in FULL


class StoreAwayError(StoreError):
    """The store was away for longer than it is waited for."""

    @property
    def passes(self) -> bool:
        """False: it was waited for."""
        return False

    @property
    def stops(self) -> bool:
        """True: whatever is computed next could not be committed either."""
        return True


def away(error: StoreError | OSError) -> bool:
    """Whether an error of a store says that nobody on this machine can reach it for now, so that waiting helps."""
    cause = error.__cause__ if isinstance(error, StoreError) else error
    if isinstance(cause, OSError) and cause.errno in _OWN:
        return False
    return error.passes if isinstance(error, StoreError) else passes(error)


class UnfitError(Exception):
    """A stage left something that cannot be part of an artifact. The message names it and says what it is."""


class DamagedArtifactError(Exception):
    """A committed artifact is torn or was altered."""

    def __init__(self, address: Artifact, reason: str, manifest: Manifest | None = None) -> None:
        super().__init__(f"artifact {address.stage}/{address.key} is damaged: {reason}")
        self.address = address
        self.manifest = manifest
        """Its manifest, by which it is told from one that was made in its place since; None if that is what is torn."""


class ClaimedError(Exception):
    """Another driver works on the step."""

    def __init__(self, who: str, holder: str) -> None:
        super().__init__(f"is being computed by another driver ({who})")
        self.holder = holder
        """The text of its claim."""


class LostOutputError(Exception):
    """The folder that a step wrote into was deleted or replaced, so its output is not complete."""

    def __init__(self, folder: Path, evicted: bool = False) -> None:
        super().__init__(
            "this process stood still for so long that its lease on the step was given to another; nothing of it was "
            "committed"
            if evicted
            else f"the output folder {folder} was deleted or replaced while the step ran, so nothing of it was "
            "committed. The stage must write into the folder that it is given, and leave it there"
        )
        self.evicted = evicted
        """Whether its claim was certainly evicted, so that the step is or was in other hands."""


def remedy(error: BaseException) -> str:
    """Advise on what to do about a place that cannot be read or written."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOSPC:
        first = "free some space or choose another place with --outputs"
    elif number == errno.EDQUOT:
        first = "free some space, have the quota raised, or choose another place with --outputs"
    elif number == errno.EROFS:
        first = "mount it writable or choose another place with --outputs"
    elif number in (errno.EACCES, errno.EPERM):
        first = "give this user the right to it or choose another place with --outputs"
    elif number in (errno.EMFILE, errno.ENFILE):
        first = "allow more open files (ulimit -n)"
    else:
        first = "mend that or choose another place with --outputs"
    return f"{first}, then give the same command again; nothing is lost"

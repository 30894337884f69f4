"""A store of artifacts, of the attempts at making them, and of who makes them now.

Files come first, then the manifest, then one act of publishing: what is listed is complete. `posix` keeps them in a
folder, `objects` in an object store; one contract suite tests both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from orchestrator.store.errors import DamagedArtifactError
from orchestrator.store.files import MANIFEST, verify_content
from orchestrator.store.lease import Claim, Claims, Lease, taken
from orchestrator.store.medium import Medium
from orchestrator.store.records import (
    attempt_to_json,
    name_of_record,
    parse_attempt,
    parse_manifest,
    parse_pin,
    pin_to_json,
)
from orchestrator.types import Artifact, Attempt, Manifest


class Store(ABC):
    """A store. Its methods raise StoreError where it cannot be read or written."""

    location: str
    """Folder or URI, enough to open the store in another process (`open_store`)."""

    def __init__(self, location: str, medium: Medium, claims: Claims) -> None:
        """Address the store; nothing is read or written yet.

        Args:
            location: folder or URI.
            medium: where its small files are.
            claims: who makes its artifacts.
        """
        self.location = location
        self._medium = medium
        self._claims = claims

    @abstractmethod
    def prepare(self) -> str | None:
        """Make ready for writing; return a warning if only one driver may use this store at a time.

        Raises:
            StoreError: that is impossible, or another driver is using such a store.
        """

    # --- where things are

    #: Folders in which every stage has one of its own.
    _folders: tuple[str, ...]

    @abstractmethod
    def _manifest_path(self, address: Artifact) -> str:
        """Return the path of the manifest of an artifact, which is there as soon as it is finished."""

    @abstractmethod
    def _files_path(self, manifest: Manifest) -> str:
        """Return the folder of the files of an artifact."""

    @abstractmethod
    def _committed(self, stage: str) -> Iterable[str]:
        """List the keys of the finished artifacts of a stage."""

    def stages(self) -> set[str]:
        """List all stages that have artifacts or records of attempts."""
        return {name for folder in self._folders for name in self._medium.names(folder)}

    # --- artifacts

    def committed(self, stages: Iterable[str]) -> set[Artifact]:
        """List all finished artifacts of some stages, by one listing per stage."""
        return {Artifact(stage, key) for stage in stages for key in self._committed(stage)}

    def manifests(self, addresses: Collection[Artifact]) -> dict[Artifact, Manifest | DamagedArtifactError]:
        """Read the records of artifacts; an error in the place of one that is missing, torn or altered."""
        found: dict[Artifact, Manifest | DamagedArtifactError] = {}
        for address, content in self._medium.read({each: self._manifest_path(each) for each in addresses}).items():
            try:
                found[address] = self._parse(address, content)
            except DamagedArtifactError as error:
                found[address] = error
        return found

    def _manifest(self, address: Artifact) -> Manifest:
        return self._parse(address, self._medium.read({address: self._manifest_path(address)})[address])

    def _parse(self, address: Artifact, content: bytes | None) -> Manifest:
        if content is None:
            raise DamagedArtifactError(address, f"{MANIFEST} is missing")
        return parse_manifest(address, content)

    @abstractmethod
    def fetch(self, address: Artifact) -> Path:
        """Make the files of an artifact available, verified, in a local folder. Raises DamagedArtifactError."""

    def read(self, manifest: Manifest, name: str) -> bytes:
        """Read one small file of an artifact, and verify it. Raises DamagedArtifactError."""
        content = self._medium.read({name: f"{self._files_path(manifest)}/{name}"})[name]
        if content is None:
            raise DamagedArtifactError(manifest.address, f"{name} is missing")
        return verify_content(content, manifest, name)

    @abstractmethod
    def inspect(self, manifest: Manifest) -> DamagedArtifactError | None:
        """Read all files of an artifact where they are kept, past every cache; returns what is wrong with them."""

    def discard(self, address: Artifact, manifest: Manifest | None = None) -> None:
        """Set a damaged artifact aside, so that it is made again, unless that has happened since it was seen.

        Args:
            address: the artifact.
            manifest: its manifest as it was seen; None if that is what is torn.
        """
        found = self.manifests([address])[address]
        if manifest == (found if isinstance(found, Manifest) else None):
            self._set_aside(address)

    @abstractmethod
    def _set_aside(self, address: Artifact) -> None:
        """Move an artifact out of the way, if it is there."""

    # --- making artifacts

    def lease(
        self, address: Artifact, driver: str, stale: str | None = None, attempt: int = 1
    ) -> AbstractContextManager[Lease]:
        """Take the lease on a step, and give it back in the end unless it was committed.

        Args:
            address: the step.
            driver: the driver that it is computed for.
            stale: text of a claim that its observer saw unchanged for `lease.TERM` seconds; it is evicted.
            attempt: the number of that driver's attempt; it gave up the earlier ones, which their workers may not know.

        Raises:
            ClaimedError: another driver holds it, or a later attempt of this one.
            LostOutputError: in place of whatever went wrong, where the lease or its folder was lost.
        """
        return taken(self._claims, address, driver, stale, attempt)

    @abstractmethod
    def flush(self, addresses: Collection[Artifact]) -> None:
        """Make artifacts safe against a power failure; one that is lost to it all the same is found damaged."""

    @abstractmethod
    def adopt(self, old: Artifact, manifest: Manifest) -> None:
        """Publish the files of an artifact a second time, under another address, without moving their bytes.

        Raises:
            DamagedArtifactError: the old artifact is not whole. Nothing was published.
        """

    # --- claims

    def claims(self) -> Mapping[Artifact, Claim]:
        """List the steps that are worked on now, with their holders."""
        with self._medium.translate_errors():
            return self._claims.all()

    def sweep(self, ended: str | None = None, running: str | None = None, everywhere: bool = False) -> None:
        """Evict claims whose holders work no more, and delete their unfinished work.

        Args:
            ended: a driver whose run is over: all of its claims go.
            running: a driver that knows by itself which of its workers are alive: a claim of one that shows no life,
                because C code keeps its heartbeat from running, is left alone.
            everywhere: look at all claims, where that takes many requests.
        """
        with self._medium.translate_errors():
            self._claims.sweep(ended, running, everywhere)

    def tidy(self) -> None:
        """Delete what claims leave that were given back; only while no driver runs."""
        with self._medium.translate_errors():
            self._claims.tidy()

    def end_claim(self, address: Artifact, driver: str) -> None:
        """Evict a claim of a driver, whose worker is known to be dead."""
        with self._medium.translate_errors():
            for claim in self._claims.look(address):
                if claim.driver == driver:
                    self._claims.evict(address, claim)

    # --- attempts

    def record(self, attempt: Attempt) -> None:
        """Append an attempt to the history; a number that is taken moves to the next free one."""
        content, number = attempt_to_json(attempt).encode(), attempt.number
        stage, key = attempt.address
        while not self._medium.create(f"attempts/{stage}/{key}.{number}.json", content):
            number += 1

    def histories(self, addresses: Collection[Artifact]) -> dict[Artifact, list[Attempt]]:
        """Read the attempts at some steps, oldest first, by one listing per stage.

        Steps that were never tried are left out, as is a record that a crash tore.
        """
        wanted = set(addresses)
        paths: dict[tuple[Artifact, int], str] = {}
        for stage in {address.stage for address in wanted}:
            for name in self._medium.names(f"attempts/{stage}"):
                key, number = name_of_record(name, "json") or ("", 0)
                if Artifact(stage, key) in wanted:
                    paths[Artifact(stage, key), number] = f"attempts/{stage}/{name}"
        histories: dict[Artifact, list[Attempt]] = {}
        for (address, _), content in sorted(self._medium.read(paths).items()):
            if attempt := parse_attempt(content or b""):
                histories.setdefault(address, []).append(attempt)
        return histories

    def leave_notice(self, address: Artifact, number: int, text: str) -> None:
        """Tell the driver something of an attempt that goes on; the first notice stays."""
        self._medium.create(_notice_path(address, number), text.encode())

    def notices(self, attempts: Collection[tuple[Artifact, int]]) -> dict[tuple[Artifact, int], str]:
        """Read what attempts have to tell while they go on, by one request for each."""
        found = self._medium.read({each: _notice_path(*each) for each in attempts})
        return {each: content.decode(errors="replace") for each, content in found.items() if content is not None}

    @abstractmethod
    def log_path(self, address: Artifact, number: int) -> Path:
        """Name a local file for the output of an attempt while it runs."""

    @abstractmethod
    def keep_log(self, address: Artifact, number: int) -> str | None:
        """Put the output of an attempt where people can read it; returns that place, None if nothing was printed."""

    def tried(self, stages: Iterable[str]) -> set[Artifact]:
        """List all steps of some stages that have attempt records or logs, by one listing per stage."""
        return {
            Artifact(stage, name.split(".")[0]) for stage in stages for name in self._medium.names(f"attempts/{stage}")
        }

    def forget(self, addresses: Collection[Artifact]) -> None:
        """Delete the attempt records and logs of some steps."""
        unwanted = set(addresses)
        self._medium.delete(
            [
                f"attempts/{stage}/{name}"
                for stage in {address.stage for address in unwanted}
                for name in self._medium.names(f"attempts/{stage}")
                if Artifact(stage, name.split(".")[0]) in unwanted
            ]
        )

    # --- studies

    def studies(self) -> list[str]:
        """List the studies that have records."""
        return self._medium.names("studies")

    def study_records(self, study: str, names: Iterable[str] | None = None) -> dict[str, bytes]:
        """Read records of a study, by name; all that there are, or those of some names that are there."""
        wanted = self._medium.names(f"studies/{study}") if names is None else names
        found = self._medium.read({name: f"studies/{study}/{name}" for name in wanted})
        return {name: content for name, content in found.items() if content is not None}

    def add_study_record(self, study: str, name: str, content: bytes) -> bool:
        """Add a record to a study unless there is one of that name; returns whether this wrote it."""
        return self._medium.create(f"studies/{study}/{name}", content)

    # --- garbage

    @abstractmethod
    def remove(self, addresses: Collection[Artifact]) -> None:
        """Delete artifacts. A reader finds each whole or not at all; those that are gone already are left out."""

    @abstractmethod
    def remains(self) -> Mapping[str, int]:
        """List what was set aside as damaged, and uploads that were never finished: place -> bytes."""

    @abstractmethod
    def clear(self, places: Collection[str]) -> None:
        """Delete some of what `remains` named."""

    def pin(self, name: str, addresses: Collection[Artifact]) -> None:
        """Write down artifacts that must not be deleted, in place of those that the name stood for."""
        self._medium.replace(f"pins/{name}", pin_to_json(addresses))

    def pins(self) -> Mapping[str, frozenset[Artifact]]:
        """Read the artifacts that each name stands for. Raises StoreError when one cannot be read."""
        found = self._medium.read({name: f"pins/{name}" for name in sorted(self._medium.names("pins"))})
        return {
            name: parse_pin(f"{self.location}/pins/{name}", content)
            for name, content in found.items()
            if content is not None
        }

    def unpin(self, name: str) -> bool:
        """Drop a name; returns whether it was there."""
        there = name in self._medium.names("pins")
        self._medium.delete([f"pins/{name}"])
        return there


def _notice_path(address: Artifact, number: int) -> str:
    return f"attempts/{address.stage}/{address.key}.{number}.notice"

"""Leases in an object store: a claim is an object, which is only ever replaced as it was seen (`If-Match`).

The object is empty where nobody holds the step, since few services delete on a condition. Token and beat are part of
its text, so that no two texts are equal, whatever the service makes its etags of. To commit, the holder first replaces
its claim by the manifest: from then on the step is decided, and whoever meets that publishes the manifest.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from orchestrator.store.errors import LostOutputError
from orchestrator.store.lease import Claim, Claims, Lease, held_here, parse_claim
from orchestrator.store.object_medium import ObjectMedium
from orchestrator.store.records import manifest_to_json
from orchestrator.store.trash import Trash
from orchestrator.types import Artifact, Manifest

#: The beat of a claim whose step is decided.
_DECIDED = "decided"


class ObjectLease(Lease):
    """A lease whose claim is an object; its folder is on this node."""

    def __init__(self, claims: ObjectClaims, address: Artifact, claim: Claim, folder: Path, etag: str) -> None:
        """Remember the claim, which is made, and the state in which it is."""
        super().__init__(claims, address, claim, folder)
        self._claims = claims
        self._etag = etag
        self._beats = 0
        self._upload: str | None = None
        """The upload that has all files, if there is one."""
        self._decided: Manifest | None = None
        """The manifest that is decided and not published yet."""

    def renew(self) -> None:
        """Replace the claim by one with another beat; a decision stays as it is."""
        if self._decided:
            return
        self._beats += 1
        self._swap(replace(self.claim, beat=str(self._beats)).to_text().encode())

    def _swap(self, content: bytes) -> bool:
        etag = self._claims.medium.put(claim_path(self.address), content, self._etag)
        self._etag = etag or self._etag
        return etag is not None

    def _commit(self, manifest: Manifest) -> bool:
        """Upload the files into a folder of their own, decide, publish the manifest unless there is one."""
        medium = self._claims.medium
        if self.descriptor is None:
            raise LostOutputError(self.folder)
        self.confirm()
        if self._upload is None:
            upload = secrets.token_hex(8)
            if manifest.files:
                medium.upload(self.folder, files_path(self.address, upload), list(manifest.files))
            # It never comes back once it was moved away, so it was there all the time.
            self.confirm()
            self._upload = upload
        with self.lock:
            decided = replace(manifest, upload=self._upload)
            content = manifest_to_json(self._decided or decided)
            if self._decided is None:
                claim = replace(self.claim, beat=_DECIDED)
                if not self._swap(f"{claim.to_text()}\n".encode() + content):
                    if medium.read({"": manifest_path(self.address)})[""] == content:
                        # Decided by an earlier call, whose answer was lost; whoever met that has published it since.
                        self._give_back()
                        return True
                    medium.delete_trees([files_path(self.address, self._upload)] if manifest.files else [])
                    raise LostOutputError(self.folder, evicted=True)
                self._decided = decided
            published = self._claims.publish(self.address, content, self._decided)
            self._decided = None
            self._give_back()
            return published

    def release(self) -> None:
        """Empty the claim and delete the folder."""
        with self.lock:
            self._give_back()

    def _give_back(self) -> None:
        if self.descriptor is None:
            return
        self._claims.trash.throw_away(self.folder)
        self.close()
        # Whoever meets a decided claim publishes its manifest.
        if self._decided is None:
            self._swap(b"")


class ObjectClaims(Claims):
    """The claims of an object store, and the folders on this node that belong to them."""

    def __init__(self, medium: ObjectMedium, cache: Path) -> None:
        """Address them.

        Args:
            medium: the objects of the store.
            cache: the folder of this node for the store.
        """
        super().__init__(medium.translate_errors)
        self.medium = medium
        self._scratch = cache / "scratch"
        self.trash = Trash(f"{cache}/trash")

    def create(self, address: Artifact, claim: Claim) -> Lease | None:
        """See `Claims.create`."""
        path, content = claim_path(address), replace(claim, beat="0").to_text().encode()
        folder = self._scratch / f"{address.stage}-{address.key}-{claim.token}"
        try:
            etag = self.medium.put(path, content, None)
            if etag is None:
                found = self.medium.state(path)
                etag = self.medium.put(path, content, found[1]) if found and not found[0] else None
            if etag is None:
                return None
            folder.mkdir(parents=True)
            return ObjectLease(self, address, claim, folder, etag)
        except BaseException:
            with contextlib.suppress(Exception):
                self._remove(address, claim.token)
            raise

    def _remove(self, address: Artifact, token: str) -> None:
        for claim in self.look(address):
            if claim.token == token:
                self.evict(address, claim)

    def look(self, address: Artifact) -> list[Claim]:
        """See `Claims.look`."""
        found = self.medium.state(claim_path(address))
        claim = _parse(found[0]) if found else None
        if found and found[0] and claim is None:
            # Nothing else belongs here, and it would be in the way for ever.
            self.medium.put(claim_path(address), b"", found[1])
        return [claim] if claim else []

    def over(self, claim: Claim, driver: str | None, attempt: int | None = None) -> bool:
        """See `Claims.over`; with a decided step nothing is left to do but to publish it."""
        return claim.beat == _DECIDED or super().over(claim, driver, attempt)

    def evict(self, address: Artifact, claim: Claim) -> bool:
        """Empty the claim, after its manifest was published if its step is decided."""
        path = claim_path(address)
        found = self.medium.state(path)
        if not found or _parse(found[0]) != claim:
            return False
        if claim.beat == _DECIDED:
            self.medium.create(manifest_path(address), found[0].partition(b"\n")[2])
        return self.medium.put(path, b"", found[1]) is not None

    def publish(self, address: Artifact, content: bytes, manifest: Manifest) -> bool:
        """Write a manifest unless there is one; then both are the same work, and this upload is deleted."""
        if self.medium.create(manifest_path(address), content):
            return True
        if manifest.files and manifest.upload:
            self.medium.delete_trees([files_path(address, manifest.upload)])
        return False

    def all(self) -> Mapping[Artifact, Claim]:
        """See `Claims.all`; many are read at once."""
        paths = {Artifact(*path.split("/")[-2:]): path for path, size in self.medium.sizes("claims").items() if size}
        found = {address: _parse(content or b"") for address, content in self.medium.read(paths).items()}
        return {address: claim for address, claim in found.items() if claim}

    def sweep(self, ended: str | None, running: str | None, everywhere: bool) -> None:
        """See `Claims.sweep`. Claims of dead drivers of other nodes stay until somebody needs their steps."""
        folders = [path for path in _paths(self._scratch) if not held_here(_split(path.name)[1])]
        if everywhere or ended:
            claims = self.all()
        else:
            addresses = {_split(path.name)[0] for path in folders}
            claims = {address: claim for address in addresses for claim in self.look(address)}
        for address, claim in claims.items():
            if not held_here(claim.token) and self.over(claim, ended):
                self.evict(address, claim)
        current = {claim.token for claim in claims.values() if not self.over(claim, ended)}
        for path in folders:
            if _split(path.name)[1] not in current:
                self.trash.throw_away(path)
        self.trash.empty()

    def tidy(self) -> None:
        """See `Claims.tidy`: the objects of claims that were given back are empty."""
        self.medium.delete([path for path, size in self.medium.sizes("claims").items() if not size])


def _paths(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _split(name: str) -> tuple[Artifact, str]:
    """Split the name of a local folder into the step and the token of its claim."""
    rest, _, token = name.rpartition("-")
    stage, _, key = rest.rpartition("-")
    return Artifact(stage, key), token


def _parse(content: bytes) -> Claim | None:
    return parse_claim(content.partition(b"\n")[0].decode(errors="replace"))


def claim_path(address: Artifact) -> str:
    """Return the path of the claim on a step."""
    return f"claims/{address.stage}/{address.key}"


def manifest_path(address: Artifact) -> str:
    """Return the path of an artifact's manifest."""
    return f"manifests/{address.stage}/{address.key}.json"


def files_path(address: Artifact, upload: str) -> str:
    """Return the folder of the files of an upload."""
    return f"artifacts/{address.stage}/{address.key}/{upload}"

"""How artifacts and attempts are written down: files with their digests, manifests with their own, JSON attempts."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.canonical import digest
from orchestrator.types import Artifact, Attempt, Manifest, Outcome

MANIFEST = "manifest.json"


class StoreError(Exception):
    """The store cannot be read or written: full, read-only, or gone. The message names the place and the remedy."""


class DamagedArtifactError(Exception):
    """A committed artifact is torn or was altered."""

    def __init__(self, address: Artifact, reason: str) -> None:
        super().__init__(f"artifact {address.stage}/{address.key} is damaged: {reason}")
        self.address = address


def list_files(folder: Path) -> dict[str, tuple[int, str]]:
    """Relative path -> (bytes, sha256) of every file below a folder."""
    files = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
                files[path.relative_to(folder).as_posix()] = (os.fstat(stream.fileno()).st_size, found)
    return dict(sorted(files.items()))


def spell_manifest(manifest: Manifest) -> str:
    """The manifest as JSON that carries its own digest, so that an altered number is noticed."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(manifest)))
    return json.dumps({**content, "sha256": digest(content)})


def parse_manifest(address: Artifact, text: bytes) -> Manifest:
    """Read a manifest back.

    Raises:
        DamagedArtifactError: it is torn, altered, or of another artifact.
    """
    try:
        content = json.loads(text)
        found = content.pop("sha256")
        if found != digest(content) or Artifact(*content["address"]) != address:
            raise ValueError("its digest does not fit")
        files = {name: (int(size), str(sha256)) for name, (size, sha256) in content.pop("files").items()}
        return Manifest(**{**content, "address": address, "files": files})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedArtifactError(address, f"{MANIFEST} was altered or torn ({error})") from error


def spell_attempt(attempt: Attempt) -> str:
    """The attempt as JSON."""
    return json.dumps(asdict(attempt))


def parse_attempt(text: bytes) -> Attempt | None:
    """Read an attempt back; None if its record was torn by a crash."""
    try:
        content = json.loads(text)
        return Attempt(
            **{
                **content,
                "address": Artifact(*content["address"]),
                "outcome": Outcome(content["outcome"]),
                "damaged": tuple(Artifact(*each) for each in content["damaged"]),
            }
        )
    except (ValueError, KeyError, TypeError):
        return None


def verify_file(path: Path, address: Artifact, size: int, sha256: str, verified: set[tuple[str, int, int]]) -> None:
    """Check a file against its manifest; `verified` remembers what this process has already read whole.

    Raises:
        DamagedArtifactError: the file is missing, or its size or bytes differ.
    """
    try:
        stat = path.stat()
        if stat.st_size != size:
            raise DamagedArtifactError(address, f"{path} has {stat.st_size} bytes, its manifest says {size}")
        signature = (str(path), stat.st_size, stat.st_mtime_ns)
        if signature in verified:
            return
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise DamagedArtifactError(address, f"{path} is missing") from error
    if found != sha256:
        raise DamagedArtifactError(address, f"the bytes of {path} differ from its manifest")
    verified.add(signature)

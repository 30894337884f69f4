"""The records of a store as text: manifests with their own digest, attempts, pins."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, fields, replace

from orchestrator.store.errors import DamagedArtifactError, StoreError
from orchestrator.store.files import MANIFEST, unfit_name
from orchestrator.texts import plain_text
from orchestrator.types import Artifact, Attempt, Manifest, Outcome

_UPLOAD = re.compile(r"[0-9A-Za-z]+")
#: A manifest file begins with the digest of the rest, so that an altered number is noticed.
_LEAD = b'{"sha256": "'
_SEAM = b'", "manifest": '
_BODY = len(_LEAD) + 64 + len(_SEAM)


def manifest_to_json(manifest: Manifest) -> bytes:
    """Write a manifest as JSON that carries its own digest."""
    content = {field.name: getattr(manifest, field.name) for field in fields(manifest)}
    body = json.dumps(content).encode()
    return _LEAD + hashlib.sha256(body).hexdigest().encode() + _SEAM + body + b"}"


def parse_manifest(address: Artifact, text: bytes) -> Manifest:
    """Read a manifest back.

    Raises:
        DamagedArtifactError: it is torn, altered, or of another artifact.
    """
    body = text[_BODY:-1]
    led = _LEAD + hashlib.sha256(body).hexdigest().encode() + _SEAM
    if text[:_BODY] != led or text[-1:] != b"}":
        raise DamagedArtifactError(address, f"{MANIFEST} was altered or torn (its digest does not fit)")
    try:
        content = json.loads(body)
        found = Artifact(*content.pop("address"))
        files = {name: (size, sha256) for name, (size, sha256) in content.pop("files").items()}
        manifest = Manifest(address=found, files=files, **content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedArtifactError(address, f"{MANIFEST} is of another version of this program ({error})") from error
    if found != address:
        raise DamagedArtifactError(address, f"{MANIFEST} is of another artifact, {found.stage}/{found.key}")
    # Whoever can write a manifest can give it a digest that fits; its names are joined to folders on every machine.
    name = unfit_name(files)
    if name is None and manifest.upload is not None and not _UPLOAD.fullmatch(str(manifest.upload)):
        name = str(manifest.upload)
    if name is not None:
        raise DamagedArtifactError(address, f"{MANIFEST} names {name!r}, which is no file of an artifact")
    return manifest


def attempt_to_json(attempt: Attempt) -> str:
    """Write an attempt as JSON."""
    return json.dumps(asdict(attempt))


def name_of_record(name: str, kind: str) -> tuple[str, int] | None:
    """Split the file name `<key>.<number>.<kind>` of a record or log into key and number; None for another file."""
    key, _, rest = name.partition(".")
    number, _, found = rest.partition(".")
    return (key, int(number)) if found == kind and number.isdecimal() and number.isascii() else None


def parse_attempt(text: bytes) -> Attempt | None:
    """Read an attempt back; None if its record was torn by a crash."""
    try:
        content = json.loads(text)
        return legible(
            Attempt(
                **{
                    **content,
                    "address": Artifact(*content["address"]),
                    "outcome": Outcome(content["outcome"]),
                    "damaged": tuple(Artifact(*each) for each in content["damaged"]),
                }
            )
        )
    except (ValueError, KeyError, TypeError):
        return None


def legible(attempt: Attempt) -> Attempt:
    """Clean the texts of an attempt for any file, page and terminal; a stage may have raised anything."""

    def fit(text: str | None, limit: int | None, otherwise: str) -> str | None:
        return None if text is None else plain_text(text, limit).strip() or otherwise

    return replace(
        attempt,
        error_class=fit(attempt.error_class, 200, "unknown"),
        error=fit(attempt.error, 20_000, attempt.error_class or "unknown"),
        log=fit(attempt.log, None, "unknown"),
    )


def pin_to_json(addresses: Iterable[Artifact]) -> bytes:
    """Write the artifacts of a pin as JSON, in the same order for the same set."""
    return json.dumps({"artifacts": sorted(addresses)}).encode()


def parse_pin(place: str, text: bytes) -> frozenset[Artifact]:
    """Read a pin back.

    Raises:
        StoreError: it is torn. What it named is unknown, so nothing may be deleted.
    """
    try:
        return frozenset(Artifact(str(stage), str(key)) for stage, key in json.loads(text)["artifacts"])
    except (ValueError, KeyError, TypeError) as error:
        name = place.rsplit("/", 1)[-1]
        remedy = f"`sweep unpin {name}` removes it, then `sweep pin SWEEP.yaml --name {name}` writes it anew"
        raise StoreError(f"the pin {place} cannot be read ({error}); {remedy}") from error

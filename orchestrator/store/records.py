"""The records of a store as text: manifests with their own digest, attempts, pins."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from orchestrator.store.errors import DamagedArtifactError, StoreError
from orchestrator.store.files import MANIFEST, unfit_name
from orchestrator.texts import plain_text
from orchestrator.types import Artifact, Attempt, Manifest, Outcome

_UPLOAD = re.compile(r"[0-9A-Za-z]+")
#: A stage or a key: a name that leads to no other folder.
_NAME = re.compile(r"\w[\w.-]*")
#: A manifest file begins with the digest of the rest, so that an altered number is noticed.
_LEAD = b'{"sha256": "'
_SEAM = b'", "manifest": '
_BODY = len(_LEAD) + 64 + len(_SEAM)


def _is_text(value: object) -> bool:
    """Tell whether a value is a text that can be written anywhere; JSON may hold halves of characters."""
    return isinstance(value, str) and (value.isascii() or not _HALF.search(value))


def _is_text_or_none(value: object) -> bool:
    return value is None or _is_text(value)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and -1e300 < value < 1e300  # type: ignore[operator]


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _are_texts(value: object) -> bool:
    return isinstance(value, dict) and all(_is_text(name) and _is_text(item) for name, item in value.items())


def _are_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(_is_text(name) and _is_number(item) for name, item in value.items())


def _are_files(value: Mapping[str, tuple[object, object]]) -> bool:
    # Their names are looked at more closely.
    return all(_is_count(size) and isinstance(sha256, str) for size, sha256 in value.values())


def _are_artifacts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(each, list | tuple) and len(each) == 2 and all(map(_is_text, each)) for each in value
    )


def _check(content: Mapping[str, object], kinds: Mapping[str, Callable[[object], bool]]) -> None:
    """Raise ValueError for a field of another kind: whoever can write to a store can write any JSON."""
    for name, value in content.items():
        if name in kinds and not kinds[name](value):
            raise ValueError(f"{name} is {str(value)[:40]!r}")


_HALF = re.compile("[\ud800-\udfff]")
_OF_BOTH: dict[str, Callable[[Any], bool]] = {
    "host": _is_text, "code_commit": _is_text, "seconds": _is_number, "log": _is_text_or_none, "undefined": _are_texts,
}  # fmt: skip
_OF_MANIFESTS: dict[str, Callable[[Any], bool]] = _OF_BOTH | {
    "identity": _is_text, "files": _are_files, "metrics": _are_numbers, "attempt": _is_count, "finished": _is_number,
    "versions": _are_texts, "upload": _is_text_or_none, "source": _is_text_or_none, "adopted": _is_text_or_none,
    "refers_to": lambda value: value is None or (_are_artifacts([value]) and all(map(_NAME.fullmatch, value))),
}  # fmt: skip
_OF_ATTEMPTS: dict[str, Callable[[Any], bool]] = _OF_BOTH | {
    "address": lambda value: _are_artifacts([value]), "entry": _is_text, "number": _is_count, "started": _is_number,
    "error_class": lambda value: value is None or isinstance(value, str),
    "error": lambda value: value is None or isinstance(value, str),
    "log": lambda value: value is None or isinstance(value, str),
    "damaged": _are_artifacts, "metrics": lambda value: value is None or _are_numbers(value),
    "driver": _is_text, "holder": _is_text_or_none, "unrecorded": lambda value: isinstance(value, bool),
}  # fmt: skip


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
        _check(content | {"files": files}, _OF_MANIFESTS)
        named = content.pop("refers_to", None)
        manifest = Manifest(address=found, files=files, refers_to=named and Artifact(*named), **content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        message = f"{MANIFEST} is of another version of this program ({plain_text(str(error), 200)})"
        raise DamagedArtifactError(address, message) from error
    if found != address:
        other = plain_text(f"{found.stage}/{found.key}", 200)
        raise DamagedArtifactError(address, f"{MANIFEST} is of another artifact, {other}")
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
        _check(content, _OF_ATTEMPTS)
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
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
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
        content = json.loads(text)["artifacts"]
        _check({"artifacts": content}, {"artifacts": _are_artifacts})
        return frozenset(Artifact(stage, key) for stage, key in content)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        name = place.rsplit("/", 1)[-1]
        remedy = f"`sweep unpin {name}` removes it, then `sweep pin SWEEP.yaml --name {name}` writes it anew"
        raise StoreError(f"the pin {place} cannot be read ({plain_text(str(error), 200)}); {remedy}") from error

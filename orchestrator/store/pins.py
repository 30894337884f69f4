"""A pin: artifacts that garbage collection must leave alone, written down under a name."""

from __future__ import annotations

import json
from collections.abc import Iterable

from orchestrator.store.records import StoreError
from orchestrator.types import Artifact


def spell_pin(addresses: Iterable[Artifact]) -> bytes:
    """The artifacts as JSON, one order for one set."""
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

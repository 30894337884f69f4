"""Artifacts that other artifacts refer to, while stages run: an adapter is nothing without the model that it adapts.

An artifact refers to another one in `reference.json`, by address: `{"artifact": {"stage": …, "key": …}}`. Whoever calls
stages says where artifacts are (`place`); where nobody does, no folder has an address.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

REFERENCE = "reference.json"
#: Stage and key.
Address = tuple[str, str]
_Address = TypeVar("_Address", bound=Address)

_folders: Mapping[Any, Path] = {}


def place(folders: Mapping[_Address, Path]) -> None:
    """Say where the inputs of the next stages are, with what these refer to; what was said before is forgotten."""
    global _folders
    _folders = folders


def is_placed(address: Address) -> bool:
    """Tell whether an artifact is an input of the step at hand, or what such a one refers to."""
    return address in _folders


def address_of(folder: Path) -> Address | None:
    """Return the address of the artifact in a folder; None if it has none."""
    return next(((stage, key) for (stage, key), placed in _folders.items() if placed == folder), None)


def folder_of(address: Address, named_by: str) -> Path:
    """Return the folder of an artifact.

    Raises:
        FileNotFoundError: it is not among what the step was given; the message begins with `named_by`.
    """
    if address not in _folders:
        stage, key = address
        raise FileNotFoundError(
            f"{named_by} refers to the artifact {stage}/{key}, which only a step of a sweep finds that has {named_by} "
            "among its inputs. Elsewhere, train with lora: {merged: true}, which stores a whole model"
        )
    return _folders[address]


def to_reference(address: Address) -> dict[str, object]:
    """Return what `reference.json` says of an artifact."""
    return {"artifact": dict(zip(("stage", "key"), address, strict=True))}


def referred(folder: Path) -> Address | None:
    """Return the address that the `reference.json` of a folder names; None if it names none, or there is no such file.

    Whatever else a stage writes under that name is its own business.
    """
    path = folder / REFERENCE
    try:
        named = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (ValueError, RecursionError):
        return None
    artifact = named.get("artifact") if isinstance(named, dict) else None
    if not isinstance(artifact, dict) or set(artifact) != {"stage", "key"}:
        return None
    stage, key = artifact["stage"], artifact["key"]
    return (stage, key) if isinstance(stage, str) and isinstance(key, str) else None

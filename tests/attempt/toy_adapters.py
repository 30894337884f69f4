"""Toy stages whose artifacts refer to others: a base, adapters that add to it, and what reads both."""

from __future__ import annotations

import json
from pathlib import Path

from workers.artifacts import REFERENCE, address_of, folder_of, referred, to_reference
from workers.config import Config
from workers.metric import Metric
from workers.stage import Input, Stage


class BaseConfig(Config):
    """A number, unless there is a file `fails`."""

    value: float = 0
    fails: str = ""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("value",)


class AdapterConfig(Config):
    """What is added."""

    add: float
    link: bool = False
    """Whether it refers to its input, whatever that is, and not to the base of it."""
    names: str = ""
    """Key of another artifact that it claims to refer to."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("added",)


class ReadConfig(Config):
    """Nothing to choose."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("sum",)


def base(config: BaseConfig, out: Path) -> dict[str, float]:
    if config.fails and Path(config.fails).exists():
        raise ValueError("the base cannot be made")
    (out / "number.txt").write_text(str(config.value))
    return {"value": config.value}


def adapter(config: AdapterConfig, out: Path, *, policy: Path) -> dict[str, float]:
    found, added = (policy, 0.0) if config.link else _of(policy)
    address = ("toy_base", config.names) if config.names else address_of(found)
    assert address
    (out / REFERENCE).write_text(json.dumps(to_reference(address)))
    (out / "added.txt").write_text(str(added + config.add))
    return {"added": added + config.add}


def read(config: ReadConfig, out: Path, *, policy: Path) -> dict[str, float]:
    found, added = _of(policy)
    total = float((found / "number.txt").read_text()) + added
    (out / "number.txt").write_text(str(total))
    return {"sum": total}


def _of(policy: Path) -> tuple[Path, float]:
    """The folder of the base, and what is added to it."""
    named = referred(policy)
    if named is None:
        return policy, 0.0
    found, added = _of(folder_of(named, str(policy)))
    return found, added + float((policy / "added.txt").read_text())


STAGES = {
    "toy_base": Stage("toy_adapters:base", 1, BaseConfig, "policy"),
    "toy_adapter": Stage("toy_adapters:adapter", 1, AdapterConfig, "policy", {"policy": Input("policy")}),
    "toy_read": Stage("toy_adapters:read", 1, ReadConfig, "number", {"policy": Input("policy")}),
}

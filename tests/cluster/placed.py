"""Stages that leave a trace of where and when they ran; they sleep, wait, or fail where a test wants it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from orchestrator.run.executors import seats
from workers import config as configs
from workers.model_cache import cached_model
from workers.stage import Input, Stage

if cycle := os.environ.get("CYCLE"):
    # Drivers import this as well: a GPU that they have in turns is given back after seconds.
    seats.CYCLE = float(cycle)

Trouble = Literal["none", "wait", "memory_once", "sick_device"]


class WorkConfig(configs.Config):
    """Takes a while."""

    value: float = 0
    seconds: float = 0.0
    trouble: Trouble = "none"
    place: str = ""
    """`wait`: a file to wait for. `memory_once`: a folder for what has failed once. `sick_device`: a file with the sick
    ones, each as NODE:DEVICE."""
    label: str = ""
    """Makes steps of one value different ones."""

    def metrics(self) -> tuple[str, ...]:
        return ("value",)


class NextConfig(WorkConfig):
    """Goes on with a number."""

    def metrics(self) -> tuple[str, ...]:
        return ("result",)


class ModelConfig(WorkConfig):
    """Loads a model first."""

    model: str

    def metrics(self) -> tuple[str, ...]:
        return ("answer",)


def first(config: WorkConfig, out: Path) -> Mapping[str, float]:
    return {"value": _work(config, out, config.value)}


def following(config: NextConfig, out: Path, *, number: Path) -> Mapping[str, float]:
    return {"result": _work(config, out, float((number / "number.txt").read_text()))}


def model(config: ModelConfig, out: Path) -> Mapping[str, float]:
    cached_model(config.model, lambda: config.model)
    return {"answer": _work(config, out, config.value)}


def _work(config: WorkConfig, out: Path, value: float) -> float:
    ray: Any = sys.modules["ray"]
    sweep, entry = os.environ["SWEEP_ACCOUNT"].split("/")
    place = {
        "sweep": sweep, "entry": entry, "value": value, "label": config.label, "process": os.getpid(),
        "node": ray.get_runtime_context().get_node_id(), "device": os.environ.get("CUDA_VISIBLE_DEVICES") or None,
    }  # fmt: skip
    _trace(place, "begin")
    try:
        _meet_trouble(config, f"{place['node']}:{place['device']}", f"{entry}-{value:g}-{config.label}")
        time.sleep(config.seconds)
    except BaseException:
        _trace(place, "failure")
        raise
    (out / "number.txt").write_text(str(value))
    _trace(place, "end")
    return value


def _trace(place: Mapping[str, Any], event: str) -> None:
    with Path(os.environ["CLUSTER_TRACE"]).open("a") as stream:
        stream.write(json.dumps({**place, "event": event, "time": time.time()}) + "\n")


def _meet_trouble(config: WorkConfig, device: str, step: str) -> None:
    match config.trouble:
        case "wait":
            while not Path(config.place).exists():
                time.sleep(0.05)
        case "memory_once" if not Path(config.place, step).exists():
            Path(config.place, step).touch()
            raise MemoryError("the stage was told to run out of memory")
        case "sick_device" if device in Path(config.place).read_text().split():
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered")


STAGES = {
    "placed_first": Stage("placed:first", 1, WorkConfig, "number"),
    "placed_next": Stage("placed:following", 1, NextConfig, "number", {"number": Input("number")}),
    "placed_model": Stage("placed:model", 1, ModelConfig, "number", loads=("model",)),
}
"""These stages, for sweeps with `uses: [placed]`."""

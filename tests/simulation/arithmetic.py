"""The stages of simulated sweeps: they add and double, take a while, and do what the world has decided that they do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from workers.config import Config
from workers.metric import Metric
from workers.stage import Input, Stage

#: Called with (name of the step, its folder, what it is to write); set by the simulation.
WORK: Callable[[str, Path, float], None] | None = None


class SourceConfig(Config):
    """A number from nowhere."""

    x: int

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("value",)


class DoubleConfig(Config):
    """Doubles its input."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("value",)


class TotalConfig(Config):
    """Adds to its input."""

    add: int
    more: int = 0

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("value",)


def source(config: SourceConfig, out: Path) -> dict[str, float]:
    return _make(f"source of {config.x}", out, float(config.x))


def double(config: DoubleConfig, out: Path, *, number: Path) -> dict[str, float]:
    value = _read(number)
    return _make(f"double of {value:g}", out, 2 * value)


def total(config: TotalConfig, out: Path, *, number: Path) -> dict[str, float]:
    value, add = _read(number), config.add + config.more
    return _make(f"total of {value:g} and {add}", out, value + add)


def _read(folder: Path) -> float:
    return float((folder / "value").read_text().split()[0])


def _make(name: str, out: Path, value: float) -> dict[str, float]:
    if WORK:
        WORK(name, out, value)
    else:
        (out / "value").write_text(f"{value!r} calm")
        (out / "again").write_text(f"{value!r} calm")
    return {"value": value}


STAGES = {
    "sim_source": Stage("arithmetic:source", 1, SourceConfig, "number"),
    "sim_double": Stage("arithmetic:double", 1, DoubleConfig, "number", {"number": Input("number")}),
    "sim_total": Stage("arithmetic:total", 1, TotalConfig, "number", {"number": Input("number")}),
}

SWEEP = """\
name: simulated
question: Is nothing lost, and nothing done twice?
axes: {x: [1, 2], y: [10, 20]}
uses: [arithmetic]
namespace: simulated
stages:
  source: {stage: sim_source, config: {x: $x}}
  double: {stage: sim_double, inputs: {number: source}}
  total: {stage: sim_total, inputs: {number: double}, config: {add: $y}}
results: [total]
runtime: {default: {attempts: 3}}
"""

#: The same with what is added searched for: two studies of four trials, each pruned after one of its three repetitions
#: or not, and the best one measured again.
SEARCH = SWEEP.replace(
    "axes: {x: [1, 2], y: [10, 20]}",
    """\
axes: {x: [1, 2]}
search:
  tuning:
    per: [x]
    space: {add: {int: [1, 100000]}}
    objective: {metric: value, better: lower, over: {y: [10, 20, 30]}}
    sampler: {name: RandomSampler}
    pruner: {name: MedianPruner, n_startup_trials: 1}
    trials: 4
    concurrency: 2
    fresh: {y: [40]}""",
).replace("{add: $y}", "{add: $tuning.add, more: $y}")

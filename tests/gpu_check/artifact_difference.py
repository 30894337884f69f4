"""How far an artifact that a GPU made is from that of a CPU, made from the same inputs, and how far it may be.

Sums of float32 come in another order on a GPU, so results differ by rounding. What may follow from that is stated here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file

#: Adam divides by the size of a gradient, so where this is next to nothing the sign of its rounding becomes a step.
_TRAINED = "difference of the updates over the update, Euclidean; a step of Adam amplifies rounding"

#: Name -> weight.
Weights = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Difference:
    """A difference between two artifacts."""

    what: str
    found: float
    allowed: float

    @property
    def small(self) -> bool:
        """Whether it may be rounding; NaN may not."""
        return self.found <= self.allowed


def difference(kind: str, mine: Path, theirs: Path, begun: Weights, rounding: float) -> Difference:
    """Compare two artifacts of the same step.

    Args:
        kind: of the artifact, as in `workers/README.md`.
        mine: folder of one.
        theirs: folder of the other, which counts as right.
        begun: name -> weight, of what a training starts from; empty for all else.
        rounding: relative error of single products: 2^-24, 2^-11 or 2^-9 for float32, tf32 and bfloat16.

    Raises:
        KeyError: nobody knows how artifacts of this kind are compared.
    """
    return _KINDS[kind](mine, theirs, begun, rounding)


def _trained(file: str, few: float) -> Callable[[Path, Path, Weights, float], Difference]:
    def compare(mine: Path, theirs: Path, begun: Weights, rounding: float) -> Difference:
        first, second = load_file(mine / file), load_file(theirs / file)
        if first.keys() != second.keys():
            return Difference("names of weights", float("nan"), 0)
        # Of what there was nothing before, as of a new head, all is an update.
        update = np.concatenate([(second[name] - begun.get(name, 0)).ravel() for name in second])
        apart = np.concatenate([(first[name] - second[name]).ravel() for name in second])
        return Difference(_TRAINED, float(np.linalg.norm(apart) / np.linalg.norm(update)), max(0.05, few * rounding))

    return compare


def _arrays(file: str) -> Callable[[Path, Path, Weights, float], Difference]:
    def compare(mine: Path, theirs: Path, begun: Weights, rounding: float) -> Difference:
        first, second = np.load(mine / file).astype(np.float64), np.load(theirs / file).astype(np.float64)
        if first.shape != second.shape:
            return Difference(f"shape {first.shape} in the place of {second.shape}", float("nan"), 0)
        return Difference(
            "largest difference over the standard deviation", float(np.abs(first - second).max() / second.std()), 1e-3
        )

    return compare


def _texts(file: str, column: str) -> Callable[[Path, Path, Weights, float], Difference]:
    def compare(mine: Path, theirs: Path, begun: Weights, rounding: float) -> Difference:
        first, second = (pq.read_table(folder / file).column(column).to_pylist() for folder in (mine, theirs))
        if len(first) != len(second):
            return Difference(f"{len(first)} rows in the place of {len(second)}", float("nan"), 0)
        other = sum(a != b for a, b in zip(first, second, strict=True))
        return Difference(
            f"share of other values in {column!r}: one falls on another side where a rounded number is at an edge",
            other / len(second),
            0.05,
        )

    return compare


def _evaluations(mine: Path, theirs: Path, begun: Weights, rounding: float) -> Difference:
    first, second = (pq.read_table(folder / "prompts.parquet")["quantile"].to_numpy() for folder in (mine, theirs))
    return Difference(
        "mean difference of the quantiles of the chosen responses", float(np.abs(first - second).mean()),
        max(0.02, 4 * rounding),
    )  # fmt: skip


_KINDS: dict[str, Callable[[Path, Path, Weights, float], Difference]] = {
    "model": _trained("model/model.safetensors", 0),
    "golden": _trained("model/model.safetensors", 0),
    "reward_model": _trained("weights.safetensors", 150),
    "scores": _arrays("scores.npy"),
    "margins": _arrays("margins.npy"),
    "embeddings": _arrays("embeddings.npy"),
    "responses": _texts("responses.parquet", "response"),
    "judgments": _texts("judgments.parquet", "text"),
    "verdicts": _texts("verdicts.parquet", "verdict"),
    "evaluation": _evaluations,
}

"""Reward heads, functions from embeddings to rewards, and their files: a fit stage saves them, evaluation loads them.

A `reward_model` artifact holds `reward_model.json` (kind and shape) and the weights: `weights.safetensors` of an MLP,
`model.txt` of LightGBM, or `linear.npz`. torch and lightgbm are imported only by the functions that need them.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from workers.device import device

if TYPE_CHECKING:
    import lightgbm
    import torch

DESCRIPTION_FILE = "reward_model.json"
MLP_FILE = "weights.safetensors"
LIGHTGBM_FILE = "model.txt"
LINEAR_FILE = "linear.npz"

Aggregation = Literal["mean", "min"]

Features = NDArray[np.floating[Any]]


class RewardHead(Protocol):
    """A function from embeddings to rewards."""

    @property
    def dimension(self) -> int:
        """Length d of the embeddings that it takes."""

    def predict(self, features: Features) -> NDArray[np.floating[Any]]:
        """Return the rewards (n,), as logits, of `features` (n, d) of type float16 or float32.

        Raises:
            ValueError: `features` is not (n, d).
        """


@dataclass(frozen=True)
class MlpHead:
    """An MLP or an ensemble of several, on `device()`."""

    networks: tuple[torch.nn.Sequential, ...]
    dimension: int
    aggregation: Aggregation = "mean"
    """The reward of an ensemble: the mean of its members, or the least (Coste et al., arXiv 2310.02743)."""

    def predict(self, features: Features) -> NDArray[np.float32]:
        """Return the rewards (n,), float32, as `RewardHead.predict`."""
        _require_width(features, self.dimension)
        rewards: NDArray[np.float32] = self.rewards(as_tensor(features)).cpu().numpy()
        return rewards

    def rewards(self, features: torch.Tensor) -> torch.Tensor:
        """Return the rewards (n,), float32, of `features` (n, d) on the networks' device.

        The factors of matrix products have the type of the features.
        """
        import torch

        with torch.inference_mode():
            each = torch.stack([_forward(network, features).squeeze(-1).float() for network in self.networks])
            return each.amin(0) if self.aggregation == "min" else each.mean(0)


@dataclass(frozen=True)
class LightgbmHead:
    """A LightGBM booster; the reward is its raw score, the logit."""

    booster: lightgbm.Booster
    dimension: int

    def predict(self, features: Features) -> NDArray[np.float64]:
        """Return the rewards (n,), float64, as `RewardHead.predict`."""
        _require_width(features, self.dimension)
        return np.asarray(self.booster.predict(features.astype(np.float32, copy=False), raw_score=True), np.float64)


@dataclass(frozen=True)
class LinearHead:
    """A reward that is linear in the embedding."""

    weights: NDArray[np.float64]
    """(d,)"""
    bias: float

    @property
    def dimension(self) -> int:
        """Length d of the embeddings that it takes."""
        return len(self.weights)

    def predict(self, features: Features) -> NDArray[np.float64]:
        """Return the rewards (n,), float64, as `RewardHead.predict`."""
        _require_width(features, self.dimension)
        rewards: NDArray[np.float64] = features.astype(np.float64) @ self.weights + self.bias
        return rewards


def build_mlp(dimension: int, hidden: Sequence[int]) -> torch.nn.Sequential:
    """Make a network d -> hidden... -> 1 with ReLU between layers, as torch initialises it.

    That is `networks.py` of holarissun/RewardModelingBeyondBradleyTerry with other widths.
    """
    import torch

    layers: list[torch.nn.Module] = []
    width = dimension
    for units in hidden:
        layers += [torch.nn.Linear(width, units), torch.nn.ReLU()]
        width = units
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, 1))


def save_mlp(
    networks: Sequence[torch.nn.Sequential],
    dimension: int,
    hidden: Sequence[int],
    folder: Path,
    aggregation: Aggregation = "mean",
) -> None:
    """Write the members of an ensemble, each made by `build_mlp(dimension, hidden)`, into `folder`."""
    from safetensors.torch import save_file

    weights = {
        f"{member}.{name}": tensor.detach().cpu().contiguous()
        for member, network in enumerate(networks)
        for name, tensor in network.state_dict().items()
    }
    save_file(weights, folder / MLP_FILE)
    _describe(folder, "mlp", dimension, hidden=list(hidden), members=len(networks), aggregation=aggregation)


def save_lightgbm(booster: lightgbm.Booster, folder: Path) -> None:
    """Write a booster into `folder`."""
    booster.save_model(folder / LIGHTGBM_FILE)
    _describe(folder, "lightgbm", booster.num_feature())


def save_linear(weights: NDArray[np.float64], bias: float, folder: Path) -> None:
    """Write weights (d,) and bias of a linear reward into `folder`."""
    np.savez(folder / LINEAR_FILE, weights=weights, bias=np.float64(bias))
    _describe(folder, "linear", len(weights))


def load_reward_head(folder: Path) -> RewardHead:
    """Load a reward head that `save_mlp`, `save_lightgbm` or `save_linear` wrote.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the description cannot be read, or the weights do not have the shape that it states; names the file.
    """
    file = folder / DESCRIPTION_FILE
    try:
        description = json.loads(file.read_text())
        kind, dimension = description["kind"], int(description["dimension"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not the description of a reward model ({error!r})") from error
    if kind == "mlp":
        return _load_mlp(folder, dimension, description)
    if kind == "lightgbm":
        return _load_lightgbm(folder, dimension)
    if kind == "linear":
        return _load_linear(folder, dimension)
    raise ValueError(f"{file}: kind {kind!r}, expected 'mlp', 'lightgbm' or 'linear'")


def _forward(network: torch.nn.Sequential, features: torch.Tensor) -> torch.Tensor:
    """Apply the network to features (n, d) of any floating type; return (n, 1) of that type."""
    import torch

    for layer in network:
        if isinstance(layer, torch.nn.Linear):
            features = torch.nn.functional.linear(features, layer.weight.to(features), layer.bias.to(features))
        else:
            features = layer(features)
    return features


def _load_mlp(folder: Path, dimension: int, description: dict[str, Any]) -> MlpHead:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    hidden, members, aggregation = (description.get(name) for name in ("hidden", "members", "aggregation"))
    if not isinstance(hidden, list) or not all(isinstance(units, int) for units in hidden):
        raise ValueError(f"{folder / DESCRIPTION_FILE}: hidden {hidden!r}, expected a list of layer widths")
    if not isinstance(members, int) or members < 1 or aggregation not in ("mean", "min"):
        message = f"members {members!r}, aggregation {aggregation!r}, expected a number and mean or min"
        raise ValueError(f"{folder / DESCRIPTION_FILE}: {message}")
    import torch

    networks = tuple(build_mlp(dimension, hidden) for _ in range(members))
    try:
        torch.nn.ModuleList(networks).load_state_dict(load_file(folder / MLP_FILE))
    except (RuntimeError, SafetensorError) as error:
        shape = f"{members} x ({dimension} -> {hidden} -> 1)"
        raise ValueError(f"{folder / MLP_FILE}: not the weights of {shape} ({error})") from error
    return MlpHead(tuple(network.to(device()) for network in networks), dimension, aggregation)


def _load_lightgbm(folder: Path, dimension: int) -> LightgbmHead:
    import lightgbm

    file = folder / LIGHTGBM_FILE
    if not file.is_file():
        raise FileNotFoundError(file)
    try:
        booster = lightgbm.Booster(model_file=file)
    except lightgbm.basic.LightGBMError as error:
        raise ValueError(f"{file}: not a readable LightGBM model ({error})") from error
    if booster.num_feature() != dimension:
        raise ValueError(f"{file}: takes {booster.num_feature()} features, but {DESCRIPTION_FILE} states {dimension}")
    return LightgbmHead(booster, dimension)


def _load_linear(folder: Path, dimension: int) -> LinearHead:
    file = folder / LINEAR_FILE
    try:
        with file.open("rb") as stream, np.load(stream) as stored:
            weights, bias = stored["weights"], float(stored["bias"])
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file}: not the weights of a linear reward ({error})") from error
    if weights.shape != (dimension,) or not np.isfinite(weights).all():
        raise ValueError(f"{file}: weights of shape {weights.shape}, but {DESCRIPTION_FILE} states {dimension}")
    return LinearHead(weights, bias)


def _describe(folder: Path, kind: str, dimension: int, **shape: object) -> None:
    description = {"kind": kind, "dimension": dimension, **shape}
    (folder / DESCRIPTION_FILE).write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")


def as_tensor(features: Features, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Copy `features` (n, d) to `device()`, as float32 unless `dtype` is given."""
    import torch

    # Copied, since torch cannot hold a read-only memory map; widened on the device, to move half the bytes.
    return torch.from_numpy(np.array(features)).to(device()).to(dtype or torch.float32)


def _require_width(features: Features, dimension: int) -> None:
    if features.ndim != 2 or features.shape[1] != dimension:
        raise ValueError(f"features of shape {features.shape}, but the reward model takes (n, {dimension})")

"""LoRA adapters (arXiv 2106.09685) in peft's format: read, written, put onto a model, and summed.

A linear layer with weight W of shape (out, in) becomes W + alpha / r * B A, with A of shape (r, in) and B of shape
(out, r); modules that are trained whole, the heads of scalar models, are stored whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
#: What peft puts before the names of modules.
_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
#: Fields of peft's config with which an adapter is more than W + alpha / r * B A, or another alpha.
_BEYOND_LORA = (
    "use_dora", "lora_bias", "alpha_pattern", "layer_replication", "target_parameters", "trainable_token_indices",
    "use_qalora", "alora_invocation_tokens", "arrow_config", "use_bdlora", "kasa_config", "velora_config",
    "monteclora_config",
)  # fmt: skip


@dataclass(frozen=True)
class Factors:
    """The change of one linear layer, B A."""

    a: torch.Tensor
    """float32 (r, in)"""
    b: torch.Tensor
    """float32 (out, r)"""
    scale: float
    """The factor of B A: alpha / r, with rsLoRA alpha / sqrt(r)."""


@dataclass(frozen=True)
class Adapter:
    """An adapter, apart from the model that it belongs to."""

    name: str
    """Its folder, for messages."""
    layers: Mapping[str, Factors]
    """Name of a module of the model -> its change."""
    whole: Mapping[str, torch.Tensor]
    """Name of a parameter of the model that was trained whole -> its value, float32."""
    settings: Mapping[str, Any]
    """The fields of peft's config, as JSON has them."""

    @property
    def labels(self) -> int | None:
        """The number of labels of the head that it has; None if it has none."""
        return min((value.shape[0] for value in self.whole.values() if value.ndim == 2), default=None)

    @property
    def rank(self) -> int:
        """The greatest rank of its layers."""
        return max((factors.a.shape[0] for factors in self.layers.values()), default=0)

    def merge_into(self, model: PreTrainedModel) -> None:
        """Change the weights of a model by this adapter: the sum is float32, and rounded once to the weight's type.

        That is what peft's `merge_and_unload` computes on a CPU, bit for bit. A model without a head, of which the
        names of modules are shorter, is left without the head that the adapter has.

        Args:
            model: the base, on the CPU; it is not changed if this raises.

        Raises:
            ValueError: the adapter was trained on another model.
        """
        self.check(model)
        for name, factors in self.layers.items():
            layer = _submodule(model, name)
            change = factors.b @ factors.a
            layer.weight.data += (change.T if isinstance(layer, Conv1D) else change) * factors.scale
        for name, value in self.whole.items():
            module, _, parameter = name.rpartition(".")
            if owner := _submodule(model, module):
                getattr(owner, parameter).data = value.clone()

    def check(self, model: PreTrainedModel) -> None:
        """Raise ValueError where the adapter was trained on another model; weights may be on the meta device."""
        for name, factors in self.layers.items():
            weight = getattr(_submodule(model, name), "weight", None)
            shape = (factors.b.shape[0], factors.a.shape[1])
            if isinstance(_submodule(model, name), Conv1D):
                shape = shape[::-1]
            self._require(model, f"{name}.weight", weight, shape)
        for name, value in self.whole.items():
            module, _, parameter = name.rpartition(".")
            owner = _submodule(model, module)
            if owner is not None or model.base_model is not model:
                self._require(model, name, getattr(owner, parameter, None), tuple(value.shape))

    def _require(self, model: PreTrainedModel, name: str, weight: Any, shape: Sequence[int]) -> None:
        if weight is None or tuple(weight.shape) != tuple(shape):
            found = "no such weight" if weight is None else f"one of shape {tuple(weight.shape)}"
            raise ValueError(
                f"{self.name}: the adapter belongs to another model: it changes {name} of shape {tuple(shape)}, and "
                f"{type(model).__name__} {model.config.name_or_path!r} has {found}"
            )

    def after(self, first: Adapter) -> Adapter:
        """Return the adapter that changes a model as `first` and then this one do: the sum, of the sum of the ranks.

        B2 A2 s2 + B1 A1 s1 is the product of B1 s1 and B2 s2 side by side with A1 and A2 one above the other; a layer
        that one of the two leaves as it is has zeros of that. A weight that both train whole is that of this one.
        """
        ranks = first.rank, self.rank
        layers = {}
        for name in dict.fromkeys((*first.layers, *self.layers)):
            known = first.layers.get(name) or self.layers[name]
            both = [
                _padded(adapter.layers.get(name), rank, known)
                for adapter, rank in zip((first, self), ranks, strict=True)
            ]
            layers[name] = Factors(torch.cat([a for a, _ in both]), torch.cat([b for _, b in both], dim=1), 1.0)
        whole = {**first.whole, **self.whole}
        heads = {name for each in (first, self) for name in each.settings.get("modules_to_save") or ()}
        own = {
            "r": sum(ranks),
            "lora_alpha": sum(ranks),
            "use_rslora": False,
            "rank_pattern": {},
            "target_modules": sorted(layers),
            "modules_to_save": sorted(heads) or None,
        }
        return Adapter(self.name, layers, whole, {**self.settings, **own})

    def write(self, folder: Path, base: str | None) -> None:
        """Write it as peft does, but for the order of names, so that equal adapters are equal bytes.

        Args:
            folder: made if it is not there.
            base: name of the model on the Hub, or its folder; None for an artifact.
        """
        folder.mkdir(exist_ok=True)
        weights = {f"{_PREFIX}{name}{_A}": factors.a for name, factors in self.layers.items()}
        weights |= {f"{_PREFIX}{name}{_B}": factors.b for name, factors in self.layers.items()}
        weights |= {f"{_PREFIX}{name}": value for name, value in self.whole.items()}
        save_file(
            {name: value.contiguous() for name, value in weights.items()}, folder / WEIGHTS, metadata={"format": "pt"}
        )
        fields = {**self.settings, "base_model_name_or_path": base, "inference_mode": True}
        (folder / CONFIG).write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read(folder: Path) -> Adapter:
    """Read an adapter.

    Raises:
        FileNotFoundError: the folder lacks a file.
        ValueError: a file is torn, or the adapter is of a kind that cannot be put onto a model here.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"adapter folder {str(folder)!r} lacks {name}: not a whole adapter of peft's")
    fields = read_config(folder)
    kind = fields.get("peft_type")
    more = [f"{name}: {fields[name]}" for name in _BEYOND_LORA if fields.get(name)]
    if fields.get("bias", "none") != "none":
        more.append(f"bias: {fields['bias']}")
    if kind != "LORA" or more:
        raise ValueError(f"{folder}: {_unsupported(', '.join(more) or f'peft_type: {kind}')}")
    if not isinstance(fields.get("lora_alpha"), int | float):
        raise ValueError(f"{folder / CONFIG}: lora_alpha is not a number, so the size of the change is unknown")
    try:
        weights = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS}: not a readable file of weights ({error})") from error
    return parse(str(folder), weights, fields)


def read_config(folder: Path) -> dict[str, Any]:
    """Read the fields of peft's config.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        fields = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{folder / CONFIG}: not a JSON object")
    return fields


def parse(name: str, weights: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> Adapter:
    """Make an adapter of weights that have the names that peft gives them.

    Args:
        name: of the adapter, for messages.
        weights: of any type and on any device.
        settings: the fields of peft's config.

    Raises:
        ValueError: it is of a kind that cannot be put onto a model here.
    """
    weights = {key: value.float().cpu() for key, value in weights.items()}
    heads = settings.get("modules_to_save") or ()
    layers, whole = {}, {}
    for key, value in weights.items():
        inner = key.removeprefix(_PREFIX)
        if inner.endswith(_A) and key.removesuffix(_A) + _B in weights:
            rank = value.shape[0]
            scale = settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)
            layers[inner.removesuffix(_A)] = Factors(value, weights[key.removesuffix(_A) + _B], scale)
        elif ".lora_" not in key and set(inner.split(".")) & set(heads):
            whole[inner] = value
        elif not (inner.endswith(_B) and key.removesuffix(_B) + _A in weights):
            raise ValueError(f"{name}: {_unsupported(f'the weight {key}')}")
    return Adapter(name, layers, whole, settings)


def _unsupported(what: str) -> str:
    return (
        f"only LoRA of linear layers is read here, and modules that it trains whole; this adapter has {what}. Merge it "
        "into its base with peft (`merge_and_unload`, `save_pretrained`), and name that folder"
    )


def _padded(factors: Factors | None, rank: int, like: Factors) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A and scaled B of a rank, the rest of them zeros; `like` is a change of the same layer."""
    a, b = torch.zeros(rank, like.a.shape[1]), torch.zeros(like.b.shape[0], rank)
    if factors:
        own = factors.a.shape[0]
        a[:own], b[:, :own] = factors.a, factors.b * factors.scale
    return a, b


def _submodule(model: PreTrainedModel, name: str) -> Any:
    """Find a module of a model with or without a head, by its name in one with or without; None if there is none."""
    prefix = f"{model.base_model_prefix}."
    for candidate in (name, name.removeprefix(prefix), prefix + name):
        try:
            return model.get_submodule(candidate)
        except AttributeError:
            continue
    return None

"""Models of published shapes with random weights, made on the spot, and small ones of the same architectures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from stage_sweep import DATA
from transformers import AutoModelForCausalLM, GemmaConfig, GPT2Config, PretrainedConfig

from workers.device import device
from workers.language_models.configs import TinyLlama
from workers.language_models.models import save_model
from workers.language_models.policy import _tokenizer

GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """A model to make."""

    name: str
    whole: dict[str, Any]
    """Settings of the published shape."""
    small: dict[str, Any]
    """Settings of a small one of the same architecture, for where there is no GPU."""
    kind: type[PretrainedConfig]
    dtype: str
    memory: int
    """Bytes of a GPU that must be free for all that is done with it."""
    disk: int
    """Bytes that models and artifacts take."""


SHAPES = {
    # GPT-2 (124M), the defaults of transformers.
    "gpt2": Shape(
        "gpt2", {}, {"n_layer": 2, "n_embd": 64, "n_head": 2, "vocab_size": 3000}, GPT2Config, "float32",
        10 * GIB, 4 * GIB,
    ),
    # Gemma 2B (arXiv 2403.08295, table 1).
    "gemma": Shape(
        "gemma",
        {"hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18, "num_attention_heads": 8,
         "num_key_value_heads": 1},
        {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 3000},
        GemmaConfig, "bfloat16", 26 * GIB, 24 * GIB,
    ),
}  # fmt: skip


def make_model(shape: Shape, whole: bool, folder: Path) -> int:
    """Write a model with random weights and a tokenizer of the shipped texts; return the number of its weights."""
    tokenizer = _tokenizer(_texts(), TinyLlama(vocabulary=2048, context=1024))
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = shape.kind(**(shape.whole if whole else shape.small), **special)
    torch.manual_seed(0)
    # On the device: on a CPU drawing so many numbers takes minutes.
    with torch.device(device()):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, shape.dtype))
    save_model(model, tokenizer, folder)
    return sum(weight.numel() for weight in model.parameters())


def _texts() -> list[str]:
    lines = (DATA / "helpful.jsonl").read_text().splitlines()
    return [json.loads(line)["chosen"] for line in lines]

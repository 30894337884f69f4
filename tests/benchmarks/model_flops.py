"""Operations of language models, from their shapes alone: a multiplication and an addition are two."""

from __future__ import annotations

import torch
from transformers import AutoModel, AutoModelForCausalLM, PretrainedConfig


def body_weights(config: PretrainedConfig) -> int:
    """Return the weights of the layers, of which each costs two operations per token; embeddings are looked up."""
    with torch.device("meta"):
        body = AutoModel.from_config(config)
    layers = [module for module in body.children() if isinstance(module, torch.nn.ModuleList)]
    return sum(weight.numel() for module in layers for weight in module.parameters())


def forward_flops(config: PretrainedConfig, context: float, *, logits: bool = False) -> float:
    """Return the operations per token of reading texts of `context` tokens.

    Two per weight of the layers; 4 x layers x heads x dimension x context / 2 of attention, since a token sees half of
    its text on average (Kaplan et al. 2020, arXiv 2001.08361, table 1, halved as attention is causal); and two per
    weight of the head where there are logits, which scoring and embedding do not need.
    """
    width = config.num_attention_heads * _per_head(config)
    attention = 2 * config.num_hidden_layers * width * context
    head = 2 * config.hidden_size * config.vocab_size if logits else 0
    return 2 * body_weights(config) + attention + head


def all_weights(config: PretrainedConfig) -> int:
    """Return the weights of a causal language model, embeddings included."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(weight.numel() for weight in model.parameters())


def cache_bytes(config: PretrainedConfig) -> int:
    """Return the bytes of keys and values of one token in a 16-bit type."""
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    return int(2 * 2 * config.num_hidden_layers * heads * _per_head(config))


def _per_head(config: PretrainedConfig) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)

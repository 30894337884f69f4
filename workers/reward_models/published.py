"""Stages `published_embeddings` and `published_rewards`: the field's `.npy` files as artifacts, without a model or GPU.

Two layouts are in circulation (holarissun/RewardModelingBeyondBradleyTerry and its follow-up): `embd_….npy` of shape
(prompts, responses, d) with `reward_….npy` (prompts, responses, 1), and `EMBD-….npy` of shape (responses, prompts, d)
with `REWARD-….npy` (responses, prompts).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workers.reward_models.configs import PublishedConfig
from workers.reward_models.embeddings import (
    Floats,
    open_embeddings,
    open_npy,
    require_finite,
    write_reference,
    write_scores,
)

#: Embeddings checked at once: 64 MiB at d = 2,048 in float32.
_BLOCK_VALUES = 2**24


def published_embeddings(config: PublishedConfig, out: Path) -> dict[str, float]:
    """Refer to a file of embeddings; it is read once to check it, and never copied.

    Metrics: `prompts`, `responses` (per prompt) and `embedding_dimension`.

    Raises:
        FileNotFoundError: the file is gone.
        ValueError: it is truncated, of another type or shape than stated, or holds a value that is not finite.
    """
    file = Path(config.file.path)
    array = open_npy(file)
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"{file}: shape {array.shape}, expected {_spell(config, 'd')} with none of them 0")
    _require_prompts(file, array, config)
    write_reference(file, config.layout == "responses_first", out)
    found = open_embeddings([out])
    per_prompt = found.responses * found.dimension
    for _ in found.blocks(max(1, _BLOCK_VALUES // per_prompt)):
        pass
    return {
        "prompts": float(found.prompts),
        "responses": float(found.responses),
        "embedding_dimension": float(found.dimension),
    }


def published_rewards(config: PublishedConfig, out: Path) -> dict[str, float]:
    """Write `scores.npy`, float32 (prompts, responses), from a file of golden rewards.

    Metrics: those of `embeddings.write_scores`.

    Raises:
        FileNotFoundError: the file is gone.
        ValueError: it is truncated, of another type or shape than stated, or holds a value that is not finite.
    """
    file = Path(config.file.path)
    array = open_npy(file)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
        raise ValueError(
            f"{file}: {array.dtype} of shape {array.shape}, expected floats of shape {_spell(config, '1')}, or without"
            " the last 1, and none of them 0"
        )
    _require_prompts(file, array, config)
    rewards = array.T if config.layout == "responses_first" else array
    require_finite(rewards, file, np.arange(len(rewards)))
    scores = np.ascontiguousarray(rewards, np.float32)
    # A float64 beyond the range of float32 was finite before.
    require_finite(scores, file, np.arange(len(scores)))
    return write_scores(scores, out)


def _require_prompts(file: Path, array: Floats, config: PublishedConfig) -> None:
    prompts = array.shape[1 if config.layout == "responses_first" else 0]
    if config.prompts is not None and prompts != config.prompts:
        raise ValueError(
            f"{file}: shape {array.shape} holds {prompts} prompts as {config.layout}, expected {config.prompts};"
            " is it the other layout?"
        )


def _spell(config: PublishedConfig, last: str) -> str:
    return f"(responses, prompts, {last})" if config.layout == "responses_first" else f"(prompts, responses, {last})"

"""Stages `published_embeddings` and `published_rewards`: the field's `.npy` files as artifacts, without a model or GPU.

Two layouts are in circulation (holarissun/RewardModelingBeyondBradleyTerry and its follow-up,
holarissun/embedding-based-llm-alignment): `embd_….npy` of shape (prompts, responses, d) with `reward_….npy` (prompts,
responses, 1), and `EMBD-….npy` of shape (responses, prompts, d) with `REWARD-….npy` (responses, prompts).
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


def published_embeddings(config: PublishedConfig, out: Path) -> dict[str, float]:
    """Refer to a file of embeddings, which is read once to check it and never copied.

    Args:
        config: names the file, (prompts, responses, d) or (responses, prompts, d), float16 or float32.
        out: receives `reference.json`.

    Returns:
        `prompts`; `responses`, per prompt; `embedding_dimension`, d.

    Raises:
        FileNotFoundError: the file is gone.
        ValueError: it is truncated, has another type or shape than stated, or holds a value that is not finite.
    """
    file = Path(config.file.path)
    array = open_npy(file)
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"{file}: shape {array.shape}, expected {_format_shape(config, 'd')} with none of them 0")
    _require_prompts(file, array, config)
    write_reference(file, config.layout == "responses_first", out)
    embeddings = open_embeddings([out])
    for _ in embeddings.blocks():
        pass
    return {
        "prompts": float(embeddings.prompts),
        "responses": float(embeddings.responses),
        "embedding_dimension": float(embeddings.dimension),
    }


def published_rewards(config: PublishedConfig, out: Path) -> dict[str, float]:
    """Copy golden rewards from a file.

    Args:
        config: names the file, floats of shape (prompts, responses) or (responses, prompts), or with a last axis of 1.
        out: receives `scores.npy`, float32 of shape (prompts, responses).

    Returns:
        The metrics of `embeddings.write_scores`.

    Raises:
        FileNotFoundError: the file is gone.
        ValueError: it is truncated, has another type or shape than stated, or holds a value that is not finite as
            float32.
    """
    file = Path(config.file.path)
    array = open_npy(file)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
        raise ValueError(
            f"{file}: {array.dtype} of shape {array.shape}, expected floats of shape {_format_shape(config, '1')}, or"
            " without the last 1, and none of them 0"
        )
    _require_prompts(file, array, config)
    rewards = array.T if config.layout == "responses_first" else array
    scores = np.ascontiguousarray(rewards, np.float32)
    # As it is kept: float64 has a wider range.
    require_finite(scores, file, range(len(scores)))
    return write_scores(scores, out)


def _require_prompts(file: Path, array: Floats, config: PublishedConfig) -> None:
    prompts = array.shape[1 if config.layout == "responses_first" else 0]
    if config.prompts is not None and prompts != config.prompts:
        raise ValueError(
            f"{file}: shape {array.shape} holds {prompts} prompts as {config.layout}, expected {config.prompts};"
            " is it the other layout?"
        )


def _format_shape(config: PublishedConfig, last: str) -> str:
    return f"(responses, prompts, {last})" if config.layout == "responses_first" else f"(prompts, responses, {last})"

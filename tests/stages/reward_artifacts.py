"""Small artifact folders for the tests of the reward-model stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers import tables


def write_scores(folder: Path, rewards: NDArray[Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "scores.npy", rewards.astype(np.float32))
    return folder


def write_embeddings(folder: Path, embeddings: NDArray[Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "embeddings.npy", embeddings)
    return folder


def write_annotations(folder: Path, winner: NDArray[Any], loser: NDArray[Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    columns = {"winner": winner, "loser": loser, "reward_gap": np.zeros(len(winner))}
    tables.ANNOTATIONS.write(columns, folder)
    return folder


def linear_world(
    prompts: int, responses: int, dimension: int, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings (prompts, responses, d) and rewards (prompts, responses) that are linear in them, sd 1."""
    random = np.random.default_rng(seed)
    embeddings = random.standard_normal((prompts, responses, dimension)).astype(np.float32)
    direction = random.standard_normal(dimension)
    return embeddings, (embeddings @ (direction / np.linalg.norm(direction))).astype(np.float32)

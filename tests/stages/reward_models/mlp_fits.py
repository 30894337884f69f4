"""Small fits of MLP reward models on annotations without noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from reward_artifacts import linear_world, write_annotations, write_embeddings

from workers.reward_models.configs import FitMlpConfig


def config(**fields: Any) -> FitMlpConfig:
    small = {"loss": "bt", "hidden": (16, 8), "batch_size": 100, "epochs": 6, "learning_rate": 1e-2, "seed": 3}
    return FitMlpConfig(**(small | fields))


def pairs_of(annotations: int, rewards: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise-free pairs of any two responses."""
    one, other = np.random.default_rng(seed).integers(rewards.size, size=(2, annotations))
    better = rewards.ravel()[one] > rewards.ravel()[other]
    return np.where(better, one, other), np.where(better, other, one)


def artifacts(tmp_path: Path, dtype: str = "float32", annotations: int = 600) -> tuple[Path, list[Path], np.ndarray]:
    embeddings, rewards = linear_world(200, 4, 12)
    folders = [
        write_embeddings(tmp_path / f"e{i}", part.astype(dtype)) for i, part in enumerate(np.split(embeddings, [70]))
    ]
    return write_annotations(tmp_path / "annotations", *pairs_of(annotations, rewards)), folders, rewards

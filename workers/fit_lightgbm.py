"""Stage `fit_lightgbm`: the reward model CLF-LGB on frozen embeddings.

Gradient-boosted trees that tell winners from losers, with the library's defaults as in "Rethinking Reward Modeling"
(ICLR 2025): objective binary, metric binary_logloss.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from workers.configs import FitLightgbmConfig
from workers.embeddings import open_embeddings, read_pairs
from workers.reward_heads import save_lightgbm
from workers.seeding import derive_seed


def fit_lightgbm(
    config: FitLightgbmConfig, out: Path, *, annotations: Path, embeddings: list[Path]
) -> dict[str, float]:
    """Write a reward_model folder: a booster trained on the 2n pointwise rows, whose reward is the raw score (logit).

    Metrics: `train_loss`, the binary cross-entropy of the 2n training rows in nats per row.

    Raises:
        ValueError: annotations of other embeddings, an embedding that is not finite, or no split was found.
    """
    winner, loser = read_pairs(annotations)
    features = open_embeddings(embeddings).gather(np.concatenate([winner, loser]))
    labels = np.repeat([1.0, 0.0], len(winner))
    booster = boost(features, labels, config)
    save_lightgbm(booster, out)
    return {"train_loss": log_loss(np.asarray(booster.predict(features, raw_score=True)), labels)}


def boost(
    features: NDArray[np.float32], labels: NDArray[np.float64], config: FitLightgbmConfig, threads: int = 0
) -> lightgbm.Booster:
    """Train on `features` (rows, d) and `labels` (rows,); 0 threads means LightGBM's own choice.

    The trees do not depend on the number of threads.

    Raises:
        ValueError: no split was found, so the model would give every response the same reward.
    """
    booster = lightgbm.train(
        parameters(config) | {"num_threads": threads},
        lightgbm.Dataset(features, labels, free_raw_data=True),
        num_boost_round=config.num_boost_round,
    )
    if not booster.feature_importance("split").any():
        raise ValueError(
            f"LightGBM found no split in {len(labels)} rows with min_data_in_leaf: {config.min_data_in_leaf}: use more"
            " annotations or a smaller min_data_in_leaf"
        )
    return booster


def parameters(config: FitLightgbmConfig) -> dict[str, Any]:
    """LightGBM's parameters; those not named keep the library's defaults."""
    return {
        "objective": "binary",
        "metric": "binary_logloss",
        "num_leaves": config.num_leaves,
        "learning_rate": config.learning_rate,
        "min_data_in_leaf": config.min_data_in_leaf,
        "seed": derive_seed(config.seed, "fit_lightgbm", bits=31),
        "deterministic": True,
        # Left to itself, LightGBM times both layouts and takes the faster; and only column-wise is each histogram
        # summed by one thread, hence in one order.
        "force_col_wise": True,
        "verbosity": -1,
    }


def log_loss(logits: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Mean binary cross-entropy of `logits` (rows,) against `labels` (rows,) of 0 and 1, in nats."""
    return float(np.logaddexp(0.0, np.where(labels == 1, -logits, logits)).mean())

"""Stage `fit_lightgbm`: the reward model CLF-LGB on frozen embeddings.

Gradient-boosted trees that tell winners from losers, with the library's defaults as in "Rethinking Reward Modeling"
(ICLR 2025): objective binary, metric binary_logloss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from workers.reward_models.configs import FitLightgbmConfig
from workers.reward_models.embeddings import Rows, open_embeddings, read_pairs
from workers.reward_models.heads import save_lightgbm
from workers.seeding import derive_seed
from workers.stage import Call


def fit_lightgbm(
    config: FitLightgbmConfig, out: Path, *, annotations: Path, embeddings: list[Path]
) -> dict[str, float]:
    """Write a reward_model folder: a booster trained on the 2n pointwise rows, whose reward is the raw score (logit).

    Metrics: `train_loss`, the binary cross-entropy of the 2n training rows in nats per row.

    Raises:
        ValueError: annotations of other embeddings, or an embedding that is not finite.
    """
    rows, labels = examples(annotations)
    features = open_embeddings(embeddings).gather(rows)
    return _fit(features, binned(features, config), labels, config, out)


def fit_lightgbms(calls: Sequence[Call]) -> Iterator[dict[str, float]]:
    """What `fit_lightgbm` writes and returns for each of several calls on the same embeddings.

    Annotations of the same pairs, with other labels, follow each other in a sweep whose last axis is the noise; their
    features are binned once.
    """
    source = open_embeddings(calls[0].paths("embeddings"))
    known: tuple[bytes, FitLightgbmConfig] | None = None
    for call in calls:
        rows, labels = examples(call.path("annotations"))
        if known != (rows.tobytes(), call.config):
            known = (rows.tobytes(), call.config)
            features = source.gather(rows)
            data = binned(features, call.config)
        yield _fit(features, data, labels, call.config, call.out)


def examples(annotations: Path) -> tuple[Rows, NDArray[np.float64]]:
    """Flat rows (2n,) and labels (2n,) of the responses, ascending: an order that the labels have no part in."""
    winner, loser = read_pairs(annotations)
    rows, labels = np.concatenate([winner, loser]), np.repeat([1.0, 0.0], len(winner))
    order = np.lexsort((labels, rows))
    return rows[order], labels[order]


def binned(features: NDArray[np.float32], config: FitLightgbmConfig) -> lightgbm.Dataset:
    """The features (rows, d) as LightGBM's histograms see them."""
    labels = np.zeros(len(features))
    return lightgbm.Dataset(features, labels, params=parameters(config), free_raw_data=True).construct()


def _fit(
    features: NDArray[np.float32],
    data: lightgbm.Dataset,
    labels: NDArray[np.float64],
    config: FitLightgbmConfig,
    out: Path,
) -> dict[str, float]:
    booster = boost(data, labels, config)
    save_lightgbm(booster, out)
    return {"train_loss": log_loss(np.asarray(booster.predict(features, raw_score=True)), labels)}


def boost(
    data: lightgbm.Dataset, labels: NDArray[np.float64], config: FitLightgbmConfig, threads: int = 0
) -> lightgbm.Booster:
    """Train on binned features and `labels` (rows,); 0 threads means LightGBM's own choice.

    The trees do not depend on the number of threads. Where no split is found, the model gives every response the same
    reward: that is what this number of annotations teaches it, and its evaluation says so.
    """
    booster = lightgbm.train(
        parameters(config) | {"num_threads": threads},
        data.set_label(labels),
        num_boost_round=config.num_boost_round,
    )
    if not booster.feature_importance("split").any():
        print(
            f"no split in {len(labels)} rows with min_data_in_leaf: {config.min_data_in_leaf}: every response gets the"
            " same reward; use more annotations or a smaller min_data_in_leaf",
            flush=True,
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

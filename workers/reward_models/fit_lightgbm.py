"""Stage `fit_lightgbm`: the reward model CLF-LGB on frozen embeddings.

Gradient-boosted trees separate winners from losers, with the library's defaults as in "Rethinking Reward Modeling"
(arXiv 2411.04991, ICLR 2025): objective binary, metric binary_logloss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from workers.reward_models.configs import FitLightgbmConfig
from workers.reward_models.embeddings import open_embeddings
from workers.reward_models.heads import save_lightgbm
from workers.reward_models.metrics import log_loss
from workers.reward_models.pairs import Rows, read_pairs
from workers.seeding import derive_seed
from workers.stage import Call

Labels = NDArray[np.bool_]


def fit_lightgbm(
    config: FitLightgbmConfig, out: Path, *, annotations: Path, embeddings: list[Path]
) -> dict[str, float]:
    """Train a booster on the 2n pointwise rows of n annotations; its reward is the raw score, a logit.

    Args:
        config: how to train.
        out: receives `reward_model.json` and `model.txt`.
        annotations: artifact of the annotations.
        embeddings: artifacts of the annotated responses.

    Returns:
        `train_loss`, the binary cross-entropy of the 2n training rows in nats per row.

    Raises:
        ValueError: the annotations are of other embeddings, or an embedding is not finite.
    """
    rows, labels = examples(annotations)
    features = open_embeddings(embeddings).gather(rows)
    return _fit(features, binned(features, config), labels, config, out)


def fit_lightgbms(calls: Sequence[Call]) -> Iterator[dict[str, float]]:
    """Train several boosters on the same embeddings; yield the metrics of each call of `fit_lightgbm` in turn.

    Annotations of the same pairs with other labels follow each other in a sweep whose last axis is the noise; their
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


def examples(annotations: Path) -> tuple[Rows, Labels]:
    """Read the annotated responses as flat rows (2n,) in ascending order, and whether each is a winner (2n,).

    Annotations of the same pairs with other labels give the same rows.
    """
    pairs = read_pairs(annotations)
    rows, wins = pairs.rows, pairs.wins
    order = np.lexsort((wins, rows))
    return rows[order], wins[order]


def binned(features: NDArray[np.float32], config: FitLightgbmConfig) -> lightgbm.Dataset:
    """Bin the features (rows, d) for LightGBM's histograms."""
    labels = np.zeros(len(features))
    return lightgbm.Dataset(features, labels, params=parameters(config), free_raw_data=True).construct()


def _fit(
    features: NDArray[np.float32],
    data: lightgbm.Dataset,
    labels: Labels,
    config: FitLightgbmConfig,
    out: Path,
) -> dict[str, float]:
    booster = boost(data, labels, config)
    save_lightgbm(booster, out)
    return {"train_loss": log_loss(np.asarray(booster.predict(features, raw_score=True)), labels)}


def boost(data: lightgbm.Dataset, labels: Labels, config: FitLightgbmConfig, threads: int = 0) -> lightgbm.Booster:
    """Train on binned features and `labels` (rows,); 0 threads leave the number to LightGBM.

    The trees do not depend on the number of threads. Where no split is found, the model gives every response the same
    reward: no more can be learned from this number of annotations, and its evaluation shows it.
    """
    booster = lightgbm.train(
        parameters(config) | {"num_threads": threads},
        data.set_label(labels.astype(np.float64)),
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
    """Return LightGBM's parameters; those not named keep the library's defaults."""
    return {
        "objective": "binary",
        "metric": "binary_logloss",
        "num_leaves": config.num_leaves,
        "learning_rate": config.learning_rate,
        "min_data_in_leaf": config.min_data_in_leaf,
        "seed": derive_seed(config.seed, "fit_lightgbm", bits=31),
        "deterministic": True,
        # By default LightGBM times both layouts and takes the faster; and only column-wise is each histogram summed by
        # one thread, hence in one order.
        "force_col_wise": True,
        "verbosity": -1,
    }

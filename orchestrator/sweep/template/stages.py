"""The work of this study. A parameter is a field of `config` in sweep.yaml, or an input; `out` is the output folder."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np


def data(out: Path, rows: int = 100, features: int = 40, seed: int = 0) -> None:
    """Draw points of two noisy classes: a set to train on, and a set to test on."""
    random = np.random.default_rng(seed)
    direction = random.normal(size=features) / 4
    for name in ("train", "test"):
        points = random.normal(size=(rows, features))
        labels = points @ direction + random.normal(size=rows) > 0
        np.savez(out / f"{name}.npz", points=points, labels=labels)


class Metrics(TypedDict):
    """What `train` returns: one column of the results each."""

    train_loss: float
    test_accuracy: float


def train(data: Path, out: Path, learning_rate: float, l2: float = 0.0, epochs: int = 200) -> Metrics:
    """Fit a logistic regression by gradient descent, and test it."""
    train, test = np.load(data / "train.npz"), np.load(data / "test.npz")
    weights = np.zeros(train["points"].shape[1])
    for _ in range(epochs):
        errors = 1 / (1 + np.exp(-train["points"] @ weights)) - train["labels"]
        weights -= learning_rate * (train["points"].T @ errors / len(errors) + l2 * weights)
    np.save(out / "weights.npy", weights)
    margins = np.where(train["labels"], 1, -1) * (train["points"] @ weights)
    accuracy = np.mean((test["points"] @ weights > 0) == test["labels"])
    return {"train_loss": float(np.mean(np.log1p(np.exp(-margins)))), "test_accuracy": float(accuracy)}

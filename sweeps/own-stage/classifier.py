"""A network that tells the better of two answers: the second stage of this study."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch.nn.functional import softplus

from workers.tables import HISTORY


class Metrics(TypedDict):
    """Numbers of the last epoch, on test pairs unless they say otherwise."""

    loss: float
    accuracy: float
    train_loss: float
    epochs_to_80: float | None
    """The first epoch after which accuracy is at least 0.8; None if there is none."""


def train(
    features: Path,
    out: Path,
    *,
    learning_rate: float,
    batch_size: int,
    epochs: int = 20,
    hidden: int = 32,
    seed: int = 0,
) -> Metrics:
    """Train with plain SGD and the Bradley-Terry loss; write the weights, and the curve that `sweep show` draws.

    Raises:
        ValueError: there is nothing to train for, or the training diverged, so that there is nothing to measure.
    """
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs {epochs} and batch_size {batch_size}: both are at least 1")
    torch.manual_seed(seed)
    pairs, test = (torch.from_numpy(np.load(features / f"{split}.npy")) for split in ("train", "test"))
    score = torch.nn.Sequential(torch.nn.Linear(pairs.shape[2], hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 1))
    optimizer = torch.optim.SGD(score.parameters(), lr=learning_rate)
    curve: list[tuple[int, str, float]] = []
    epochs_to_80 = None
    for epoch in range(1, epochs + 1):
        total = 0.0
        for batch in torch.randperm(len(pairs)).split(batch_size):
            # Rejected - chosen, so that the loss is -log P(the chosen answer wins).
            loss = softplus(score(pairs[batch]).diff(dim=1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        with torch.inference_mode():
            margin = score(test).diff(dim=1)
        train_loss, test_loss = total / len(pairs), softplus(margin).mean().item()
        if not math.isfinite(train_loss + test_loss):
            raise ValueError(f"learning_rate {learning_rate} diverged in epoch {epoch}; choose a lower one")
        # A network that cannot tell two answers apart guesses.
        accuracy = ((margin < 0).float() + 0.5 * (margin == 0).float()).mean().item()
        if epochs_to_80 is None and accuracy >= 0.8:
            epochs_to_80 = epoch
        curve += [(epoch, "loss", test_loss), (epoch, "accuracy", accuracy), (epoch, "train_loss", train_loss)]
    steps, names, values = zip(*curve, strict=True)
    HISTORY.write({"step": steps, "metric": names, "value": values}, out)
    torch.save(score.state_dict(), out / "score.pt")
    return {"loss": test_loss, "accuracy": accuracy, "train_loss": train_loss, "epochs_to_80": epochs_to_80}

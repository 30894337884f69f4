"""What the released scripts do, taken literally: one cell at a time, every pair and every choice by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from workers import tables
from workers.device import device
from workers.reward_models.configs import EvaluateConfig, FitMlpConfig
from workers.reward_models.evaluate import permutations
from workers.reward_models.fit_mlp import split_rows
from workers.reward_models.heads import build_mlp

DIMENSION, HIDDEN = 2048, (1024, 512)


def literal_fit(embeddings: Path, annotations: Path, setting: FitMlpConfig) -> None:
    """`step5_train_rms.py` and `networks.py`: whole pairs copied, autograd, one cell at a time."""
    features = np.load(embeddings / "embeddings.npy").reshape(-1, DIMENSION)
    table = tables.ANNOTATIONS.read(annotations)
    winners, losers = (features[table[name].to_numpy()] for name in ("winner", "loser"))
    if setting.loss == "bt":
        rows = np.concatenate([np.stack([winners, losers], 1), np.stack([losers, winners], 1)])
    else:
        rows = np.concatenate([winners, losers])
    labels = np.repeat(np.float32([1, 0]), len(winners))
    kept, held = split_rows(len(winners), setting)
    x, y, x_held, y_held = (
        torch.from_numpy(each).to(device()) for each in (rows[kept], labels[kept], rows[held], labels[held])
    )
    network = build_mlp(DIMENSION, HIDDEN).to(device())

    def forward(part: torch.Tensor) -> torch.Tensor:
        if setting.loss == "bt":
            return torch.sigmoid(network(part[:, 0]) - network(part[:, 1])).squeeze(-1)
        return torch.sigmoid(network(part)).squeeze(-1)

    criterion, optimizer = torch.nn.BCELoss(), torch.optim.Adam(network.parameters(), lr=setting.learning_rate)
    size = min(setting.batch_size, len(x))
    for _ in range(setting.epochs):
        for _ in range(0, len(x), size):
            index = torch.randperm(len(x))[:size]
            optimizer.zero_grad()
            criterion(forward(x[index]), y[index]).backward()
            optimizer.step()
        with torch.no_grad():
            float(criterion(forward(x_held), y_held))


def literal_evaluation(test: Path, model: Path, setting: EvaluateConfig) -> None:
    """Load the test set, score it with one reward model, choose among every N by itself."""
    from scipy.stats import spearmanr

    from workers.reward_models.heads import MlpHead, load_reward_head

    embeddings, golden = np.load(test / "embeddings.npy"), np.load(test / "scores.npy")
    head = load_reward_head(model)
    assert isinstance(head, MlpHead)
    with torch.no_grad():
        predictions = np.stack(
            [head.networks[0](torch.from_numpy(each).to(device())).squeeze(-1).cpu().numpy() for each in embeddings]
        )
    literal_best_of(predictions, golden, setting.best_of, permutations(setting, golden.shape[1]))
    np.nanmean([spearmanr(one, other).statistic for one, other in zip(predictions, golden, strict=True)])


def literal_best_of(predictions: Any, golden: Any, sizes: tuple[int, ...], orders: Any) -> None:
    """For every repeat and N an argmax over the first N candidates."""
    prompt = np.arange(len(golden))
    for order in orders:
        for size in sizes:
            chosen = order[:size][predictions[:, order[:size]].argmax(axis=1)]
            golden[prompt, chosen].mean()

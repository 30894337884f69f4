"""Stage `fit_mlp`: the reward models BT-MLP and CLF-MLP on frozen embeddings.

`training: paper` is the procedure of the released `step5_train_rms.py` and `networks.py` of "Rethinking Reward
Modeling" (ICLR 2025), whose small step budget is part of the method, with every draw seeded. `training: clean` is an
ordinary procedure without its quirks. Initial weights, split and batches depend on (seed, member), not on the loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from workers.configs import FitMlpConfig
from workers.embeddings import Rows, open_embeddings, read_pairs
from workers.reward_heads import build_mlp, device, save_mlp
from workers.seeding import derive_seed, generator


@dataclass(frozen=True)
class Examples:
    """The 2n rows a reward model learns from.

    Row r < n and its twin r + n come from annotation r.
    """

    responses: torch.Tensor
    """(2n, 2) or (2n, 1), int64: which rows of the features. The logit of a pair is f(first) - f(second)."""
    labels: torch.Tensor
    """(2n,), float32: 1 or 0."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Training:
    """How a training went."""

    epochs: int
    steps: int
    train_loss: float
    """Mean over the rows seen in the last epoch, each before the step it took part in."""
    validation_loss: float
    """Of the weights that are kept."""


def fit_mlp(config: FitMlpConfig, out: Path, *, annotations: Path, embeddings: list[Path]) -> dict[str, float]:
    """Write a reward_model folder: an MLP d -> hidden... -> 1 trained on the annotations.

    Metrics: `epochs` and `steps` (Adam steps) that were run, `train_loss` (mean of the last epoch) and
    `validation_loss` (of the kept weights), both binary cross-entropies in nats per row.

    Raises:
        ValueError: annotations of other embeddings, an embedding that is not finite, too few annotations to hold any
            out, or a training that diverged.
    """
    winner, loser = read_pairs(annotations)
    source = open_embeddings(embeddings)
    # A response can take part in several annotations: it is copied and kept once.
    used, place = np.unique(np.concatenate([winner, loser]), return_inverse=True)
    features = torch.from_numpy(source.gather(used)).to(device())
    examples = mirror(place[: len(winner)], place[len(winner) :], config.loss)
    network = initial_network(source.dimension, config).to(device())
    training = train(network, features, examples, config)
    save_mlp(network, source.dimension, config.hidden, out)
    return {
        "epochs": float(training.epochs),
        "steps": float(training.steps),
        "train_loss": training.train_loss,
        "validation_loss": training.validation_loss,
    }


def mirror(winner: Rows, loser: Rows, loss: str) -> Examples:
    """The 2n examples of n annotations; `winner` and `loser` (n,) are rows of the features.

    bt: (winner, loser) with label 1, then (loser, winner) with label 0. clf: the winners with label 1, then the losers
    with label 0.
    """
    if loss == "bt":
        pairs = np.stack([winner, loser], axis=1)
        responses = np.concatenate([pairs, pairs[:, ::-1]])
    else:
        responses = np.concatenate([winner, loser])[:, None]
    labels = np.repeat(np.array([1.0, 0.0], dtype=np.float32), len(winner))
    return Examples(torch.from_numpy(responses.astype(np.int64)), torch.from_numpy(labels))


def initial_network(dimension: int, config: FitMlpConfig) -> torch.nn.Sequential:
    """The untrained network on the CPU, a function of (seed, member) that leaves torch's own generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(config.seed, f"fit_mlp/weights/{config.member}"))
        return build_mlp(dimension, config.hidden)


def split_rows(annotations: int, config: FitMlpConfig) -> tuple[Rows, Rows]:
    """Train rows and validation rows of the 2n examples; ceil(validation * size) are held out, as in scikit-learn.

    paper: the mirrored rows are shuffled (the script does so unseeded; here by `seed`) and then given to
    `train_test_split(random_state=42 + member)`, so the twin of a validation row is mostly in training. clean:
    annotations are split, so twins stay together.

    Raises:
        ValueError: no row would be left to train on.
    """
    size = 2 * annotations if config.training == "paper" else annotations
    held_out = math.ceil(config.validation * size)
    if held_out >= size:
        raise ValueError(
            f"{annotations} annotation(s) with validation: {config.validation} leave nothing to train on: use more"
            " annotations or a smaller validation share"
        )
    if config.training == "paper":
        # What scikit-learn does, without importing it: RandomState's stream is frozen.
        picked = np.random.RandomState(42 + config.member).permutation(size)
        shuffled = generator(config.seed, "fit_mlp/shuffle").permutation(size)
        return shuffled[picked[held_out:]], shuffled[picked[:held_out]]
    shuffled = generator(config.seed, f"fit_mlp/split/{config.member}").permutation(size)
    held, kept = shuffled[:held_out], shuffled[held_out:]
    return np.concatenate([kept, kept + annotations]), np.concatenate([held, held + annotations])


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """ceil(rows / batch_size): 1, 2, 4, 7 for the 80 % of 2n rows of n = 5k, 10k, 20k, 40k and batches of 10,240."""
    return math.ceil(rows / batch_size)


def epoch_batches(rows: int, config: FitMlpConfig, random: torch.Generator) -> Iterator[torch.Tensor]:
    """Positions among the train rows of each step of one epoch.

    paper: every step draws min(batch_size, rows) of all rows afresh, without replacement. clean: the shuffled rows are
    cut into as many parts, equal to within one row, so that none is a leftover of a few rows.
    """
    steps = steps_per_epoch(rows, config.batch_size)
    if config.training == "paper":
        for _ in range(steps):
            yield torch.randperm(rows, generator=random)[: config.batch_size]
    else:
        yield from torch.tensor_split(torch.randperm(rows, generator=random), steps)


def should_stop(losses: Sequence[float], config: FitMlpConfig) -> bool:
    """Whether training ends after the validation losses so far, one per epoch.

    paper: the last exceeds each of the `patience` before it. clean: the best is `patience` epochs old.
    """
    if config.training == "paper":
        return len(losses) > config.patience and losses[-1] > max(losses[-config.patience - 1 : -1])
    return len(losses) - 1 - int(np.argmin(losses)) >= config.patience


def train(network: torch.nn.Sequential, features: torch.Tensor, examples: Examples, config: FitMlpConfig) -> Training:
    """Train `network` in place on `features` (m, d) of the same device, with Adam.

    Raises:
        ValueError: too few annotations to hold any out, or a loss that is not finite.
    """
    train_rows, validation_rows = (torch.from_numpy(rows) for rows in split_rows(len(examples) // 2, config))
    random = torch.Generator().manual_seed(derive_seed(config.seed, f"fit_mlp/batches/{config.member}"))
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    losses: list[float] = []
    best: dict[str, torch.Tensor] = {}
    steps = 0
    train_loss = math.nan
    for epoch in range(config.epochs):
        total, seen = torch.zeros((), device=features.device), 0
        for batch in epoch_batches(len(train_rows), config, random):
            rows = train_rows[batch]
            loss = mean_loss(network, features, examples, rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
            seen += len(rows)
            steps += 1
        train_loss = float(total) / seen
        losses.append(validation_loss(network, features, examples, validation_rows, config.batch_size))
        if not math.isfinite(train_loss) or not math.isfinite(losses[-1]):
            raise ValueError(
                f"training diverged in epoch {epoch + 1}: train loss {train_loss}, validation loss {losses[-1]};"
                " lower the learning rate"
            )
        if config.training == "clean" and losses[-1] < min(losses[:-1], default=math.inf):
            best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        if should_stop(losses, config):
            break
    if config.training == "clean":
        network.load_state_dict(best)
    kept = losses[-1] if config.training == "paper" else min(losses)
    return Training(len(losses), steps, train_loss, kept)


def mean_loss(
    network: torch.nn.Sequential, features: torch.Tensor, examples: Examples, rows: torch.Tensor
) -> torch.Tensor:
    """Mean binary cross-entropy (scalar) of the examples `rows` (b,).

    Both twins of an annotation ask for the same responses, so each response of the batch goes through the network once.
    """
    distinct, place = torch.unique(examples.responses[rows], return_inverse=True)
    rewards = network(features[distinct.to(features.device)]).squeeze(-1)[place.to(features.device)]
    logits = rewards[:, 0] - rewards[:, 1] if rewards.shape[1] == 2 else rewards[:, 0]
    return binary_cross_entropy_with_logits(logits, examples.labels[rows].to(features))


def validation_loss(
    network: torch.nn.Sequential, features: torch.Tensor, examples: Examples, rows: torch.Tensor, batch_size: int
) -> float:
    """Mean binary cross-entropy of the examples `rows`, at most `batch_size` at a time."""
    with torch.inference_mode():
        parts = [mean_loss(network, features, examples, part) * len(part) for part in rows.split(batch_size)]
        return float(torch.stack(parts).sum()) / len(rows)

"""Stage `fit_mlp`: the reward models BT-MLP and CLF-MLP on frozen embeddings.

`training: paper` is the procedure of the released `step5_train_rms.py` and `networks.py` of "Rethinking Reward
Modeling" (arXiv 2411.04991, ICLR 2025), whose small step budget is part of the method, with every draw seeded.
`training: clean` is an ordinary procedure without its quirks. Initial weights, split and batches depend on (seed,
member), not on the loss.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from workers.device import device
from workers.device_memory import require_room
from workers.precision import factor_type, matmul_precision
from workers.reward_models.configs import FitMlpConfig
from workers.reward_models.embeddings import Embeddings, open_embeddings
from workers.reward_models.heads import build_mlp, save_mlp
from workers.reward_models.mlp import Batch, Mlp
from workers.reward_models.pairs import Rows, read_pairs
from workers.seeding import derive_seed, generator
from workers.stage import Call

#: Fits that run side by side on a GPU: while one waits for its batches to be drawn the others compute.
SIDE_BY_SIDE = 4


@dataclass(frozen=True)
class Examples:
    """The 2n examples of n annotations; example r < n and its twin r + n are of annotation r."""

    responses: torch.Tensor
    """(2n, 2) or (2n, 1), int64: rows of the features. The logit of a pair is f(first) - f(second)."""
    labels: torch.Tensor
    """(2n,), float32: 1 or 0."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Training:
    """The figures of a training; losses are binary cross-entropies in nats per example."""

    epochs: int
    steps: int
    train_loss: float
    """Mean over the examples seen in the last epoch, each before the step that it took part in."""
    validation_loss: float
    """Loss of the weights that are kept."""


def fit_mlp(config: FitMlpConfig, out: Path, *, annotations: Path, embeddings: list[Path]) -> dict[str, float]:
    """Train an MLP d -> hidden... -> 1 on the annotations, or an ensemble of several.

    Args:
        config: how to train.
        out: receives `reward_model.json` and `weights.safetensors`.
        annotations: artifact of the annotations.
        embeddings: artifacts of the annotated responses.

    Returns:
        `epochs` and `steps` (of Adam) that were run, `train_loss` (mean of the last epoch) and `validation_loss` (of
        the kept weights), both binary cross-entropies in nats per example; of several members their means.

    Raises:
        ValueError: the annotations are of other embeddings, an embedding is not finite, there are too few annotations
            to hold any out, or the training diverged.
    """
    features, place = _used(open_embeddings(embeddings), read_pairs(annotations).rows, config.precision)
    with matmul_precision(config.precision):
        return _fit(config, out, features, place)


def fit_mlps(calls: Sequence[Call]) -> Iterator[dict[str, float] | None]:
    """Train several MLPs on the same embeddings, which are copied once.

    Args:
        calls: of `fit_mlp`; they agree in embeddings and precision.

    Yields:
        The metrics of each call in turn, None for one that fails. Artifacts are bit for bit those of `fit_mlp`.

    Raises:
        ValueError: some annotations are of other embeddings, or an embedding is not finite.
    """
    pairs = [read_pairs(call.path("annotations")).rows for call in calls]
    source = open_embeddings(calls[0].paths("embeddings"))
    features, place = _used(source, np.concatenate(pairs), calls[0].config.precision)
    places = np.split(place, np.cumsum([len(each) for each in pairs])[:-1])

    def fit(number: int) -> dict[str, float] | None:
        try:
            return _fit(calls[number].config, calls[number].out, features, places[number])
        except ValueError:
            return None

    def fit_all() -> Iterator[dict[str, float] | None]:
        with matmul_precision(calls[0].config.precision):
            yield from (_side_by_side(fit, len(calls)) if features.is_cuda else map(fit, range(len(calls))))

    return fit_all()


def _side_by_side(fit: Callable[[int], dict[str, float] | None], count: int) -> Iterator[dict[str, float] | None]:
    def on_a_stream(number: int) -> dict[str, float] | None:
        with torch.cuda.stream(torch.cuda.Stream()):
            return fit(number)

    torch.cuda.synchronize()  # the features have arrived
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        yield from pool.map(on_a_stream, range(count))


def _used(source: Embeddings, rows: Rows, precision: str) -> tuple[torch.Tensor, Rows]:
    """Copy the features (m, d) of the distinct responses among flat `rows`, and find the place of each row in them."""
    used, place = np.unique(rows, return_inverse=True)
    features, dtype = torch.from_numpy(source.gather(used)), factor_type(precision)
    require_room(features.numel() * dtype.itemsize, f"the embeddings of {len(used):,} responses")
    return features.to(device(), dtype), place


def _fit(config: FitMlpConfig, out: Path, features: torch.Tensor, place: Rows) -> dict[str, float]:
    """Train and save; `place` (2n,) holds the rows of `features` of all winners, then of all losers."""
    examples = mirror(place[: len(place) // 2], place[len(place) // 2 :], config.loss)
    networks, trainings = [], []
    for member in range(config.member, config.member + config.members):
        one = config.model_copy(update={"member": member})
        networks.append(initial_network(features.shape[1], one).to(features.device))
        trainings.append(train(networks[-1], features, examples, one))
    save_mlp(networks, features.shape[1], config.hidden, out, config.aggregation)
    return {
        "epochs": statistics.fmean(each.epochs for each in trainings),
        "steps": statistics.fmean(each.steps for each in trainings),
        "train_loss": statistics.fmean(each.train_loss for each in trainings),
        "validation_loss": statistics.fmean(each.validation_loss for each in trainings),
    }


def mirror(winner: Rows, loser: Rows, loss: str) -> Examples:
    """Make the 2n examples of n annotations; `winner` and `loser` (n,) are rows of the features.

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
    """Make the untrained network of (seed, member) on the CPU, and leave torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(config.seed, f"fit_mlp/weights/{config.member}"))
        return build_mlp(dimension, config.hidden)


def split_rows(annotations: int, config: FitMlpConfig) -> tuple[Rows, Rows]:
    """Split the 2n examples into rows for training and for validation, the latter ceil(validation * size).

    paper: the examples are shuffled (the script does so unseeded; here by `seed`) and then split as by scikit-learn's
    `train_test_split(random_state=42 + member)`, so the twin of a validation example is mostly in training. clean:
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
    """Return ceil(rows / batch_size): 1, 2, 4, 7 for 80 % of 2n examples, n = 5k, 10k, 20k, 40k, batches of 10,240."""
    return math.ceil(rows / batch_size)


def epoch_batches(rows: int, config: FitMlpConfig, random: torch.Generator) -> Iterator[torch.Tensor]:
    """Draw the batches of one epoch, as positions among the training rows.

    paper: every step draws min(batch_size, rows) of all rows afresh, without replacement. clean: the shuffled rows are
    cut into as many parts, equal to within one row, so that no batch is a remainder of a few rows.
    """
    steps = steps_per_epoch(rows, config.batch_size)
    if config.training == "paper":
        for _ in range(steps):
            yield torch.randperm(rows, generator=random)[: config.batch_size]
    else:
        yield from torch.tensor_split(torch.randperm(rows, generator=random), steps)


def should_stop(losses: Sequence[float], config: FitMlpConfig) -> bool:
    """Decide whether training ends, given the validation losses so far, one per epoch.

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
    largest = min(config.batch_size, len(train_rows)) * examples.responses.shape[1]
    rows = min(largest, len(features))
    mlp = Mlp(network, config.learning_rate, rows, features.dtype)
    held_out = _batch(examples, validation_rows, features)
    losses: list[float] = []
    best = mlp.parameters
    steps = 0
    train_loss = math.nan
    for epoch in range(config.epochs):
        total, seen = torch.zeros((), device=features.device), 0
        for positions in epoch_batches(len(train_rows), config, random):
            total += mlp.step(features, _batch(examples, train_rows[positions], features)) * len(positions)
            seen += len(positions)
            steps += 1
        train_loss = float(total) / seen
        losses.append(float(mlp.loss(features, held_out)))
        if not math.isfinite(train_loss) or not math.isfinite(losses[-1]):
            raise ValueError(
                f"training diverged in epoch {epoch + 1}: train loss {train_loss}, validation loss {losses[-1]};"
                " lower the learning rate"
            )
        if config.training == "clean" and losses[-1] < min(losses[:-1], default=math.inf):
            best = mlp.parameters.clone()
        if should_stop(losses, config):
            break
    mlp.give_back(best)
    kept = losses[-1] if config.training == "paper" else min(losses)
    return Training(len(losses), steps, train_loss, kept)


def _batch(examples: Examples, rows: torch.Tensor, features: torch.Tensor) -> Batch:
    return Batch(examples.responses[rows], examples.labels[rows], len(features), features.device)

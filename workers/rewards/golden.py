"""Stage `golden`: the reward model that stands in for the true preference."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workers.checkpoints import NONE, Checkpoints
from workers.config import HubModel, LocalPath
from workers.language_models.batches import Passes
from workers.language_models.models import write_reference
from workers.language_models.transcripts import answer_ids
from workers.rewards.configs import GoldenConfig, RewardTraining
from workers.rewards.scalar_model import ScalarModel
from workers.rewards.training import load_start, train
from workers.seeding import generator
from workers.tables import PREFERENCES


def golden(
    config: GoldenConfig,
    out: Path,
    *,
    preferences: Path | None = None,
    policy: Path | None = None,
    checkpoints: Checkpoints = NONE,
) -> dict[str, float]:
    """Refer to a published reward model, or train one on preferences.

    All weights are trained in float32; see `workers.rewards.training`. Texts are prompt + response, exactly as the
    stage `score` reads them; rows longer than `max_tokens` lose their beginning, and none is dropped.

    Args:
        config: a model, or how to train one.
        out: receives `reference.json`, or `model/` and `history.parquet`.
        preferences: artifact of (prompt, chosen, rejected) rows; needed to train.
        policy: artifact of the model that training starts from, unless the config names one.
        checkpoints: those of the step.

    Returns:
        Nothing for a reference. After training, on held-out rows: `golden_accuracy`, the share with a strictly
        greater reward for the chosen response, and `golden_loss`, the mean of the Bradley-Terry loss in nats.

    Raises:
        ValueError: no preferences, too few of them to hold some out, or nothing to start from.
        FileNotFoundError: the model cannot be read.
    """
    if config.train is None:
        assert config.model is not None, "GoldenConfig refuses a config with neither model nor train"
        write_reference(config.model, out)
        return {}
    if preferences is None:
        raise ValueError("training a golden reward model needs a `preferences` input")
    named = config.model or policy
    if named is None:
        raise ValueError("training a golden reward model starts from a model: give `model`, or a `policy` input")
    return _train(config.train, out, preferences, named, checkpoints)


def _train(
    config: RewardTraining,
    out: Path,
    preferences: Path,
    named: Path | LocalPath | HubModel,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    path = PREFERENCES.path(preferences)
    table = PREFERENCES.read(preferences)
    held = round(config.held_out * table.num_rows)
    if not 0 < held < table.num_rows:
        raise ValueError(f"{path}: {table.num_rows} preferences are too few to hold out {config.held_out:.0%}")
    start = load_start(named, config, "golden")
    ids = answer_ids(table, start.tokenizer, max_tokens=start.limit)
    order = generator(config.seed, "golden/held_out").permutation(table.num_rows)
    train(config, start, ids, np.sort(order[held:]), out, "golden", checkpoints)
    scalar = ScalarModel(start.tokenizer, start.model)
    passes = Passes(config.batch_size * start.limit)
    chosen, rejected = (
        scalar.rewards([ids[answer][row] for row in order[:held]], range(held), passes)
        for answer in ("chosen", "rejected")
    )
    gap = chosen.astype(np.float64) - rejected
    return {"golden_accuracy": float((gap > 0).mean()), "golden_loss": float(np.logaddexp(0.0, -gap).mean())}

"""Stage `golden`: the reward model that stands in for the true preference."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import set_seed
from trl import RewardConfig, RewardTrainer

from workers.history import write_history
from workers.language_models import models
from workers.language_models.training import RequireUpdates, ShowProgress, arguments
from workers.rewards import scoring as scalar
from workers.rewards.configs import GoldenConfig, RewardTraining
from workers.seeding import derive_seed, generator
from workers.tables import PREFERENCES, read_table


def golden(
    config: GoldenConfig, out: Path, *, preferences: Path | None = None, policy: Path | None = None
) -> dict[str, float]:
    """Refer to a published reward model, or train one on preferences with TRL's RewardTrainer.

    Training minimises -log sigmoid(r(chosen) - r(rejected)) (Bradley-Terry) in float32 over all weights, with TRL's
    defaults otherwise. Texts are prompt + response without an EOS token, exactly as the `score` stage reads them;
    rows longer than `max_tokens` lose their beginning, and none is dropped.

    Args:
        config: a model, or how to train one.
        out: receives `reference.json`, or `model/` and `history.parquet`.
        preferences: artifact of (prompt, chosen, rejected) rows; needed to train.
        policy: artifact of the model that training starts from, unless the config names one.

    Returns:
        Nothing for a reference. After training, on held-out rows: `golden_accuracy`, the share with a strictly
        greater reward for the chosen response, and `golden_loss`, the mean of the loss above in nats.

    Raises:
        ValueError: no preferences, too few of them to hold some out, or nothing to start from.
        FileNotFoundError: the model cannot be read.
    """
    if config.train is None:
        assert config.model is not None, "GoldenConfig refuses a config with neither model nor train"
        models.write_reference(config.model, out)
        return {}
    if preferences is None:
        raise ValueError("training a golden reward model needs a `preferences` input")
    start = config.model or policy
    if start is None:
        raise ValueError("training a golden reward model starts from a model: give `model`, or a `policy` input")
    return _train(config.train, out, preferences, models.locate(start))


def _train(training: RewardTraining, out: Path, preferences: Path, source: models.Source) -> dict[str, float]:
    path = preferences / "preferences.parquet"
    table = read_table(path, PREFERENCES)
    held = round(training.held_out * table.num_rows)
    if not 0 < held < table.num_rows:
        raise ValueError(f"{path}: {table.num_rows} preferences are too few to hold out {training.held_out:.0%}")

    tokenizer = models.load_tokenizer(source)
    set_seed(derive_seed(training.seed, "golden/head", bits=32))
    new = tuple(f"{name}." for name in scalar.HEADS)
    model = scalar.load_scalar(source, tokenizer, dtype="float32", new=new)
    limit = models.token_limit(model, tokenizer, training.max_tokens)
    prompts = table.column("prompt").to_pylist()
    ids = {
        answer: models.tokenise(
            tokenizer, [p + a for p, a in zip(prompts, table.column(answer).to_pylist(), strict=True)], limit
        )
        for answer in ("chosen", "rejected")
    }
    order = generator(training.seed, "golden/held_out").permutation(table.num_rows)
    kept = np.sort(order[held:])
    rows = Dataset.from_dict({f"{answer}_ids": [ids[answer][i] for i in kept] for answer in ids})
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        trainer = RewardTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=rows,
            callbacks=[ShowProgress(), RequireUpdates()],
            args=RewardConfig(
                **arguments(
                    scratch,
                    learning_rate=training.learning_rate,
                    epochs=training.epochs,
                    batch_size=training.batch_size,
                    seed=derive_seed(training.seed, "golden", bits=32),
                )
            ),
        )
        trainer.train()
    model.eval()
    chosen, rejected = (
        models.rewards(model, tokenizer, [ids[answer][i] for i in order[:held]], training.batch_size)
        for answer in ("chosen", "rejected")
    )
    models.save_model(model, tokenizer, out)
    write_history(trainer.state.log_history, out)
    gap = chosen.astype(np.float64) - rejected
    return {"golden_accuracy": float((gap > 0).mean()), "golden_loss": float(np.logaddexp(0.0, -gap).mean())}

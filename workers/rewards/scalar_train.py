"""Stage `scalar_train`: a scalar reward model, to compare generative judges with."""

from __future__ import annotations

from pathlib import Path

from workers.checkpoints import NONE, Checkpoints
from workers.language_models.transcripts import answer_ids, short_rows
from workers.rewards.configs import ScalarTrainConfig
from workers.rewards.training import load_start, train
from workers.tables import PREFERENCES


def scalar_train(
    config: ScalarTrainConfig, out: Path, *, policy: Path, preferences: Path, checkpoints: Checkpoints = NONE
) -> dict[str, float]:
    """Train a reward head on `policy`: the baseline SM of Con-J (arXiv 2410.03742). Write the model, or its adapter.

    The head starts out random; for the rest, see `workers.rewards.training`. The stages `score`, `margins` and
    `scalar_verdicts` read the model.

    Args:
        config: how to train.
        out: receives `history.parquet`, and `model/` or with LoRA `adapter/` and `reference.json`; the head is float32
            whatever `dtype` is.
        policy: artifact of the model to start from.
        preferences: artifact of (prompt, chosen, rejected) rows; all of them are trained on.
        checkpoints: those of the step.

    Returns:
        `scalar_loss`: mean of the loss over the training steps, in nats. `scalar_steps`: optimizer steps.
        `scalar_rows`: rows trained on. `long_rows`: rows left out because one of their transcripts has more tokens
        than `max_tokens`, or than the model can read.

    Raises:
        ValueError: no row is short enough, or `chat` without a chat template.
        FileNotFoundError: the policy cannot be read.
    """
    start = load_start(policy, config, "scalar_train")
    path = PREFERENCES.path(preferences)
    table = PREFERENCES.read(preferences)
    ids = answer_ids(table, start.tokenizer, chat=config.chat)
    kept = short_rows(ids, start.limit, path)
    trained = train(config, start, ids, kept, out, "scalar_train", checkpoints)
    return {
        "scalar_loss": trained.loss,
        "scalar_steps": float(trained.steps),
        "scalar_rows": float(len(kept)),
        "long_rows": float(table.num_rows - len(kept)),
    }

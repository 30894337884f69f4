"""Stage `scalar_train`: a scalar reward model, to compare generative judges with."""

from __future__ import annotations

import tempfile
from pathlib import Path

from datasets import Dataset
from transformers import set_seed
from trl import RewardConfig, RewardTrainer

from workers.history import write_history
from workers.language_models import models, training
from workers.language_models.transcripts import transcript_ids
from workers.rewards import scoring as scalar
from workers.rewards.configs import ScalarTrainConfig
from workers.seeding import derive_seed
from workers.tables import PREFERENCES, read_table


def scalar_train(config: ScalarTrainConfig, out: Path, *, policy: Path, preferences: Path) -> dict[str, float]:
    """Train a reward head on `policy` with TRL's RewardTrainer, and write the (merged) model.

    Minimises the mean of -log sigmoid(r(chosen) - r(rejected)) (Bradley-Terry): the baseline SM of Con-J (arXiv
    2410.03742). The head starts out random and computes in float32; with LoRA it is trained whole. In plain text there
    is no EOS token, as in the stages `golden`, `score` and `margins`, which read such models too; those know no
    chats. The rest is as `workers.language_models.training` says.

    Args:
        config: how to train.
        out: receives `history.parquet` and `model/`, its head in float32 whatever `dtype` is.
        policy: artifact of the model to start from.
        preferences: artifact of (prompt, chosen, rejected) rows; all of them are trained on.

    Returns:
        `scalar_loss`: mean of the loss over the training steps, in nats. `scalar_steps`: optimizer steps.
        `scalar_rows`: rows trained on. `long_rows`: rows left out because one of their transcripts has more tokens
        than `max_tokens`, or than the model can read.

    Raises:
        ValueError: no row is short enough, or `chat` without a chat template.
        FileNotFoundError: the policy cannot be read.
    """
    source = models.locate(policy)
    tokenizer = models.load_tokenizer(source)
    set_seed(derive_seed(config.seed, "scalar_train/head", bits=32))
    weights = training.weights_dtype(config.dtype, config.lora)
    new = (*(f"{name}." for name in scalar.HEADS), "pooler.")
    model = scalar.load_scalar(source, tokenizer, dtype=weights, new=new)
    limit = models.token_limit(model, tokenizer, config.max_tokens)

    path = preferences / "preferences.parquet"
    table = read_table(path, PREFERENCES)
    prompts = table.column("prompt").to_pylist()
    ids = {
        answer: transcript_ids(tokenizer, prompts, table.column(answer).to_pylist(), chat=config.chat)
        for answer in ("chosen", "rejected")
    }
    kept = [i for i in range(table.num_rows) if max(len(each[i]) for each in ids.values()) <= limit]
    if not kept:
        raise ValueError(
            f"{path}: none of its {table.num_rows} rows has at most {limit} tokens: raise max_tokens, or train a model"
            " that reads more"
        )
    rows = Dataset.from_dict({f"{answer}_ids": [each[i] for i in kept] for answer, each in ids.items()})
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        trainer = RewardTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=rows,
            callbacks=[training.ShowProgress(), training.RequireUpdates()],
            peft_config=training.adapter(config.lora, "SEQ_CLS", modules_to_save=scalar.heads(model)),
            args=RewardConfig(
                **training.arguments(
                    scratch,
                    learning_rate=config.learning_rate,
                    epochs=config.epochs,
                    batch_size=config.batch_size,
                    gradient_accumulation=config.gradient_accumulation,
                    seed=derive_seed(config.seed, "scalar_train", bits=32),
                    dtype=config.dtype,
                )
            ),
        )
        result = trainer.train()
    trained = training.trained(trainer, config.lora, config.dtype)
    models.save_model(scalar.head_in_float32(trained), tokenizer, out)
    write_history(trainer.state.log_history, out)
    return {
        "scalar_loss": float(result.training_loss),
        "scalar_steps": float(result.global_step),
        "scalar_rows": float(len(kept)),
        "long_rows": float(table.num_rows - len(kept)),
    }

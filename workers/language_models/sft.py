"""Stage `sft`: supervised fine-tuning on demonstrations, loss on the response only."""

from __future__ import annotations

from pathlib import Path

import trl
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from workers.checkpoints import NONE, Checkpoints
from workers.language_models import training
from workers.language_models.configs import SftConfig
from workers.language_models.transcripts import prompt_ids, transcript_ids
from workers.tables import DEMONSTRATIONS

#: Label that torch.nn.CrossEntropyLoss ignores.
IGNORED = -100


def sft(
    config: SftConfig, out: Path, *, policy: Path, demonstrations: Path, checkpoints: Checkpoints = NONE
) -> dict[str, float]:
    """Fine-tune `policy` with TRL's SFTTrainer and write the model, or its adapter.

    Each row is prompt + response + EOS, and only the response and EOS enter the loss; of a chat, the response ends as
    the template ends a turn. A row longer than `max_tokens` is cut or left out, depending on `long_rows`. Optimizer,
    LoRA and precision: see `workers.language_models.training`.

    Args:
        config: how to train.
        out: receives `history.parquet`, and `model/` or with LoRA `adapter/` and `reference.json`.
        policy: artifact of the model to start from.
        demonstrations: artifact of (prompt, response) rows.
        checkpoints: those of the step.

    Returns:
        `sft_loss`: mean over the training steps of the loss, in nats per response token; `sft_steps`: optimizer steps.
        `long_rows`: rows left out, if the config leaves rows out.

    Raises:
        ValueError: there are no demonstrations, or all are left out; or `chat` without a chat template.
        FileNotFoundError: the policy cannot be read.
    """
    start = training.load_start(policy, config)
    rows, long_rows = _rows(config, demonstrations, start.tokenizer, start.limit)
    trained = training.train(
        trl.SFTTrainer, trl.SFTConfig, config, start, rows, out, label="sft", checkpoints=checkpoints
    )
    left_out = {"long_rows": float(long_rows)} if config.long_rows == "leave_out" else {}
    return {"sft_loss": trained.loss, "sft_steps": float(trained.steps), **left_out}


def _rows(
    config: SftConfig, demonstrations: Path, tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[Dataset, int]:
    """Make columns `input_ids` and `labels` of at most `limit` tokens a row, and count longer rows."""
    path = DEMONSTRATIONS.path(demonstrations)
    table = DEMONSTRATIONS.read(demonstrations)
    if table.num_rows == 0:
        raise ValueError(f"{path}: no demonstrations")
    prompts, responses = (table.column(name).to_pylist() for name in ("prompt", "response"))
    end = [] if config.chat else [tokenizer.eos_token_id]
    ids, labels = [], []
    long_rows = 0
    for prompt, transcript in zip(
        prompt_ids(tokenizer, prompts, chat=config.chat),
        transcript_ids(tokenizer, prompts, responses, chat=config.chat),
        strict=True,
    ):
        whole = transcript + end
        # A token may straddle prompt and response, so the response starts where the two differ.
        start = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
        marked = [IGNORED] * start + whole[start:]
        head = int(whole[0] == tokenizer.bos_token_id)
        surplus = max(0, len(whole) - limit)
        long_rows += surplus > 0
        if surplus and config.long_rows == "leave_out":
            continue
        ids.append(whole[:head] + whole[head + surplus :])
        labels.append(marked[:head] + marked[head + surplus :])
    if not ids:
        raise ValueError(
            f"{path}: none of its {long_rows} rows has at most {limit} tokens: raise max_tokens, or train a model with "
            "more context"
        )
    if long_rows:
        fate = "are left out" if config.long_rows == "leave_out" else "lose the beginning of their prompt"
        print(f"{long_rows} of {table.num_rows} rows have more than {limit} tokens and {fate}", flush=True)
    return Dataset.from_dict({"input_ids": ids, "labels": labels}), long_rows

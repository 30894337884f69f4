"""Stage `dpo`: direct preference optimisation, also with a supervised term, or with that alone."""

from __future__ import annotations

from pathlib import Path

import trl
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from workers.checkpoints import NONE, Checkpoints
from workers.data.chat import answer_message, messages
from workers.language_models import training
from workers.language_models.configs import DpoConfig
from workers.language_models.transcripts import answer_ids, short_rows
from workers.tables import PREFERENCES


def dpo(
    config: DpoConfig, out: Path, *, policy: Path, preferences: Path, checkpoints: Checkpoints = NONE
) -> dict[str, float]:
    """Train `policy` with TRL's DPOTrainer and write the model, or its adapter.

    Minimises dpo_weight * L_DPO + sft_weight * L_SFT of each batch. L_DPO is the mean over its rows of
    -log sigmoid(beta * (log p(chosen)/p_ref(chosen) - log p(rejected)/p_ref(rejected))), where log p sums over the
    tokens of the answer and its end (arXiv 2305.18290, eq. 7). L_SFT is the mean over all tokens of the chosen answers
    of the batch, and their ends, of -log p. A weight of 0 leaves its term out, and does not only multiply it by 0.

    Log-probabilities, both terms and their sum are float32, also under autocast; the reference is the policy before
    its first step, computed once per row. Yet Con-J's sft_weight of 1e-6 changes the loss and hardly the model: a token
    of a chosen answer has a gradient of about beta/2 per row from L_DPO, and of sft_weight per token of the batch
    from L_SFT. In float32 that difference is in the last bits, in bfloat16 it is lost on the way back through the
    network. (Con-J's scripts take a step on the SFT loss alone, with weight 1e-3, once in 1,000 steps, and leave
    hinted pairs out of it: `openrlhf/trainer/dpo_trainer.py`.)

    In plain text an answer ends with the EOS token; in a chat as the template ends a turn. A token that straddles
    prompt and answer belongs to the answer. The learning rate rises over `warmup` of the steps and falls as a cosine
    to 0; for the rest, see `workers.language_models.training`. TRL logs every 10 steps.

    Args:
        config: how to train.
        out: receives `history.parquet`, and `model/` or with LoRA `adapter/` and `reference.json`.
        policy: artifact of the model to start from.
        preferences: artifact of (prompt, chosen, rejected) rows.
        checkpoints: those of the step.

    Returns:
        `dpo_loss`: mean of the loss over the training steps. `dpo_steps`: optimizer steps. `dpo_rows`: rows trained
        on. `long_rows`: rows left out because one of their transcripts has more tokens than `max_tokens`, or than the
        model can read.

    Raises:
        ValueError: no row is short enough, or `chat` without a chat template.
        FileNotFoundError: the policy cannot be read.
    """
    start = training.load_start(policy, config)
    rows, long_rows = _rows(config, preferences, start.tokenizer, start.limit)
    weighted = {"sigmoid": config.dpo_weight, "sft": config.sft_weight}
    terms = {name: weight for name, weight in weighted.items() if weight}
    trained = training.train(
        trl.DPOTrainer,
        trl.DPOConfig,
        config,
        start,
        rows,
        out,
        label="dpo",
        checkpoints=checkpoints,
        beta=config.beta,
        loss_type=list(terms),
        loss_weights=list(terms.values()),
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup,
        # Otherwise TRL keeps a second model in memory for it.
        precompute_ref_log_probs=True,
    )
    return {
        "dpo_loss": trained.loss,
        "dpo_steps": float(trained.steps),
        "dpo_rows": float(len(rows)),
        "long_rows": float(long_rows),
    }


def _rows(config: DpoConfig, preferences: Path, tokenizer: PreTrainedTokenizerBase, limit: int) -> tuple[Dataset, int]:
    """Make the rows that TRL tokenises, and count those longer than `limit` tokens.

    Columns `prompt`, `chosen`, `rejected` are texts (TRL adds EOS), or lists of messages.
    """
    path = PREFERENCES.path(preferences)
    table = PREFERENCES.read(preferences)
    ids = answer_ids(table, tokenizer, chat=config.chat)
    kept = short_rows(ids, limit, path, end=0 if config.chat else 1)
    columns = table.select(["prompt", "chosen", "rejected"]).take(kept).to_pydict()
    if config.chat:
        columns["prompt"] = [messages(prompt) for prompt in columns["prompt"]]
        for answer in ("chosen", "rejected"):
            columns[answer] = [[answer_message(text)] for text in columns[answer]]
    return Dataset.from_dict(columns), table.num_rows - len(kept)

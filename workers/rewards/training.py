"""Training of a reward head with TRL's RewardTrainer, on preferences as token ids.

Minimises the mean of -log sigmoid(r(chosen) - r(rejected)) (Bradley-Terry 1952; arXiv 2203.02155, eq. 1). The head
computes in float32; with LoRA it is trained whole. Plain text has no EOS token, as in the stages that score. The rest
is as `workers.language_models.training` says.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import trl
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from workers.config import Dtype, HubModel, LocalPath
from workers.language_models import models, training
from workers.language_models.transcripts import transcript_ids
from workers.rewards.scalar_model import head_names, load_classifier
from workers.seeding import derive_seed

#: Token ids of each row's answers, each read after the prompt.
AnswerIds = dict[str, list[list[int]]]


def load_start(named: Path | LocalPath | HubModel, config: training.TrainingConfig, label: str) -> training.Start:
    """Load a language model with a random head, or a reward model, to start training from.

    The seed of the head is `derive_seed(config.seed, f"{label}/head")`.

    Raises:
        FileNotFoundError: the model cannot be read.
        ValueError: as `load_classifier`.
    """

    def load(source: models.Source, tokenizer: PreTrainedTokenizerBase, dtype: Dtype) -> PreTrainedModel:
        set_seed(derive_seed(config.seed, f"{label}/head", bits=32))
        return load_classifier(source, tokenizer, dtype, new_head=True)

    return training.load_start(named, config, load)


def answer_ids(
    table: pa.Table, tokenizer: PreTrainedTokenizerBase, *, chat: bool = False, max_tokens: int | None = None
) -> AnswerIds:
    """Tokenise the `chosen` and the `rejected` answers of preferences; see `transcript_ids`.

    Raises:
        ValueError: `chat`, but the tokenizer has no chat template.
    """
    prompts = table["prompt"].to_pylist()
    return {
        answer: transcript_ids(tokenizer, prompts, table[answer].to_pylist(), chat=chat, max_tokens=max_tokens)
        for answer in ("chosen", "rejected")
    }


def train(
    config: training.TrainingConfig, start: training.Start, ids: AnswerIds, rows: Iterable[int], out: Path, label: str
) -> training.Trained:
    """Train on some rows, in their order; write `model/`, its head in float32, and `history.parquet`.

    Raises:
        ValueError: as `workers.language_models.training.train`.
    """
    rows = list(rows)
    return training.train(
        trl.RewardTrainer,
        trl.RewardConfig,
        config,
        start,
        Dataset.from_dict({f"{answer}_ids": [each[row] for row in rows] for answer, each in ids.items()}),
        out,
        label=label,
        task="SEQ_CLS",
        head=head_names(start.model),
    )

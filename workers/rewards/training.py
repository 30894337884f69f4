"""Training of a reward head with TRL's RewardTrainer, on preferences as token ids.

Minimises the mean of -log sigmoid(r(chosen) - r(rejected)) (Bradley-Terry 1952; arXiv 2203.02155, eq. 1). The head
computes in float32; with LoRA it is trained whole. Plain text has no EOS token, as in the stages that score. For the
rest, see `workers.language_models.training`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import trl
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from workers.checkpoints import NONE, Checkpoints
from workers.config import Dtype, HubModel, LocalPath
from workers.language_models import models, training
from workers.language_models.transcripts import AnswerIds
from workers.rewards.scalar_model import head_names, load_classifier
from workers.seeding import derive_seed


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


def train(
    config: training.TrainingConfig,
    start: training.Start,
    ids: AnswerIds,
    rows: Iterable[int],
    out: Path,
    label: str,
    checkpoints: Checkpoints = NONE,
) -> training.Trained:
    """Train on some rows, in their order; write `history.parquet`, and `model/` or `adapter/` with a float32 head.

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
        checkpoints=checkpoints,
        task="SEQ_CLS",
        head=head_names(start.model),
    )

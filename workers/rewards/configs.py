"""Configs of the stages of scalar reward models; see `workers.config`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from workers.config import Config, Dtype, Fraction, NamedModel, PositiveFloat, PositiveInt, ReadingDtype, Seed
from workers.language_models.configs import Lora
from workers.metric import Metric
from workers.reward_models.configs import REWARD_METRICS


class RewardTraining(Config):
    """Training of a golden reward model, with TRL's RewardTrainer. Defaults are this project's choices."""

    learning_rate: PositiveFloat = 1e-3
    epochs: PositiveFloat = 1
    batch_size: PositiveInt = 16
    max_tokens: PositiveInt = 512
    held_out: Fraction = 0.1
    """Share of the preferences kept out of training, on which `golden_accuracy` is measured."""
    seed: Seed = 0

    # Fixed for golden reward models; `workers.language_models.training` reads them from every config.
    gradient_accumulation: ClassVar[int] = 1
    lora: ClassVar[Lora | None] = None
    dtype: ClassVar[Dtype] = "float32"


class GoldenConfig(Config):
    """Config of `golden`: a published reward model (`model`), or one trained here on preferences (`train`)."""

    model: NamedModel | None = None
    """A sequence classifier with one label. With `train`, the model that training starts from; without it, training
    starts from the `policy` input."""
    train: RewardTraining | None = None

    @model_validator(mode="after")
    def _something_to_score_with(self) -> GoldenConfig:
        if self.model is None and self.train is None:
            raise ValueError("give a model (Hub name or {path: …}), or train: {…} to make one from preferences")
        return self

    def metrics(self) -> tuple[str | Metric, ...]:
        if self.train is None:
            return ()
        return (Metric("golden_accuracy", better="higher"), Metric("golden_loss", better="lower"))


class ScoringConfig(Config):
    """Settings of how a scalar reward model reads prompts and answers."""

    max_tokens: PositiveInt = 512
    """Prompt and answer together; 512 in the scripts of arXiv 2411.04991 (`step3_reward_annotation.py`). Longer texts
    lose their beginning."""
    chat: bool = False
    """Put prompts and answers into the chat template of the tokenizer, as messages, as the model wants it."""
    dtype: ReadingDtype = "float32"
    """Type that the model computes in, except for the head, which computes in float32. tf32: weights and sums in
    float32, but a GPU rounds the factors of products to TF32, as with `precision: tf32` of the fits; a CPU has none,
    and the step fails there."""


class ScoreConfig(ScoringConfig):
    """Config of `score`: golden rewards of responses."""

    cut_at: str | None = "\n\nHuman"
    """The response is cut where this text begins ("\\n\\nHuman" in `step3_reward_annotation.py`)."""
    strip: bool = False
    """White space around the response is removed, as in `step3_reward_annotation.py`, so that no space separates it
    from "Assistant:"."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return REWARD_METRICS


class MarginsConfig(ScoringConfig):
    """Config of `margins`: the golden reward of the chosen answer minus that of the rejected one."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("mean_reward_gap",)


class ScalarTrainConfig(Config):
    """Config of `scalar_train`, the training of a scalar (Bradley-Terry) reward model, with TRL's RewardTrainer.

    Defaults are those of the baseline SM of Con-J (arXiv 2410.03742).
    """

    learning_rate: PositiveFloat = 9e-6
    epochs: PositiveFloat = 1
    batch_size: PositiveInt = 128
    """Rows per forward pass; with `gradient_accumulation` g an optimizer step sees g times as many."""
    gradient_accumulation: PositiveInt = 1
    max_tokens: PositiveInt = 4096
    """Prompt and answer together. Longer rows are left out and counted."""
    lora: Lora | None = None
    chat: bool = False
    """Put prompts and answers into the chat template of the tokenizer, as messages."""
    dtype: Dtype = "float32"
    seed: Seed = 0

    def metrics(self) -> tuple[str | Metric, ...]:
        return (Metric("scalar_loss", better="lower"), "scalar_steps", "scalar_rows", "long_rows")


class ScalarVerdictsConfig(ScoringConfig):
    """Config of `scalar_verdicts`: the strictly greater reward wins; a tie counts against the label."""

    max_tokens: PositiveInt = 4096
    """Prompt and answer together (default: that of `ScalarTrainConfig`). Longer texts lose their beginning."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("verdicts", "ties")

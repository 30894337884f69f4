"""Configs of the stages of data; see `workers.config`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workers.config import Config, Data, FiniteFloat, NamedModel, PositiveFloat, PositiveInt, Seed
from workers.metric import Metric


class Columns(Config):
    """Names of the columns of a pair of answers, for a source whose columns have other names than the known ones.

    Either `chosen` and `rejected` are given, or `first`, `second` and `label`.
    """

    prompt: str = "prompt"
    """Column of the prompt; rows may lack it where the answers are whole dialogues."""
    chosen: str | None = None
    """Column of the better answer."""
    rejected: str | None = None
    """Column of the worse answer."""
    first: str | None = None
    """Column of the first answer."""
    second: str | None = None
    """Column of the second answer."""
    label: str | None = None
    """Column that marks the better one of `first` and `second`."""
    label_of_first: int | str = 1
    """Value of `label` where the first is the better one (LLMBar: 1, PKU-SafeRLHF's better_response_id: 0). There can
    be only one other value."""
    subset: str | None = None
    """Column that names the subset of a row."""

    @model_validator(mode="after")
    def _one_of_the_two_forms(self) -> Columns:
        named = self.chosen is not None and self.rejected is not None
        labelled = self.first is not None and self.second is not None and self.label is not None
        if named == labelled:
            raise ValueError("give the columns chosen and rejected, or first, second and label")
        return self


class DataConfig(Config):
    """Fields that the configs of all stages of data share."""

    source: Data
    """JSONL or JSON file (gzipped or not), Parquet file, or Hub data set; for the forms of its rows, see
    `workers.data.dialogue_rows`."""
    columns: Columns | None = None
    """Names of the columns, where they are none of the known ones."""
    incomplete_rows: Literal["error", "skip"] = "error"
    """Whether a row without a prompt or an answer is an error with its line number, or is counted and skipped."""
    seed: Seed = 0
    """Seed of the order of the rows."""


class PromptsConfig(DataConfig):
    """Config of `prompts`: distinct prompts, split into train and test."""

    train: PositiveInt | None = None
    """Number of train prompts; None takes all that the test prompts leave."""
    test: PositiveInt | None = None
    """Number of test prompts; None takes all of `test_source`, and is allowed only with it."""
    test_source: Data | None = None
    """Source of the test prompts; without it they are held out of `source`."""
    max_tokens: PositiveInt | None = 450
    """Longest prompt; longer ones are dropped and counted (paper: 450)."""
    tokenizer: NamedModel | None = None
    """Tokenizer that counts `max_tokens`; without it, words between white space are counted."""

    @model_validator(mode="after")
    def _test_prompts_are_defined(self) -> PromptsConfig:
        if self.test is None and self.test_source is None:
            raise ValueError("say how many test prompts to hold out (test: 100), or give a test_source")
        return self

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("train_prompts", "test_prompts", "skipped_rows", "long_prompts")


class DemonstrationsConfig(DataConfig):
    """Config of `demonstrations`: (prompt, response) pairs; of preference rows the chosen response is taken."""

    limit: PositiveInt | None = None
    """Number of rows; None takes all."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("demonstrations", "skipped_rows", "held_out_rows")


class PreferencesConfig(DataConfig):
    """Config of `preferences`: (prompt, chosen, rejected) rows."""

    limit: PositiveInt | None = None
    """Number of rows; None takes all."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("preferences", "skipped_rows", "held_out_rows")


class TestSet(DataConfig):
    """One of the sets that judges and reward models are tested on."""

    # Otherwise pytest takes it for a test.
    __test__ = False

    limit: PositiveInt | None = None
    """Number of rows; None takes all."""


class TestSetsConfig(Config):
    """Config of `test_sets`: preference sets to test judges and reward models on, gathered in one table."""

    __test__ = False

    sets: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")], TestSet], Field(min_length=1)
    ]
    """Name -> source. The name is the first part of `subset`, and of the names of the metrics. A source that is one
    subset of a set is named `llmbar/llmbar-natural`."""

    def metrics(self) -> tuple[str | Metric, ...]:
        names = dict.fromkeys(name.partition("/")[0] for name in self.sets)
        return (*(f"{name}_rows" for name in names), "skipped_test_rows")


class PerturbConfig(Config):
    """Config of `perturb`: a share of the rows, then a bias, then label noise."""

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the rows that is kept, before the bias."""
    bias: Literal["verbosity", "formatting"] | None = None
    """Bias that explains the label of every row that stays of the first `biased` share. verbosity: the chosen answer is
    more than twice as long as the rejected one in characters (Con-J, section 4.4; unit not published). formatting: only
    the chosen one has Markdown (lists, headings, bold, code, tables); what Con-J counted is not published."""
    biased: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the kept rows to which the bias applies."""
    reversed: bool = False
    """Keep the rows that the bias contradicts instead, for reversed test sets."""
    flip_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    """Probability with which each label is flipped."""
    beta: FiniteFloat | None = None
    """Inverse noise in place of `flip_rate`: a label is kept with probability sigmoid(beta * golden margin / scale).
    Negative is noise-free."""
    scale: PositiveFloat | Literal["std"] = 1.0
    """Divisor of the margins; `std` is the standard deviation of all of them."""
    seed: Seed = 0
    """Seed of the choice of rows and of the noise."""

    @model_validator(mode="after")
    def _one_kind_of_noise(self) -> PerturbConfig:
        if self.flip_rate is not None and self.beta is not None:
            raise ValueError("flip_rate and beta are two ways to say the same: give one of them")
        if self.bias is None and (self.biased or self.reversed):
            raise ValueError("say which bias: verbosity or formatting")
        return self

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("kept_preferences", "flip_rate", "bias_removed_rows")

"""What the stages of data can be told; see `workers.config`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workers.config import Config, Data, FiniteFloat, NamedModel, PositiveFloat, PositiveInt, Seed
from workers.metric import Metric


class Columns(Config):
    """Where a source keeps a pair of answers, if its columns bear other names than those that are known.

    Either `chosen` and `rejected`, or `first`, `second` and `label`.
    """

    prompt: str = "prompt"
    """Rows may lack it where the answers are whole dialogues."""
    chosen: str | None = None
    rejected: str | None = None
    first: str | None = None
    second: str | None = None
    label: str | None = None
    """Column that says which of `first` and `second` is the better one."""
    label_of_first: int | str = 1
    """Its value where the first is the better one (LLMBar: 1, PKU-SafeRLHF's better_response_id: 0). There can be only
    one other value."""
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
    """What the three data stages share."""

    source: Data
    """JSONL or JSON file (gzipped or not), Parquet file, or Hub data set. Forms of rows: `workers.data.dialogues`."""
    columns: Columns | None = None
    """Needed where the columns bear other names than those of a form or of a set that is known there."""
    incomplete_rows: Literal["error", "skip"] = "error"
    """A row without a prompt or an answer stops the step with its line number, or is counted and skipped."""
    seed: Seed = 0


class PromptsConfig(DataConfig):
    """Distinct prompts, split into train and test."""

    train: PositiveInt | None = None
    """Number of train prompts; None takes all that are left after the test prompts."""
    test: PositiveInt | None = None
    """Number of test prompts; None is allowed only with `test_source` and takes all of it."""
    test_source: Data | None = None
    """Where test prompts come from; without it they are held out of `source`."""
    max_tokens: PositiveInt | None = 450
    """Longer prompts are dropped and counted (paper: 450)."""
    tokenizer: NamedModel | None = None
    """Counts `max_tokens`; without it, whitespace-separated words are counted."""

    @model_validator(mode="after")
    def _test_prompts_are_defined(self) -> PromptsConfig:
        if self.test is None and self.test_source is None:
            raise ValueError("say how many test prompts to hold out (test: 100), or give a test_source")
        return self

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("train_prompts", "test_prompts", "skipped_rows", "long_prompts")


class DemonstrationsConfig(DataConfig):
    """(prompt, response) pairs for supervised fine-tuning; of preference rows the chosen response is taken."""

    limit: PositiveInt | None = None

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("demonstrations", "skipped_rows", "held_out_rows")


class PreferencesConfig(DataConfig):
    """(prompt, chosen, rejected) rows."""

    limit: PositiveInt | None = None

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("preferences", "skipped_rows", "held_out_rows")


class TestSet(DataConfig):
    """One of the sets that judges are tested on."""

    # Not a test, whatever pytest thinks of its name.
    __test__ = False

    limit: PositiveInt | None = None


class TestSetsConfig(Config):
    """Preference sets to test judges and reward models on, gathered in one table."""

    __test__ = False

    sets: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")], TestSet], Field(min_length=1)
    ]
    """Name -> where it comes from. The name is the first part of `subset`, and of the metrics' names. A source that is
    one subset of a set is named `llmbar/llmbar-natural`."""

    def metrics(self) -> tuple[str | Metric, ...]:
        names = dict.fromkeys(name.partition("/")[0] for name in self.sets)
        return (*(f"{name}_rows" for name in names), "skipped_test_rows")


class PerturbConfig(Config):
    """Less, biased or noisier preferences: a share of the rows, then a bias, then label noise."""

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the rows that is kept."""
    bias: Literal["verbosity", "formatting"] | None = None
    """Of the first `biased` share of those rows only the ones stay that the bias explains. verbosity: the chosen answer
    is more than twice as long as the rejected one in characters (Con-J, section 4.4; unit not published). formatting:
    only the chosen one has Markdown (lists, headings, bold, code, tables); what Con-J counted is not published."""
    biased: Annotated[float, Field(ge=0, le=1)] = 0.0
    reversed: bool = False
    """Keeps the rows that the bias contradicts: for reversed test sets."""
    flip_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    """Each label is turned round with this probability."""
    beta: FiniteFloat | None = None
    """Or each is kept with probability sigmoid(beta * golden margin / scale); negative is noise-free."""
    scale: PositiveFloat | Literal["std"] = 1.0
    """s above; `std` of all the margins."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_kind_of_noise(self) -> PerturbConfig:
        if self.flip_rate is not None and self.beta is not None:
            raise ValueError("flip_rate and beta are two ways to say the same: give one of them")
        if self.bias is None and (self.biased or self.reversed):
            raise ValueError("say which bias: verbosity or formatting")
        return self

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("kept_preferences", "flip_rate", "bias_removed_rows")

"""What each stage can be told: one frozen pydantic model per stage.

Every field here is part of a step's *identity*: two configs that mean the same give the same key. How a step is run
(CPUs, GPUs, memory, timeouts, where things are stored) is deliberately not sayable here.

This module imports neither torch nor ray, so planning 12,960 cells does not either.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from workers.metric import Metric

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]

#: Best-of-N sizes of "Rethinking Reward Modeling" (ICLR 2025), section 4.
PAPER_BEST_OF = (2, 5, 10, 30, 50, 100, 300, 500)


class Config(BaseModel):
    """Base of every config: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def identity(self) -> dict[str, Any]:
        """The JSON-like value that is hashed: every field, defaults included, local files by content."""
        return self.model_dump(mode="json", context={"identity": True})

    def metrics(self) -> tuple[str | Metric, ...]:
        """The scalar metrics that the stage must return with this config; a plain name is a finite number."""
        return ()

    def declared(self) -> dict[str, Metric]:
        """The metrics by name."""
        metrics = (Metric(each) if isinstance(each, str) else each for each in self.metrics())
        return {each.name: each for each in metrics}


class LocalPath(Config):
    """A local file or folder, written `{path: …}` in a sweep. Its content is its identity; where it lies is not."""

    path: str
    sha256: str
    """Hex digest of the content, filled in when the sweep is loaded."""

    @model_serializer(mode="wrap")
    def _content_only_in_identity(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        if info.context and info.context.get("identity"):
            return {"sha256": self.sha256}
        return dict(handler(self))


class HubModel(Config):
    """A model of the Hugging Face Hub: `google/gemma-2b`, or `{hub: google/gemma-2b, revision: …}`."""

    hub: str
    revision: str | None = None


class HubData(Config):
    """A data set of the Hugging Face Hub, e.g. `{hub: Anthropic/hh-rlhf, subset: harmless-base, split: train}`."""

    hub: str
    subset: str | None = None
    """Folder of the repository that holds the files (`data_dir` of `datasets.load_dataset`)."""
    split: str = "train"
    revision: str | None = None


class TinyLlama(Config):
    """A small Llama whose tokenizer and weights are made from the demonstrations: a policy with no download."""

    layers: PositiveInt = 2
    hidden: PositiveInt = 128
    heads: PositiveInt = 4
    vocabulary: PositiveInt = 2048
    """Size of the byte-level BPE vocabulary, special tokens included."""
    context: PositiveInt = 512
    """Longest sequence in tokens."""
    steps: NonNegativeInt = 60
    """Language-model training steps over prompt and response text; 0 leaves the random weights."""
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = 2e-3
    seed: Seed = 0


class TinyModel(Config):
    """`{tiny: {…}}`"""

    tiny: TinyLlama


def _hub_name(value: object) -> object:
    return {"hub": value} if isinstance(value, str) else value


Data = LocalPath | HubData
NamedModel = Annotated[LocalPath | HubModel, BeforeValidator(_hub_name)]
AnyModel = Annotated[LocalPath | HubModel | TinyModel, BeforeValidator(_hub_name)]
Dtype = Literal["float32", "bfloat16", "float16"]


# --- data ------------------------------------------------------------------------------------------------------------


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


class MarginsConfig(Config):
    """Golden reward of the chosen answer minus that of the rejected one."""

    max_tokens: PositiveInt = 512
    batch_size: PositiveInt = 64
    chat: bool = False
    """Put prompts and answers into the chat template of the tokenizer, as messages, as the golden model wants it."""
    dtype: Dtype = "float32"

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("mean_reward_gap",)


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


# --- language models -------------------------------------------------------------------------------------------------


class PolicyConfig(Config):
    """The policy before any fine-tuning by the sweep."""

    model: AnyModel


class Lora(Config):
    """LoRA through peft; r = 32, alpha = 32, dropout 0 in the paper's scripts."""

    r: PositiveInt = 32
    alpha: PositiveInt = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class SftConfig(Config):
    """Supervised fine-tuning with TRL's SFTTrainer, loss on the response only (paper: after "Assistant:")."""

    lora: Lora | None = None
    """None trains all weights. With LoRA the merged model is stored."""
    learning_rate: PositiveFloat = 5e-5
    epochs: PositiveFloat = 2
    batch_size: PositiveInt = 8
    gradient_accumulation: PositiveInt = 1
    max_tokens: PositiveInt = 1024
    long_rows: Literal["cut", "leave_out"] = "cut"
    """What becomes of a row that is longer. cut: it loses the beginning of its prompt, that is the oldest turns of a
    dialogue. leave_out: it is not trained on, and counted; for judgments, whose prompts begin with what is to be done,
    the question and the first answer."""
    chat: bool = False
    """Put prompts into the chat template of the tokenizer, as messages; otherwise they stay plain text."""
    dtype: Dtype = "float32"
    seed: Seed = 0

    def metrics(self) -> tuple[str | Metric, ...]:
        left_out = (Metric("long_rows", shards="sum"),) if self.long_rows == "leave_out" else ()
        return ("sft_loss", "sft_steps", *left_out)

    @model_serializer(mode="wrap")
    def _cutting_goes_without_saying_in_identity(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        fields = dict(handler(self))
        if info.context and info.context.get("identity") and self.long_rows == "cut":
            fields.pop("long_rows")
        return fields


class DpoConfig(Config):
    """Direct preference optimisation with TRL's DPOTrainer: loss = dpo_weight * L_DPO + sft_weight * L_SFT.

    L_DPO = -log sigmoid(beta * (log-ratio of chosen - log-ratio of rejected)) against the policy it starts from
    (Rafailov et al. 2023, eq. 7); L_SFT is the mean negative log-likelihood of the chosen tokens. Defaults are
    Con-J's; RISE's weight of its NLL term is not published.
    """

    beta: PositiveFloat = 0.1
    dpo_weight: NonNegativeFloat = 1.0
    """0 leaves supervised fine-tuning on the chosen answers."""
    sft_weight: NonNegativeFloat = 0.0
    """alpha; Con-J: 1e-6, which moves the weights by their rounding at most. 0 leaves the term out exactly."""
    learning_rate: PositiveFloat = 5e-7
    epochs: PositiveFloat = 1
    batch_size: PositiveInt = 24
    """Rows per forward pass; with `gradient_accumulation` g an optimizer step sees g times as many."""
    gradient_accumulation: PositiveInt = 1
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps in which the learning rate rises; after that it falls as a cosine."""
    max_tokens: PositiveInt = 4096
    """Prompt and answer together. Longer rows are left out and counted."""
    lora: Lora | None = None
    chat: bool = False
    """Put prompts into the chat template of the tokenizer, as messages."""
    dtype: Dtype = "float32"
    seed: Seed = 0

    @model_validator(mode="after")
    def _something_to_minimise(self) -> DpoConfig:
        if self.dpo_weight == 0 and self.sft_weight == 0:
            raise ValueError("dpo_weight and sft_weight are both 0: nothing would be trained")
        return self

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("dpo_loss", "dpo_steps", "dpo_rows", "long_rows")


class GenerateConfig(Config):
    """Responses sampled from a policy. Defaults are the paper's: temperature 1.0, top_p 0.95, 128 new tokens."""

    split: Literal["train", "test"]
    responses: PositiveInt
    """Responses per prompt (paper: 10 for train prompts, 500 for test prompts)."""
    temperature: PositiveFloat = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    max_new_tokens: PositiveInt = 128
    max_prompt_tokens: PositiveInt = 512
    """Longer prompts lose their beginning."""
    batch_size: PositiveInt = 64
    """Sequences per forward pass; it can change a text only through rounding."""
    chat: bool = False
    """Put prompts into the chat template of the tokenizer, as messages."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """The two sample from the same distribution, but not the same texts."""
    dtype: Dtype = "float32"
    seed: Seed = 0
    shard: NonNegativeInt = 0
    shards: PositiveInt = 1

    @model_validator(mode="after")
    def _shard_exists(self) -> GenerateConfig:
        if self.shard >= self.shards:
            raise ValueError(f"shard {self.shard} of {self.shards}: shards count from 0")
        return self

    def metrics(self) -> tuple[str | Metric, ...]:
        tokens = Metric("mean_response_tokens", shards="mean", weight="responses")
        return (Metric("responses", shards="sum"), tokens)


class RewardTraining(Config):
    """Training of a golden reward model with TRL's RewardTrainer."""

    learning_rate: PositiveFloat = 1e-3
    epochs: PositiveFloat = 1
    batch_size: PositiveInt = 16
    max_tokens: PositiveInt = 512
    held_out: Fraction = 0.1
    """Share of the preferences kept out of training, on which `golden_accuracy` is measured."""
    seed: Seed = 0


class GoldenConfig(Config):
    """The golden reward model: a published one (`model`), or one trained here on preferences (`train`)."""

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
        return ("golden_accuracy", "golden_loss") if self.train else ()


#: Of all rewards that a step tells; over shards they are those of all shards together.
REWARD_METRICS = (
    Metric("scored_responses", shards="sum"),
    Metric("mean_reward", shards="mean", weight="scored_responses"),
    Metric("sd_reward", shards="sd", weight="scored_responses", mean="mean_reward"),
)


class ScoreConfig(Config):
    """Golden rewards of responses."""

    max_tokens: PositiveInt = 512
    batch_size: PositiveInt = 64
    cut_at: str | None = "\n\nHuman"
    """The response is cut where this text begins (paper's scripts: "\\n\\nHuman")."""
    strip: bool = False
    """White space around the response is removed, as the paper's scripts do (step3_reward_annotation.py), so that no
    space parts it from "Assistant:"."""
    chat: bool = False
    """Put prompts and responses into the chat template of the tokenizer, as messages, as the golden model wants it."""
    dtype: Dtype = "float32"

    def metrics(self) -> tuple[str | Metric, ...]:
        return REWARD_METRICS


class EmbedConfig(Config):
    """Last-layer hidden state at the last real token of prompt + response (paper: gemma-2b, 512 tokens, fp32)."""

    model: NamedModel | None = None
    """A causal or encoder model, or a sentence-transformers folder; without it the `policy` input embeds."""
    max_tokens: PositiveInt = 512
    batch_size: PositiveInt = 64
    dtype: Dtype = "float32"
    """In which the model computes."""
    stored_dtype: Literal["float16", "float32"] = "float32"

    def metrics(self) -> tuple[str | Metric, ...]:
        return (Metric("embedding_dimension", shards="same"),)


class PublishedConfig(Config):
    """A published `.npy` file of embeddings or golden rewards."""

    file: LocalPath
    layout: Literal["prompts_first", "responses_first"]
    """prompts_first: (prompts, responses, …), as in `embd_….npy`; responses_first: as in `EMBD-….npy`."""
    prompts: PositiveInt | None = None
    """How many prompts the file must hold; tells a mistaken layout. None takes what it holds."""


class PublishedEmbeddingsConfig(PublishedConfig):
    """(prompts, responses, d) or (responses, prompts, d), float16 or float32."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("prompts", "responses", "embedding_dimension")


class PublishedRewardsConfig(PublishedConfig):
    """(prompts, responses, 1), (prompts, responses), or the same with responses first."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return REWARD_METRICS


class WorldConfig(Config):
    """Prompts and responses of a synthetic world; what `world_embeddings` and `world_rewards` must agree in.

    A response is a vector of independent standard normals: `prompt_dimension` of them belong to its prompt and are
    shared by all responses of that prompt, the others are its own.
    """

    split: Literal["train", "test"]
    """Different draws from the same world."""
    prompts: PositiveInt
    """Prompts of the split over all shards."""
    responses: PositiveInt
    """Responses per prompt (paper: 10 for train prompts, 500 for test prompts)."""
    dimension: Annotated[int, Field(ge=2)] = 64
    """Length d of an embedding (paper: 2,048 with gemma-2b)."""
    prompt_dimension: PositiveInt = 16
    """How many of the d independent directions are the same for all responses of a prompt."""
    seed: Seed = 0
    """Seed of the world; another seed is another world, not another draw from this one."""
    shard: NonNegativeInt = 0
    shards: PositiveInt = 1

    @model_validator(mode="after")
    def _shard_and_directions_exist(self) -> WorldConfig:
        if self.shard >= self.shards:
            raise ValueError(f"shard {self.shard} of {self.shards}: shards count from 0")
        if self.shards > self.prompts:
            raise ValueError(f"{self.prompts} prompts cannot be cut into {self.shards} shards")
        if self.prompt_dimension >= self.dimension:
            raise ValueError(
                f"prompt_dimension {self.prompt_dimension} of dimension {self.dimension} leaves no direction in which"
                " the responses of a prompt differ"
            )
        return self


class WorldEmbeddingsConfig(WorldConfig):
    """Embeddings of a synthetic world: its independent directions, rotated at random."""

    stored_dtype: Literal["float16", "float32"] = "float32"

    def metrics(self) -> tuple[str | Metric, ...]:
        return (Metric("embedding_dimension", shards="same"),)


class WorldRewardsConfig(WorldConfig):
    """Golden rewards of a synthetic world: smooth functions of the embedding, standardised.

    Except for `mean` and `sd`, the defaults are this project's choices; the paper has no synthetic world.
    """

    mean: FiniteFloat = 0.0
    """Mean golden reward over all prompts and responses of the world."""
    sd: PositiveFloat = 0.9
    """Standard deviation likewise. Two independent rewards then differ with deviation 1.27, near the 1.28 at which
    the paper's annotators have their stated error rates with `scale: 1`."""
    prompt_share: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the variance that lies between prompts; 0 gives every prompt the same expected reward."""
    noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the variance that lies between responses and that no embedding shows."""
    units: PositiveInt = 16
    """tanh units of each of the two reward networks, of the prompt and of the response."""
    gain: PositiveFloat = 2.0
    """Standard deviation of what enters a tanh; towards 0 the reward becomes linear, large makes it a sum of steps."""
    interaction: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """How much the prompt decides which traits of a response count. 0: the same for all prompts; 1: a trait counts
    from not at all to twice."""

    @model_validator(mode="after")
    def _something_is_visible(self) -> WorldRewardsConfig:
        if self.prompt_share + self.noise >= 1:
            raise ValueError(
                f"prompt_share {self.prompt_share} and noise {self.noise} leave no variance to what an embedding shows"
                " of a response: their sum must be below 1"
            )
        return self

    def metrics(self) -> tuple[str | Metric, ...]:
        return REWARD_METRICS


# --- reward models ---------------------------------------------------------------------------------------------------


class AnnotateConfig(Config):
    """Simulated preference annotations: P(j preferred over i) = sigmoid(beta * (r_j - r_i) / scale)."""

    sampling: Literal["random", "similar", "diversified", "d_optimal"]
    """Which responses of a prompt are candidates, by rank of golden reward: two at random, the two middle ranks
    (4 and 5 of 10), or the first and the last (0 and 9 of 10). d_optimal knows no rewards: the two whose embeddings
    tell most about a linear reward that the pairs before them do not (the input `embeddings`; not in the paper)."""
    pairing: Literal["cross", "same"] = "cross"
    """cross: a candidate of prompt i against a candidate of a prompt drawn uniformly; same: the two candidates of i."""
    beta: FiniteFloat
    """Annotator quality; large is accurate, negative is noise-free (released scripts)."""
    scale: PositiveFloat | Literal["std"] = 1.0
    """s above: 6.0 for helpful and 1.0 for harmless in the released scripts, `std` of all rewards in the follow-up."""
    annotations: PositiveInt
    """One per prompt: the first n prompts are annotated."""
    seed: Seed

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("flip_rate", "mean_reward_gap")


class FitMlpConfig(Config):
    """BT-MLP and CLF-MLP: d -> 1024 -> 512 -> 1 with ReLU, Adam 1e-3, at most 30 epochs, patience 3."""

    loss: Literal["bt", "clf"]
    """bt: sigmoid(f(x1) - f(x2)), each annotation in both orders. clf: winners 1, losers 0, each row by itself."""
    training: Literal["paper", "clean"] = "paper"
    """paper: the released procedure (80/20 split of mirrored rows; each epoch ceil(rows / batch_size) steps on fresh
    random subsets; stop when the validation loss exceeds each of the previous `patience`; last weights).
    clean: partitioned minibatches, split by annotation, no improvement in `patience` epochs, best weights."""
    hidden: tuple[PositiveInt, ...] = (1024, 512)
    learning_rate: PositiveFloat = 1e-3
    epochs: PositiveInt = 30
    patience: PositiveInt = 3
    batch_size: PositiveInt = 10_240
    validation: Fraction = 0.2
    member: NonNegativeInt = 0
    """The first, or only, ensemble member; the paper's row split uses random_state 42 + member."""
    members: PositiveInt = 1
    """How many members are trained, each with a split, initial weights and batches of its own."""
    aggregation: Literal["mean", "min"] = "mean"
    """The reward of several members: their mean, or the most cautious one (Coste et al. 2023)."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Of the factors of matrix products; sums and weights are float32. Hardware that lacks tf32 (CPUs) or bfloat16
    (CPUs without AVX-512 BF16 or AMX) keeps to float32."""
    seed: Seed

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("epochs", "steps", "train_loss", "validation_loss")


class FitLightgbmConfig(Config):
    """CLF-LGB: LightGBM on the 2n pointwise rows, objective binary, library defaults."""

    num_boost_round: PositiveInt = 100
    """100 is the library default; the author's notebook says 1000."""
    num_leaves: Annotated[int, Field(ge=2)] = 31
    learning_rate: PositiveFloat = 0.1
    min_data_in_leaf: PositiveInt = 20
    seed: Seed

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("train_loss",)


class FitLinearConfig(Config):
    """Reward models that are linear in the embedding; not in the paper."""

    method: Literal["logistic", "ridge"] = "logistic"
    """logistic: maximum likelihood. ridge: least squares on targets 1 and -1."""
    loss: Literal["bt", "clf"]
    """bt: on differences of the two embeddings, each annotation in both orders. clf: winners 1, losers 0."""
    penalty: PositiveFloat = 1.0
    """lambda. logistic: minimises sum of cross-entropies + lambda/2 |w|^2 (scikit-learn's C is 1/lambda); ridge: sum of
    squared errors + lambda |w|^2. w belongs to features of deviation 1; scikit-learn's default is 1 in both."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("train_loss",)


class EvaluateConfig(Config):
    """Best-of-N, Spearman, quantile, improvement and pairwise accuracy on the test prompts."""

    best_of: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = PAPER_BEST_OF
    """N values, none above the number of responses per test prompt."""
    repeats: PositiveInt = 100
    """Permutations of the responses, shared by all prompts; the first N of each are the candidates (nested in N)."""
    pairs: PositiveInt = 20_000
    """Noise-free held-out pairs drawn for each of the two pairwise accuracies."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Of the factors of an MLP's matrix products; hardware that lacks tf32 or bfloat16 keeps to float32."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _each_n_once(self) -> EvaluateConfig:
        if len(set(self.best_of)) < len(self.best_of):
            raise ValueError(f"best_of names a number twice: {list(self.best_of)}")
        return self

    def metrics(self) -> tuple[str | Metric, ...]:
        return (
            *(f"best_of_{n}" for n in self.best_of),
            "mean_golden_reward",
            "improvement",
            Metric("spearman", nullable=True),
            "quantile",
            "pairwise_accuracy",
            "pairwise_accuracy_cross",
        )

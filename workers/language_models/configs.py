"""Configs of the stages of language models; see `workers.config`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from workers.config import (
    Config,
    Dtype,
    HubModel,
    LocalPath,
    NamedModel,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ReadingDtype,
    Seed,
    hub_name,
)
from workers.metric import Metric


class TinyLlama(Config):
    """A small Llama whose tokenizer and weights are made from the demonstrations: a policy with no download."""

    layers: PositiveInt = 2
    """Number of transformer layers."""
    hidden: PositiveInt = 128
    """Width of the hidden states, a multiple of twice the heads."""
    heads: PositiveInt = 4
    """Attention heads per layer."""
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
    """A small Llama to be made here, written `{tiny: {…}}` in a sweep."""

    tiny: TinyLlama


AnyModel = Annotated[
    LocalPath | HubModel | TinyModel,
    BeforeValidator(hub_name, json_schema_input_type=LocalPath | HubModel | TinyModel | str),
]


class PolicyConfig(Config):
    """Config of `policy`, the language model before any fine-tuning by the sweep."""

    model: AnyModel


class Lora(Config):
    """LoRA through peft; r = 32, alpha = 32, dropout 0 in the paper's scripts."""

    r: PositiveInt = 32
    """Rank of the update."""
    alpha: PositiveInt = 32
    """The update is scaled by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the input of the update."""
    merged: bool = False
    """Store the whole model, the update merged into it, in the place of the adapter and a reference to its base."""

    @model_serializer(mode="wrap")
    def _storing_the_adapter_goes_without_saying_in_identity(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        # Whoever reads the two reads the same weights.
        fields = dict(handler(self))
        if info.context and info.context.get("identity") and not self.merged:
            fields.pop("merged")
        return fields


class SftConfig(Config):
    """Config of `sft`, with TRL's SFTTrainer and the loss on the response only (paper: after "Assistant:")."""

    lora: Lora | None = None
    """None trains all weights."""
    learning_rate: PositiveFloat = 5e-5
    epochs: PositiveFloat = 2
    batch_size: PositiveInt = 8
    gradient_accumulation: PositiveInt = 1
    max_tokens: PositiveInt = 1024
    long_rows: Literal["cut", "leave_out"] = "cut"
    """Treatment of longer rows. cut: they lose the beginning of their prompt, that is the oldest turns of a dialogue.
    leave_out: they are counted, and not trained on; for judgments, whose prompts begin with the task, the question and
    the first answer."""
    chat: bool = False
    """Put prompts into the chat template of the tokenizer, as messages; otherwise they stay plain text."""
    dtype: Dtype = "float32"
    seed: Seed = 0

    def metrics(self) -> tuple[str | Metric, ...]:
        left_out = (Metric("long_rows", shards="sum"),) if self.long_rows == "leave_out" else ()
        return (Metric("sft_loss", better="lower"), "sft_steps", *left_out)

    @model_serializer(mode="wrap")
    def _cutting_goes_without_saying_in_identity(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        fields = dict(handler(self))
        if info.context and info.context.get("identity") and self.long_rows == "cut":
            fields.pop("long_rows")
        return fields


class DpoConfig(Config):
    """Config of `dpo`, with TRL's DPOTrainer and loss = dpo_weight * L_DPO + sft_weight * L_SFT.

    L_DPO = -log sigmoid(beta * (log-ratio of chosen - log-ratio of rejected)) against the policy it starts from
    (Rafailov et al. 2023, eq. 7); L_SFT is the mean negative log-likelihood of the chosen tokens. Defaults are
    Con-J's; RISE's weight of its NLL term is not published.
    """

    beta: PositiveFloat = 0.1
    """Strength of the pull towards the policy that training starts from."""
    dpo_weight: NonNegativeFloat = 1.0
    """Weight of L_DPO; with 0 only supervised fine-tuning on the chosen answers is left."""
    sft_weight: NonNegativeFloat = 0.0
    """Weight of L_SFT, Con-J's alpha (1e-6, which moves the weights by their rounding at most). 0 leaves the term out
    exactly."""
    learning_rate: PositiveFloat = 5e-7
    epochs: PositiveFloat = 1
    batch_size: PositiveInt = 24
    """Rows per forward pass; with `gradient_accumulation` g an optimizer step sees g times as many."""
    gradient_accumulation: PositiveInt = 1
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps in which the learning rate rises; afterwards it falls as a cosine."""
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
        return (Metric("dpo_loss", better="lower"), "dpo_steps", "dpo_rows", "long_rows")


class GenerateConfig(Config):
    """Config of `generate`; defaults are the paper's: temperature 1.0, top_p 0.95, 128 new tokens."""

    split: Literal["train", "test"]
    responses: PositiveInt
    """Responses per prompt (paper: 10 for train prompts, 500 for test prompts)."""
    temperature: PositiveFloat = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    max_new_tokens: PositiveInt = 128
    max_prompt_tokens: PositiveInt = 512
    """Longest prompt; longer ones lose their beginning."""
    chat: bool = False
    """Put prompts into the chat template of the tokenizer, as messages."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """Library that samples; both sample from the same distribution, but not the same texts."""
    dtype: Dtype = "float32"
    seed: Seed = 0
    shard: NonNegativeInt = 0
    """Number of this shard of the prompts, from 0."""
    shards: PositiveInt = 1
    """Number of shards."""

    @model_validator(mode="after")
    def _shard_exists(self) -> GenerateConfig:
        if self.shard >= self.shards:
            raise ValueError(f"shard {self.shard} of {self.shards}: shards count from 0")
        return self

    def metrics(self) -> tuple[str | Metric, ...]:
        tokens = Metric("mean_response_tokens", shards="mean", weight="responses")
        return (Metric("responses", shards="sum"), tokens)


class EmbedConfig(Config):
    """Config of `embed`: the last hidden state at the last real token (paper: gemma-2b, 512 tokens, fp32)."""

    model: NamedModel | None = None
    """Causal or encoder model, or sentence-transformers folder; without it the `policy` input embeds."""
    max_tokens: PositiveInt = 512
    """Longest text; longer ones lose their beginning."""
    dtype: ReadingDtype = "float32"
    """Type that the model computes in. tf32: weights and sums in float32, but a GPU rounds the factors of products to
    TF32, as with `precision: tf32` of the fits; a CPU has none, and the step fails there."""
    stored_dtype: Literal["float16", "float32"] = "float32"

    def metrics(self) -> tuple[str | Metric, ...]:
        return (Metric("embedding_dimension", shards="same"),)

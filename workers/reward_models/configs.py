"""Configs of the stages of the reward ablation; see `workers.config`.

"The paper" is "Rethinking Reward Modeling in Preference-based Large Language Model Alignment" (arXiv 2411.04991, ICLR
2025), "the released scripts" are those of holarissun/RewardModelingBeyondBradleyTerry.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workers.config import (
    Config,
    FiniteFloat,
    Fraction,
    LocalPath,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Precision,
    Seed,
)
from workers.metric import Metric

#: Best-of-N sizes of the paper, section 4.
PAPER_BEST_OF = (2, 5, 10, 30, 50, 100, 300, 500)

#: Metrics of all rewards that a step writes; over shards they are those of all shards together.
REWARD_METRICS = (
    Metric("scored_responses", shards="sum"),
    Metric("mean_reward", shards="mean", weight="scored_responses"),
    Metric("sd_reward", shards="sd", weight="scored_responses", mean="mean_reward"),
)


class PublishedConfig(Config):
    """A published `.npy` file of embeddings or golden rewards."""

    file: LocalPath
    layout: Literal["prompts_first", "responses_first"]
    """prompts_first: (prompts, responses, …), as in `embd_….npy`; responses_first: as in `EMBD-….npy`."""
    prompts: PositiveInt | None = None
    """Number of prompts that the file must hold, which reveals a mistaken layout; None accepts any."""


class PublishedEmbeddingsConfig(PublishedConfig):
    """Config of `published_embeddings`: a file of shape (prompts, responses, d) or (responses, prompts, d)."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("prompts", "responses", "embedding_dimension")


class PublishedRewardsConfig(PublishedConfig):
    """Config of `published_rewards`: a file of shape (prompts, responses[, 1]) or (responses, prompts[, 1])."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return REWARD_METRICS


class WorldConfig(Config):
    """Prompts and responses of a synthetic world: the fields that `world_embeddings` and `world_rewards` must agree in.

    A response is a vector of independent standard normals: `prompt_dimension` of them belong to its prompt and are
    shared by all responses to that prompt, the others belong to the response alone.
    """

    split: Literal["train", "test"]
    """The splits are different draws from the same world."""
    prompts: PositiveInt
    """Prompts of the split in all shards together."""
    responses: PositiveInt
    """Responses per prompt (paper: 10 for train prompts, 500 for test prompts)."""
    dimension: Annotated[int, Field(ge=2)] = 64
    """Length d of an embedding (paper: 2,048 with gemma-2b)."""
    prompt_dimension: PositiveInt = 16
    """Number of the d independent directions that are the same for all responses of a prompt."""
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
    """Config of `world_embeddings`: the independent directions of a synthetic world, rotated at random."""

    stored_dtype: Literal["float16", "float32"] = "float32"

    def metrics(self) -> tuple[str | Metric, ...]:
        return (Metric("embedding_dimension", shards="same"),)


class WorldRewardsConfig(WorldConfig):
    """Config of `world_rewards`: golden rewards as smooth functions of the embedding, standardised.

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
    """Deviation of the inputs of a tanh; towards 0 the reward becomes linear, at large values a sum of steps."""
    interaction: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Influence of the prompt on the weight of each trait of a response. 0: none; 1: a trait counts from not at all to
    twice."""

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


class AnnotateConfig(Config):
    """Config of `annotate`, where P(j preferred over i) = sigmoid(beta * (r_j - r_i) / scale)."""

    sampling: Literal["random", "similar", "diversified", "d_optimal"]
    """The candidates among the responses of a prompt, by rank of golden reward: two at random, the two middle ranks
    (4 and 5 of 10), or the first and the last (0 and 9 of 10). d_optimal uses no rewards: the two whose embeddings add
    most information about a linear reward to the pairs before them (the input `embeddings`; not in the paper)."""
    pairing: Literal["cross", "same"] = "cross"
    """cross: a candidate of prompt i against a candidate of a prompt drawn uniformly; same: the two candidates of i."""
    beta: FiniteFloat
    """Annotator quality; large is accurate, negative is noise-free (released scripts)."""
    scale: PositiveFloat | Literal["std"] = 1.0
    """s above: 6.0 for helpful and 1.0 for harmless in the released scripts, `std` (of all rewards) in the follow-up
    holarissun/embedding-based-llm-alignment."""
    annotations: PositiveInt
    """One per prompt: the first n prompts are annotated."""
    seed: Seed

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("flip_rate", "mean_reward_gap")


class FitMlpConfig(Config):
    """Config of `fit_mlp`, the reward models BT-MLP and CLF-MLP.

    Defaults are those of the released scripts (`step5_train_rms.py`, `networks.py`), except `members`: they train ten
    and evaluate the last.
    """

    loss: Literal["bt", "clf"]
    """bt: p = sigmoid(f(x1) - f(x2)), each annotation in both orders. clf: p = sigmoid(f(x)), winners 1, losers 0, each
    response by itself."""
    training: Literal["paper", "clean"] = "paper"
    """paper: the released procedure (80/20 split of mirrored rows; each epoch ceil(rows / batch_size) steps on fresh
    random subsets; stop when the validation loss exceeds each of the previous `patience`; last weights).
    clean: partitioned minibatches, split by annotation, no improvement in `patience` epochs, best weights."""
    hidden: tuple[PositiveInt, ...] = (1024, 512)
    """Widths of the layers between embedding and reward, with ReLU after each."""
    learning_rate: PositiveFloat = 1e-3
    """Learning rate of Adam."""
    epochs: PositiveInt = 30
    """Greatest number of epochs."""
    patience: PositiveInt = 3
    batch_size: PositiveInt = 10_240
    validation: Fraction = 0.2
    """Share that is held out for validation."""
    member: NonNegativeInt = 0
    """The first, or only, member of the ensemble; the released row split uses random_state 42 + member."""
    members: PositiveInt = 1
    """Number of members that are trained, each with its own split, initial weights and batches."""
    aggregation: Literal["mean", "min"] = "mean"
    """The reward of several members: their mean, or the least (worst-case optimisation of Coste et al., arXiv
    2310.02743)."""
    precision: Precision = "float32"
    """Type of the factors of matrix products; sums and weights are float32. Hardware that lacks tf32 (CPUs) or bfloat16
    (CPUs without AVX-512 BF16 or AMX) uses float32."""
    seed: Seed

    def metrics(self) -> tuple[str | Metric, ...]:
        losses = (Metric(name, better="lower") for name in ("train_loss", "validation_loss"))
        return ("epochs", "steps", *losses)


class FitLightgbmConfig(Config):
    """Config of `fit_lightgbm`, the reward model CLF-LGB. All defaults are LightGBM's."""

    num_boost_round: PositiveInt = 100
    """1000 in the author's notebook."""
    num_leaves: Annotated[int, Field(ge=2)] = 31
    learning_rate: PositiveFloat = 0.1
    min_data_in_leaf: PositiveInt = 20
    seed: Seed

    def metrics(self) -> tuple[str | Metric, ...]:
        return (Metric("train_loss", better="lower"),)


class FitLinearConfig(Config):
    """Config of `fit_linear`, reward models that are linear in the embedding; they are not in the paper."""

    method: Literal["logistic", "ridge"] = "logistic"
    """logistic: maximum likelihood. ridge: least squares on targets 1 and -1."""
    loss: Literal["bt", "clf"]
    """bt: on differences of the two embeddings, each annotation in both orders. clf: winners 1, losers 0."""
    penalty: PositiveFloat = 1.0
    """lambda. logistic minimises the sum of cross-entropies + lambda/2 |w|^2 (scikit-learn's C is 1/lambda), ridge the
    sum of squared errors + lambda |w|^2. w applies to features of standard deviation 1; scikit-learn's default is 1 in
    both."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return (Metric("train_loss", better="lower"),)


class EvaluateConfig(Config):
    """Config of `evaluate`: best-of-N, Spearman, quantile, improvement and pairwise accuracy on the test prompts.

    `best_of` and `repeats` are the paper's; the pairwise accuracies are this project's addition.
    """

    best_of: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = PAPER_BEST_OF
    """Values of N, none above the number of responses per test prompt."""
    repeats: PositiveInt = 100
    """Permutations of the responses, shared by all prompts; the first N of each are the candidates (nested in N)."""
    pairs: PositiveInt = 20_000
    """Noise-free held-out pairs drawn for each of the two pairwise accuracies."""
    precision: Precision = "float32"
    """Type of the factors of an MLP's matrix products; hardware that lacks tf32 or bfloat16 uses float32."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _each_n_once(self) -> EvaluateConfig:
        if len(set(self.best_of)) < len(self.best_of):
            raise ValueError(f"best_of names a number twice: {list(self.best_of)}")
        return self

    def metrics(self) -> tuple[str | Metric, ...]:
        return (
            *(Metric(f"best_of_{n}", better="higher") for n in self.best_of),
            # Of all responses, whatever the reward model: a property of the policy.
            Metric("mean_golden_reward", column="mean_golden_reward"),
            Metric("improvement", better="higher", column="improvement"),
            Metric("spearman", nullable=True, better="higher", column="spearman"),
            Metric("quantile", better="higher", column="quantile"),
            Metric("pairwise_accuracy", better="higher"),
            Metric("pairwise_accuracy_cross", better="higher"),
        )

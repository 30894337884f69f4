"""Stage `evaluate`: how good are the responses that a reward model chooses, by golden reward, on the test prompts.

Permutations and held-out pairs depend on the seed alone, so all reward models face the same draws.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from workers import metrics
from workers.configs import EvaluateConfig
from workers.embeddings import Embeddings, Rows, open_embeddings, read_scores, require_aligned
from workers.reward_heads import RewardHead, load_reward_head
from workers.seeding import generator

#: Embedding values predicted at once: 64 MiB as float32, whatever the shape of the test set.
BLOCK_VALUES = 2**24

#: best_of.parquet: mean over repeats of the mean golden reward, and its standard deviation over repeats (as in the
#: released plots, divided by the number of repeats and not by one less).
BEST_OF = pa.schema(
    [
        pa.field("n", pa.int64(), nullable=False),
        pa.field("mean", pa.float64(), nullable=False),
        pa.field("sd", pa.float64(), nullable=False),
    ]
)
#: prompts.parquet: one row per test prompt; `spearman` is null where it is undefined.
PROMPTS = pa.schema(
    [
        pa.field("prompt", pa.int64(), nullable=False),
        pa.field("mean_golden_reward", pa.float64(), nullable=False),
        pa.field("chosen_golden_reward", pa.float64(), nullable=False),
        pa.field("quantile", pa.float64(), nullable=False),
        pa.field("spearman", pa.float64()),
    ]
)

Floats = NDArray[np.floating[Any]]


def evaluate(
    config: EvaluateConfig, out: Path, *, reward_model: Path, embeddings: list[Path], scores: list[Path]
) -> dict[str, float]:
    """Write `best_of.parquet` (`BEST_OF`) and `prompts.parquet` (`PROMPTS`).

    Metrics, in golden reward units unless said otherwise: `best_of_<N>` (mean over prompts, then repeats),
    `mean_golden_reward` of all responses, `improvement` (reward of the response chosen among all, minus that mean),
    `spearman` (mean over the prompts where it is defined), `quantile` (mean share of a prompt's rewards that are at
    most the chosen one), `pairwise_accuracy` and `pairwise_accuracy_cross` (share of held-out noise-free pairs ordered
    rightly, within a prompt and over all).

    Raises:
        ValueError: an N above the number of responses, embeddings that do not fit the scores or the reward model, a
            number that is not finite, or a metric that is undefined everywhere.
    """
    require_aligned(embeddings, scores)
    rewards = read_scores(scores).astype(np.float64)
    prompts, responses = rewards.shape
    require_responses(config, responses)
    source = open_embeddings(embeddings)
    head = load_reward_head(reward_model)
    if head.dimension != source.dimension:
        raise ValueError(
            f"{reward_model}: takes embeddings of dimension {head.dimension}, but {source.files[0]} holds"
            f" {source.dimension}"
        )
    predictions = predict(head, source, reward_model)

    best_of = metrics.best_of_n(predictions, rewards, config.best_of, permutations(config, responses))
    chosen = rewards[np.arange(prompts), metrics.chosen(predictions)]
    quantile = metrics.quantile(predictions, rewards)
    spearman = metrics.spearman(predictions, rewards)
    defined = np.isfinite(spearman)
    if not defined.any():
        raise ValueError(
            f"Spearman is undefined for all {prompts} test prompts: within each, all predictions or all golden rewards"
            " are equal"
        )
    _write(BEST_OF, [config.best_of, best_of.mean(axis=0), best_of.std(axis=0)], out / "best_of.parquet")
    _write(
        PROMPTS,
        [np.arange(prompts), rewards.mean(axis=1), chosen, quantile, pa.array(spearman, mask=~defined)],
        out / "prompts.parquet",
    )
    same = same_prompt_pairs(prompts, responses, config)
    cross = any_pairs(prompts * responses, config)
    mean = float(rewards.mean())
    return {
        **{f"best_of_{n}": float(value) for n, value in zip(config.best_of, best_of.mean(axis=0), strict=True)},
        "mean_golden_reward": mean,
        "improvement": float(chosen.mean()) - mean,
        "spearman": float(spearman[defined].mean()),
        "quantile": float(quantile.mean()),
        "pairwise_accuracy": metrics.pairwise_accuracy(predictions, rewards, *same),
        "pairwise_accuracy_cross": metrics.pairwise_accuracy(predictions, rewards, *cross),
    }


def require_responses(config: EvaluateConfig, responses: int) -> None:
    """Check that there are enough test responses for what is asked.

    Raises:
        ValueError: an N of `best_of` above `responses`, or fewer than the two that a pair needs.
    """
    if max(config.best_of) > responses:
        raise ValueError(
            f"best_of asks for {max(config.best_of)} responses, but each test prompt has {responses}: drop the larger N"
            " from `best_of`, or generate more responses per test prompt"
        )
    if responses < 2:
        raise ValueError("1 response per test prompt, but a comparison needs 2: generate more responses")


def predict(head: RewardHead, source: Embeddings, reward_model: Path) -> Floats:
    """Predicted rewards (prompts, responses), a few prompts at a time: the embeddings never lie in memory whole.

    Raises:
        ValueError: a prediction is not finite.
    """
    prompts = max(1, BLOCK_VALUES // (source.responses * source.dimension))
    parts = []
    for first, block in source.blocks(prompts):
        part = head.predict(block.reshape(-1, source.dimension)).reshape(block.shape[:2])
        if not np.isfinite(part).all():
            raise ValueError(f"{reward_model}: predicts a reward that is not finite from test prompt {first} on")
        parts.append(part)
    return np.concatenate(parts)


def permutations(config: EvaluateConfig, responses: int) -> Rows:
    """The orders (repeats, responses) in which candidates are taken; more repeats continue fewer."""
    random = generator(config.seed, "evaluate/permutations")
    return np.stack([random.permutation(responses) for _ in range(config.repeats)])


def same_prompt_pairs(prompts: int, responses: int, config: EvaluateConfig) -> tuple[Rows, Rows]:
    """Flat rows (pairs,) and (pairs,) of two different responses of one prompt, both drawn uniformly."""
    random = generator(config.seed, "evaluate/same_prompt_pairs")
    prompt = random.integers(prompts, size=config.pairs)
    left, right = _two_different(responses, config.pairs, random)
    return prompt * responses + left, prompt * responses + right


def any_pairs(rows: int, config: EvaluateConfig) -> tuple[Rows, Rows]:
    """Flat rows (pairs,) and (pairs,) of two different responses among all `rows`, of whichever prompts."""
    return _two_different(rows, config.pairs, generator(config.seed, "evaluate/cross_prompt_pairs"))


def _two_different(count: int, size: int, random: np.random.Generator) -> tuple[Rows, Rows]:
    left = random.integers(count, size=size)
    right = random.integers(count - 1, size=size)
    return left, right + (right >= left)


def _write(schema: pa.Schema, columns: list[Any], file: Path) -> None:
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), file, compression="zstd")

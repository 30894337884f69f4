"""Stage `evaluate`: the golden rewards of the responses that a reward model chooses, on the test prompts.

Permutations and held-out pairs depend on the seed alone, so all reward models face the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from workers.device import device
from workers.device_memory import free_memory, require_room
from workers.metric import Undefined
from workers.model_cache import cached_model
from workers.precision import factor_type, matmul_precision
from workers.reward_models import metrics
from workers.reward_models.configs import EvaluateConfig
from workers.reward_models.embeddings import Embeddings, Floats, open_embeddings, read_scores, require_aligned
from workers.reward_models.heads import MlpHead, RewardHead, as_tensor, load_reward_head
from workers.reward_models.pairs import Rows, two_different
from workers.seeding import generator
from workers.stage import Call

#: best_of.parquet: mean over repeats of the mean golden reward, and its standard deviation over repeats (as in the
#: released plots, divided by the number of repeats and not by one less).
BEST_OF = pa.schema(
    [
        pa.field("n", pa.int64(), nullable=False),
        pa.field("mean", pa.float64(), nullable=False),
        pa.field("sd", pa.float64(), nullable=False),
    ]
)
#: prompts.parquet: one row per test prompt, and a column for each metric that is a mean over prompts. `improvement` is
#: the golden reward of the chosen response minus the prompt's mean; `spearman` is null where it is undefined. Best-of-N
#: has no columns: with the paper's eight sizes they would make the file three times as large.
PROMPTS = pa.schema(
    [
        pa.field("prompt", pa.int64(), nullable=False),
        pa.field("mean_golden_reward", pa.float64(), nullable=False),
        pa.field("improvement", pa.float64(), nullable=False),
        pa.field("quantile", pa.float64(), nullable=False),
        pa.field("spearman", pa.float64()),
    ]
)

#: Metrics by name.
Measured = dict[str, float | Undefined]

_NO_ORDER = "within each of the {} test prompts, all predicted or all golden rewards are equal"


def evaluate(
    config: EvaluateConfig, out: Path, *, reward_model: Path, embeddings: list[Path], scores: list[Path]
) -> Measured:
    """Evaluate a reward model on the test prompts, as in section 4 of arXiv 2411.04991.

    Args:
        config: what to draw.
        out: receives `best_of.parquet` (`BEST_OF`) and `prompts.parquet` (`PROMPTS`).
        reward_model: artifact of the reward model.
        embeddings: artifacts of the test responses.
        scores: artifacts of their golden rewards.

    Returns:
        Numbers in units of the golden reward: `best_of_<N>` (mean over prompts, then repeats), `mean_golden_reward` of
        all responses, `improvement` (reward of the response chosen among all, minus that mean). And `spearman` (mean
        over the prompts where it is defined; undefined for a reward model that gives all responses of each prompt the
        same reward), `quantile` (mean share of a prompt's rewards that are at most the chosen one),
        `pairwise_accuracy` and `pairwise_accuracy_cross` (share of held-out noise-free pairs in the right order, within
        a prompt and over all).

    Raises:
        ValueError: an N above the number of responses, embeddings that do not fit the scores or the reward model, a
            number that is not finite, or golden rewards that are all equal.
    """
    test = _Test(config, embeddings, scores)
    source = open_embeddings(embeddings)
    (predictions,) = predict([_fitting_head(reward_model, source)], source, config.precision)
    _require_finite(predictions, reward_model)
    return test.measure(predictions, out)


def evaluate_all(calls: Sequence[Call]) -> Iterator[Measured | None]:
    """Evaluate several reward models on the same embeddings, which are read once.

    Args:
        calls: of `evaluate`; they agree in embeddings and precision.

    Yields:
        The metrics of each call in turn, bit for bit those of `evaluate`; None for one that fails.

    Raises:
        ValueError: the embeddings do not fit the scores or one of the reward models.
    """
    embeddings = calls[0].paths("embeddings")
    source = open_embeddings(embeddings)
    heads = [_fitting_head(call.path("reward_model"), source) for call in calls]
    predictions = predict(heads, source, calls[0].config.precision)
    draws: list[Hashable] = [(call.config, *call.paths("scores")) for call in calls]
    tests: dict[Hashable, _Test] = {}
    for call, draw in zip(calls, draws, strict=True):
        tests[draw] = tests.get(draw) or _Test(call.config, embeddings, call.paths("scores"))

    def measure(number: int) -> Measured | None:
        call = calls[number]
        try:
            _require_finite(predictions[number], call.path("reward_model"))
            return tests[draws[number]].measure(predictions[number], call.out)
        except ValueError:
            return None

    return _in_threads(measure, len(calls))


def _in_threads(measure: Callable[[int], Measured | None], count: int) -> Iterator[Measured | None]:
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        yield from pool.map(measure, range(count))


class _Test:
    """The test prompts with their golden rewards and all draws, the same for all reward models."""

    def __init__(self, config: EvaluateConfig, embeddings: list[Path], scores: list[Path]) -> None:
        require_aligned(embeddings, scores)
        self.config = config
        self.rewards = read_scores(scores).astype(np.float64)
        prompts, responses = self.rewards.shape
        require_responses(config, responses)
        self.ranks = metrics.centred_ranks(self.rewards)
        self.permutations = permutations(config, responses)
        self.same = same_prompt_pairs(prompts, responses, config)
        self.cross = any_pairs(prompts * responses, config)

    def measure(self, predictions: Floats, out: Path) -> Measured:
        """Write the tables and return the metrics of a reward model, given its `predictions` (prompts, responses)."""
        best_of_n, rewards = self.config.best_of, self.rewards
        prompts = len(rewards)
        best_of = metrics.best_of_n(predictions, rewards, best_of_n, self.permutations)
        means = rewards.mean(axis=1)
        chosen = rewards[np.arange(prompts), metrics.chosen(predictions)]
        quantile = metrics.quantile(predictions, rewards)
        spearman = metrics.spearman(predictions, rewards, self.ranks)
        defined = np.isfinite(spearman)
        _write(BEST_OF, [best_of_n, best_of.mean(axis=0), best_of.std(axis=0)], out / "best_of.parquet")
        _write(
            PROMPTS,
            [np.arange(prompts), means, chosen - means, quantile, pa.array(spearman, mask=~defined)],
            out / "prompts.parquet",
        )
        mean = float(rewards.mean())
        return {
            **{f"best_of_{n}": float(value) for n, value in zip(best_of_n, best_of.mean(axis=0), strict=True)},
            "mean_golden_reward": mean,
            "improvement": float(chosen.mean()) - mean,
            "spearman": float(spearman[defined].mean()) if defined.any() else Undefined(_NO_ORDER.format(prompts)),
            "quantile": float(quantile.mean()),
            "pairwise_accuracy": metrics.pairwise_accuracy(predictions, rewards, *self.same),
            "pairwise_accuracy_cross": metrics.pairwise_accuracy(predictions, rewards, *self.cross),
        }


def require_responses(config: EvaluateConfig, responses: int) -> None:
    """Check that there are enough responses per test prompt.

    Raises:
        ValueError: an N of `best_of` is above `responses`, or they are fewer than the two of a pair.
    """
    if max(config.best_of) > responses:
        raise ValueError(
            f"best_of asks for {max(config.best_of)} responses, but each test prompt has {responses}: drop the larger N"
            " from `best_of`, or generate more responses per test prompt"
        )
    if responses < 2:
        raise ValueError("1 response per test prompt, but a comparison needs 2: generate more responses")


def predict(heads: Sequence[RewardHead], source: Embeddings, precision: str) -> Floats:
    """Predict rewards (heads, prompts, responses), float64.

    On a CPU, a few prompts at a time for all heads: the embeddings are never in memory as a whole. A GPU that they fit
    into keeps them, and the next bundle need not read them again.
    """
    predictions = np.empty((len(heads), source.prompts, source.responses))
    prompts = source.block_prompts
    dtype = factor_type(precision)
    networks = {number: head for number, head in enumerate(heads) if isinstance(head, MlpHead)}
    others = {number: head for number, head in enumerate(heads) if number not in networks}
    with matmul_precision(precision):
        if networks and device().type == "cuda" and _fits_on_gpu(source, dtype):
            whole = cached_model((source.files, dtype), lambda: _upload(source, dtype))
            for first in range(0, source.prompts, prompts):
                features = whole[first * source.responses : (first + prompts) * source.responses]
                _predict_block(networks, features, predictions[:, first : first + prompts])
            networks = {}
        if networks:
            # A block as it comes and as the networks take it, beside what they make of it; not beside an earlier model.
            require_room(3 * prompts * source.responses * source.dimension * 4, "a block of embeddings")
        for first, block in source.blocks() if networks or others else ():
            flat, here = block.reshape(-1, source.dimension), predictions[:, first : first + len(block)]
            for number, head in others.items():
                here[number] = head.predict(flat).reshape(block.shape[:2])
            if networks:
                _predict_block(networks, as_tensor(flat, dtype), here)
    return predictions


def _predict_block(networks: Mapping[int, MlpHead], features: torch.Tensor, predictions: Floats) -> None:
    """Fill in the predictions (heads, prompts, responses) of the networks among the heads for a block."""
    for number, head in networks.items():
        predictions[number] = head.rewards(features).cpu().numpy().reshape(predictions.shape[1:])


def _fits_on_gpu(source: Embeddings, dtype: torch.dtype) -> bool:
    """Return whether the embeddings fit into two thirds of what is free on the GPU; the rest is for the work."""
    needed = source.prompts * source.responses * source.dimension * dtype.itemsize
    # What this process has there are such embeddings, or a model that makes room for them.
    return bool(needed < free_memory(if_dropped=True) * 2 / 3)


def _upload(source: Embeddings, dtype: torch.dtype) -> torch.Tensor:
    """Copy all embeddings to the device, block by block: (prompts * responses, d)."""
    rows = source.prompts * source.responses
    whole = torch.empty(rows, source.dimension, dtype=dtype, device=device())
    for first, block in source.blocks():
        part = as_tensor(block.reshape(-1, source.dimension), dtype)
        whole[first * source.responses : first * source.responses + len(part)] = part
    return whole


def _fitting_head(reward_model: Path, source: Embeddings) -> RewardHead:
    head = load_reward_head(reward_model)
    if head.dimension != source.dimension:
        raise ValueError(
            f"{reward_model}: takes embeddings of dimension {head.dimension}, but {source.files[0]} holds"
            f" {source.dimension}"
        )
    return head


def _require_finite(predictions: Floats, reward_model: Path) -> None:
    finite = np.isfinite(predictions).all(axis=1)
    if not finite.all():
        first = int(np.argmin(finite))
        raise ValueError(f"{reward_model}: predicts a reward that is not finite for test prompt {first}")


def permutations(config: EvaluateConfig, responses: int) -> Rows:
    """Draw the orders (repeats, responses) in which candidates are taken; more repeats continue fewer."""
    random = generator(config.seed, "evaluate/permutations")
    return np.stack([random.permutation(responses) for _ in range(config.repeats)])


def same_prompt_pairs(prompts: int, responses: int, config: EvaluateConfig) -> tuple[Rows, Rows]:
    """Draw pairs of two different responses of one prompt, uniformly, as flat rows (pairs,) and (pairs,)."""
    random = generator(config.seed, "evaluate/same_prompt_pairs")
    prompt = random.integers(prompts, size=config.pairs)
    left, right = two_different(random, responses, config.pairs)
    return prompt * responses + left, prompt * responses + right


def any_pairs(rows: int, config: EvaluateConfig) -> tuple[Rows, Rows]:
    """Draw pairs of two different responses among all `rows`, of any prompts, as flat rows (pairs,) and (pairs,)."""
    return two_different(generator(config.seed, "evaluate/cross_prompt_pairs"), rows, config.pairs)


def _write(schema: pa.Schema, columns: list[Any], file: Path) -> None:
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), file, compression="zstd")

"""Stage `evaluate`: how good are the responses that a reward model chooses, by golden reward, on the test prompts.

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
from numpy.typing import NDArray

from workers.device import device
from workers.metric import Undefined
from workers.model_cache import cached_model
from workers.reward_models import metrics
from workers.reward_models.configs import EvaluateConfig
from workers.reward_models.embeddings import Embeddings, Rows, open_embeddings, read_scores, require_aligned
from workers.reward_models.heads import MlpHead, RewardHead, as_tensor, factor_type, load_reward_head, matmul_precision
from workers.seeding import generator
from workers.stage import Call

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
Measured = dict[str, float | Undefined]

_NO_ORDER = "within each of the {} test prompts, all predicted or all golden rewards are equal"


def evaluate(
    config: EvaluateConfig, out: Path, *, reward_model: Path, embeddings: list[Path], scores: list[Path]
) -> Measured:
    """Write `best_of.parquet` (`BEST_OF`) and `prompts.parquet` (`PROMPTS`).

    Metrics, in golden reward units unless said otherwise: `best_of_<N>` (mean over prompts, then repeats),
    `mean_golden_reward` of all responses, `improvement` (reward of the response chosen among all, minus that mean),
    `spearman` (mean over the prompts where it is defined; undefined for a reward model that gives all responses of
    each prompt the same reward), `quantile` (mean share of a prompt's rewards that are at most the chosen one),
    `pairwise_accuracy` and `pairwise_accuracy_cross` (share of held-out noise-free pairs ordered rightly, within a
    prompt and over all).

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
    """What `evaluate` writes and returns for each of several calls, None for one that fails.

    They agree in embeddings and precision: the embeddings are read once for all reward models.
    """
    embeddings = calls[0].paths("embeddings")
    source = open_embeddings(embeddings)
    heads = [_fitting_head(call.path("reward_model"), source) for call in calls]
    predictions = predict(heads, source, calls[0].config.precision)
    tests: dict[Hashable, _Test] = {}
    for call in calls:
        drawn = (call.config, *call.paths("scores"))
        tests[drawn] = tests.get(drawn) or _Test(call.config, embeddings, call.paths("scores"))

    def measure(number: int) -> Measured | None:
        call = calls[number]
        try:
            _require_finite(predictions[number], call.path("reward_model"))
            return tests[call.config, *call.paths("scores")].measure(predictions[number], call.out)
        except ValueError:
            return None

    return _in_threads(measure, len(calls))


def _in_threads(measure: Callable[[int], Measured | None], count: int) -> Iterator[Measured | None]:
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        yield from pool.map(measure, range(count))


class _Test:
    """The test prompts with their golden rewards and everything that is drawn, the same for all reward models."""

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
        """Write the tables and return the metrics of the reward model that made `predictions` (prompts, responses)."""
        best_of_n, rewards = self.config.best_of, self.rewards
        prompts = len(rewards)
        best_of = metrics.best_of_n(predictions, rewards, best_of_n, self.permutations)
        chosen = rewards[np.arange(prompts), metrics.chosen(predictions)]
        quantile = metrics.quantile(predictions, rewards)
        spearman = metrics.spearman(predictions, rewards, self.ranks)
        defined = np.isfinite(spearman)
        _write(BEST_OF, [best_of_n, best_of.mean(axis=0), best_of.std(axis=0)], out / "best_of.parquet")
        _write(
            PROMPTS,
            [np.arange(prompts), rewards.mean(axis=1), chosen, quantile, pa.array(spearman, mask=~defined)],
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


def predict(heads: Sequence[RewardHead], source: Embeddings, precision: str) -> Floats:
    """Predicted rewards (heads, prompts, responses).

    On a CPU, a few prompts at a time for all heads: the embeddings never lie in memory whole. A GPU that they fit into
    keeps them, and the next bundle need not read them again.
    """
    shape = (len(heads), source.prompts, source.responses)
    predictions = np.empty(shape)
    prompts = max(1, BLOCK_VALUES // (source.responses * source.dimension))
    dtype = factor_type(precision)
    networks = {number: head for number, head in enumerate(heads) if isinstance(head, MlpHead)}
    others = {number: head for number, head in enumerate(heads) if number not in networks}
    with matmul_precision(precision):
        if networks and device().type == "cuda" and _fits_on_gpu(source, dtype):
            whole = cached_model((source.files, dtype), lambda: _upload(source, dtype, prompts))
            for first in range(0, source.prompts, prompts):
                features = whole[first * source.responses : (first + prompts) * source.responses]
                _predict_block(networks, features, predictions[:, first : first + prompts])
            networks = {}
        for first, block in source.blocks(prompts) if networks or others else ():
            flat, here = block.reshape(-1, source.dimension), predictions[:, first : first + len(block)]
            for number, head in others.items():
                here[number] = head.predict(flat).reshape(block.shape[:2])
            if networks:
                _predict_block(networks, as_tensor(flat, dtype), here)
    return predictions


def _predict_block(networks: Mapping[int, MlpHead], features: torch.Tensor, predictions: Floats) -> None:
    """Fill in the predictions (heads, prompts, responses) of a block by those heads that are networks."""
    for number, head in networks.items():
        predictions[number] = head.rewards(features).cpu().numpy().reshape(predictions.shape[1:])


def _fits_on_gpu(source: Embeddings, dtype: torch.dtype) -> bool:
    """Whether a GPU takes the embeddings, with a third left for the work."""
    _, total = torch.cuda.mem_get_info()
    needed = source.prompts * source.responses * source.dimension * dtype.itemsize
    return bool(needed < total * 2 / 3)


def _upload(source: Embeddings, dtype: torch.dtype, prompts: int) -> torch.Tensor:
    rows = source.prompts * source.responses
    whole = torch.empty(rows, source.dimension, dtype=dtype, device=device())
    for first, block in source.blocks(prompts):
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

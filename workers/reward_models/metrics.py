"""Metrics of how well predicted rewards choose and order responses, as functions of numpy arrays.

`predictions` and `rewards` (golden) are (prompts, responses) and finite; a larger prediction is preferred. Definitions
follow "Rethinking Reward Modeling" (Sun, Shen, Ton; arXiv 2411.04991, ICLR 2025), section 4, and its script
`step6_eval_rms.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]


def best_of_n(
    predictions: Floats, rewards: Floats, sizes: Sequence[int], permutations: Integers
) -> NDArray[np.float64]:
    """Average the golden reward of the response chosen among the first N of each permutation, over all prompts.

    Args:
        predictions: choose the response.
        rewards: are averaged.
        sizes: values of N.
        permutations: (repeats, responses), shared by all prompts, so that candidates are nested in N. Of equally
            predicted candidates the first in the permutation is chosen.

    Returns:
        (repeats, len(sizes)), in units of `rewards`.

    Raises:
        ValueError: a size is below 1 or above the number of responses.
    """
    responses = predictions.shape[1]
    if min(sizes) < 1 or max(sizes) > responses:
        raise ValueError(f"best-of-N sizes {tuple(sizes)} do not all lie between 1 and the {responses} responses")
    ascending = sorted(set(sizes))
    # A number for each candidate: its dense rank times `responses`, plus its place in the permutation. The least is the
    # first of those with the highest prediction, and least numbers are found many times faster than places.
    kind = np.int32 if responses**2 < 2**31 else np.int64
    ranks = np.ascontiguousarray(_dense_ranks(predictions).T.astype(kind) * responses)
    place = np.arange(responses, dtype=kind)[:, None]
    segments = list(pairwise([0, *ascending]))
    least = np.empty((len(ascending), len(predictions)), kind)
    prompt = np.arange(len(predictions))
    golden = rewards.astype(np.float64, copy=False)
    means = np.empty((len(permutations), len(ascending)))
    for repeat, permutation in enumerate(permutations):
        numbers = ranks[permutation[: ascending[-1]]]
        numbers += place[: ascending[-1]]
        for row, (begin, end) in zip(least, segments, strict=True):
            np.min(numbers[begin:end], axis=0, out=row)
        # Candidates are nested in N: the best of the first N is the best of the segments so far.
        np.minimum.accumulate(least, axis=0, out=least)
        means[repeat] = golden[prompt, permutation[least % responses]].mean(axis=1)
    return means[:, [ascending.index(size) for size in sizes]]


def spearman(predictions: Floats, rewards: Floats, ranks: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Correlate the ranks of predictions and rewards of each prompt (prompts,), ties as in `scipy.stats.spearmanr`.

    NaN marks a prompt where the correlation is undefined, since all its predictions, or all its rewards, are equal.
    `ranks` are `centred_ranks(rewards)`, if they are known already.
    """
    left = centred_ranks(predictions)
    right = centred_ranks(rewards) if ranks is None else ranks
    scale = np.sqrt((left * left).sum(axis=1) * (right * right).sum(axis=1))
    correlation: NDArray[np.float64] = np.full(len(left), np.nan)
    np.divide((left * right).sum(axis=1), scale, out=correlation, where=scale > 0)
    # Rounding can leave the interval by one ulp; NaN stays NaN.
    return np.clip(correlation, -1.0, 1.0, out=correlation)


def chosen(predictions: Floats) -> NDArray[np.int64]:
    """Return the index of the response with the highest prediction of each prompt (prompts,); the first of equals."""
    index: NDArray[np.int64] = predictions.argmax(axis=1).astype(np.int64, copy=False)
    return index


def quantile(predictions: Floats, rewards: Floats) -> NDArray[np.float64]:
    """Return the share of each prompt's rewards that are at most that of the chosen response (prompts,), in (0, 1]."""
    reward = np.take_along_axis(rewards, chosen(predictions)[:, None], axis=1)
    share: NDArray[np.float64] = np.mean(rewards <= reward, axis=1)
    return share


def pairwise_accuracy(predictions: Floats, rewards: Floats, left: Integers, right: Integers) -> float:
    """Return the share of noise-free pairs that the predictions order as the rewards do, in [0, 1].

    `left` and `right` (pairs,) are flat rows. Pairs with equal rewards are dropped; equal predictions count one half.

    Raises:
        ValueError: every pair has equal rewards, so there is nothing to order.
    """
    gap = rewards.ravel()[left].astype(np.float64) - rewards.ravel()[right]
    predicted = predictions.ravel()[left].astype(np.float64) - predictions.ravel()[right]
    informative = gap != 0
    if not informative.any():
        raise ValueError(f"all {len(gap)} held-out pairs have equal golden rewards: pairwise accuracy is undefined")
    agreement = np.sign(gap[informative]) * np.sign(predicted[informative])  # 1 right, 0 tie, -1 wrong
    return float((agreement + 1).mean() / 2)


def log_loss(logits: Floats, labels: NDArray[np.bool_]) -> float:
    """Return the mean binary cross-entropy of `logits` (rows,) against `labels` (rows,), in nats, without overflow."""
    return float(np.logaddexp(0.0, np.where(labels, -logits, logits)).mean())


def _dense_ranks(values: Floats) -> NDArray[np.int64]:
    """Rank within each row, 0 for the highest; equal values share a rank and leave no gap."""
    order = np.argsort(-values, axis=1)
    descending = np.take_along_axis(values, order, axis=1)
    rises = np.zeros(values.shape, np.int64)
    np.cumsum(descending[:, 1:] != descending[:, :-1], axis=1, out=rises[:, 1:])
    ranks = np.empty_like(rises)
    np.put_along_axis(ranks, order, rises, axis=1)
    return ranks


def centred_ranks(values: Floats) -> NDArray[np.float64]:
    """Rank within each row, equal values sharing the mean of their ranks, and shift so that each row sums to 0."""
    order = np.argsort(values, axis=1)
    ascending = np.take_along_axis(values, order, axis=1)
    position = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    differs = ascending[:, 1:] != ascending[:, :-1]
    edge = np.ones((len(values), 1), dtype=bool)
    starts = np.concatenate([edge, differs], axis=1)
    ends = np.concatenate([differs, edge], axis=1)
    first = np.maximum.accumulate(np.where(starts, position, 0), axis=1)
    last = np.minimum.accumulate(np.where(ends, position, values.shape[1])[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 - (values.shape[1] - 1) / 2, axis=1)
    return ranks

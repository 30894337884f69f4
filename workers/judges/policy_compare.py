"""Stage `policy_compare`: a trained policy compared with its start, by golden reward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from workers.data.responses import Responses, read_responses
from workers.judges.configs import PolicyCompareConfig
from workers.reward_models.embeddings import read_scores
from workers.tables import COMPARED_PROMPTS

COMPARISON_FILE = "comparison.json"
#: Inverse strength of the ridge, scikit-learn's C; AlpacaEval's where it does not search for one.
INVERSE_PENALTY = 100.0

Floats = NDArray[np.floating[Any]]


def policy_compare(
    config: PolicyCompareConfig,
    out: Path,
    *,
    responses: list[Path],
    scores: list[Path],
    start_responses: list[Path],
    start_scores: list[Path],
) -> dict[str, float]:
    """Compare response i of the policy with response i of the start to the same prompt.

    The larger golden reward wins; equal ones are half a win.

    Args:
        config: where a response ends.
        out: receives `comparison.json`: the metrics, counts, and coefficients of the length-controlled win rate; and
            `prompts.parquet` (`tables.COMPARED_PROMPTS`).
        responses: shards of the policy's responses.
        scores: shards of their golden rewards.
        start_responses: shards of the start's responses.
        start_scores: shards of their golden rewards.

    Returns:
        `golden_reward` and `start_golden_reward`: means over all responses. `win_rate`: of the policy.
        `length_controlled_win_rate`: see the function of this name. `mean_length` and `start_mean_length`: of
        the responses, in characters.

    Raises:
        ValueError: scores of other responses, or not as many responses to the same prompts from both policies.
    """
    texts, rewards = _read(responses, scores, config.cut_at)
    start_texts, start_rewards = _read(start_responses, start_scores, config.cut_at)
    _require_same_prompts(texts, start_texts, responses, start_responses)
    lengths, start_lengths = (
        np.array([len(text) for text in each.response], np.float64) for each in (texts, start_texts)
    )
    wins = np.sign(rewards - start_rewards) / 2 + 0.5
    of_responses = {
        "golden_reward": rewards,
        "start_golden_reward": start_rewards,
        "win_rate": wins,
        "mean_length": lengths,
        "start_mean_length": start_lengths,
    }
    of_prompts = {name: each.reshape(texts.prompts, -1).mean(axis=1) for name, each in of_responses.items()}
    COMPARED_PROMPTS.write({"prompt": texts.prompt[:: texts.responses], **of_prompts}, out)
    controlled, coefficients = length_controlled_win_rate(wins, lengths - start_lengths)
    metrics = {name: float(each.mean()) for name, each in of_responses.items()}
    metrics["length_controlled_win_rate"] = controlled
    counts = {"pairs": len(wins), "wins": int((wins == 1).sum()), "ties": int((wins == 0.5).sum())}
    found = metrics | counts | coefficients
    (out / COMPARISON_FILE).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return metrics


def length_controlled_win_rate(wins: Floats, difference: Floats) -> tuple[float, dict[str, float]]:
    """Estimate the win rate if both policies wrote at the same length.

    After AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475; `metrics/glm_winrate.py` of
    github.com/tatsu-lab/alpaca_eval): P(win) = sigmoid(theta + phi * tanh(difference / its standard deviation)), fitted
    by logistic regression to wins that may be halves, and predicted at difference 0. Left out of that: the difficulty
    of instructions, which takes many policies to learn; the two gamed baselines that regularise phi; and the L1
    penalty chosen by cross-validation. A ridge on both coefficients (`INVERSE_PENALTY`) keeps them finite where wins
    or lengths separate the pairs, and draws the rate towards one half: 10 wins of 10 give 0.995, 100 of 100 0.9993.

    Args:
        wins: (pairs,), 1, 0.5 or 0.
        difference: (pairs,), length of the policy's response minus the start's. Without any spread in them length
            explains nothing, and phi is 0.

    Returns:
        The rate, and the coefficients `theta` and `phi`.
    """
    deviation = float(np.std(difference, ddof=1)) if len(difference) > 1 else 0.0
    relative = np.tanh(difference / deviation) if deviation > 0 else np.zeros(len(difference))
    features = np.stack([np.ones(len(wins)), relative], axis=1)
    # A half win is half a row of each label.
    labels = np.repeat([1, 0], len(wins))
    fit = LogisticRegression(
        C=INVERSE_PENALTY, fit_intercept=False, solver="newton-cholesky", tol=1e-10, max_iter=1000
    ).fit(np.concatenate([features, features]), labels, sample_weight=np.concatenate([wins, 1 - wins]))
    theta, phi = (float(value) for value in fit.coef_[0])
    return float(1 / (1 + np.exp(-theta))), {"theta": theta, "phi": phi}


def _read(responses: list[Path], scores: list[Path], cut_at: str | None) -> tuple[Responses, Floats]:
    """Read the texts and flat golden rewards of a policy's responses."""
    texts, rewards = read_responses(responses, cut_at), read_scores(scores)
    if rewards.shape != (texts.prompts, texts.responses):
        raise ValueError(
            f"{scores[0]}: scores of (prompts, responses) {rewards.shape}, but {responses[0]} has"
            f" {(texts.prompts, texts.responses)}: they were made from different responses"
        )
    return texts, rewards.ravel().astype(np.float64)


def _require_same_prompts(
    texts: Responses, start: Responses, responses: list[Path], start_responses: list[Path]
) -> None:
    if texts.prompt != start.prompt:
        raise ValueError(
            f"{responses[0]} and {start_responses[0]} do not answer the same prompts equally often"
            f" ({texts.prompts} x {texts.responses} and {start.prompts} x {start.responses} responses): generate both"
            " with the same `split` and `responses`"
        )

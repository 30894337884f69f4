"""Stage `annotate`: simulated preference annotations from golden rewards.

Follows section 4 of "Rethinking Reward Modeling" (ICLR 2025) and its script `step5_train_rms.py`. Which responses are
compared, and the uniform number that decides each label, depend on the seed but not on `beta`, `scale` or the number of
annotations: noise levels are compared on the same pairs with the same luck, and fewer annotations are a prefix of more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers import tables
from workers.configs import AnnotateConfig
from workers.embeddings import ANNOTATIONS_FILE, Rows, read_scores
from workers.seeding import generator

Floats = NDArray[np.floating[Any]]


def annotate(config: AnnotateConfig, out: Path, *, scores: list[Path]) -> dict[str, float]:
    """Write `annotations.parquet` (`tables.ANNOTATIONS`): one annotation for each of the first n prompts.

    Metrics: `flip_rate`, the share of annotations whose loser has the strictly larger golden reward; `mean_reward_gap`,
    the mean |r_b - r_a| in golden reward units (not divided by the scale).

    Raises:
        ValueError: fewer prompts than annotations, fewer than two responses per prompt, a reward that is not finite, or
            `scale: std` when all rewards are equal.
    """
    rewards = read_scores(scores)
    first, second = draw_pairs(rewards, config)
    uniform = generator(config.seed, "annotate/noise").random(len(rewards))[: config.annotations]
    flat = rewards.ravel().astype(np.float64)
    gap = flat[second] - flat[first]
    wins = second_wins(gap, uniform, config.beta, reward_scale(rewards, config.scale))
    winner, loser = np.where(wins, second, first), np.where(wins, first, second)
    reward_gap = np.where(wins, gap, -gap)
    tables.write_table(
        {"winner": winner, "loser": loser, "reward_gap": reward_gap}, tables.ANNOTATIONS, out / ANNOTATIONS_FILE
    )
    return {"flip_rate": float((reward_gap < 0).mean()), "mean_reward_gap": float(np.abs(gap).mean())}


def draw_pairs(rewards: Floats, config: AnnotateConfig) -> tuple[Rows, Rows]:
    """Flat rows (n,) of the two responses a and b that each annotation compares.

    Cross-prompt: a is drawn from the two candidates of prompt i, a prompt j uniformly from *all* prompts, b from the
    candidates of j. As in the released script j may equal i, and b may then be a itself; the script draws j from the
    first n prompts only, but then the pairs of 5,000 annotations would not be among those of 10,000.
    Same-prompt: a and b are the two candidates of i.

    Raises:
        ValueError: fewer prompts than annotations, or fewer than two responses per prompt.
    """
    prompts = len(rewards)
    if config.annotations > prompts:
        raise ValueError(
            f"{config.annotations} annotations were asked for, but there are {prompts} train prompts and each is"
            " annotated once: lower `annotations`, or use more train prompts"
        )
    candidates = candidate_rows(rewards, config.sampling, config.seed)
    prompt = np.arange(config.annotations)
    if config.pairing == "same":
        return candidates[prompt, 0], candidates[prompt, 1]
    # Drawn for all prompts, then cut: this is what nests smaller annotation sets in larger ones.
    random = generator(config.seed, "annotate/pairs")
    first: Rows = random.integers(2, size=(prompts,))
    partner: Rows = random.integers(prompts, size=(prompts,))
    second: Rows = random.integers(2, size=(prompts,))
    return candidates[prompt, first[prompt]], candidates[partner[prompt], second[prompt]]


def candidate_rows(rewards: Floats, sampling: str, seed: int) -> Rows:
    """Flat rows (prompts, 2) of the two responses of each prompt that may be annotated.

    Responses are ranked from the lowest golden reward (rank 0) to the highest as in `step3.5_processing_data.py`,
    equals by their response id. `random`: two different responses; `similar`: the middle ranks k // 2 - 1 and k // 2
    (4 and 5 of 10); `diversified`: the first and the last rank.

    Raises:
        ValueError: fewer than two responses per prompt.
    """
    prompts, responses = rewards.shape
    if responses < 2:
        raise ValueError(f"{responses} response per train prompt, but a comparison needs 2: raise `responses`")
    if sampling == "random":
        random = generator(seed, "annotate/candidates")
        one = random.integers(responses, size=prompts)
        other = random.integers(responses - 1, size=prompts)
        picked = np.stack([one, other + (other >= one)], axis=1)
    else:
        ranks = [responses // 2 - 1, responses // 2] if sampling == "similar" else [0, responses - 1]
        picked = np.argsort(rewards, axis=1, kind="stable")[:, ranks]
    rows: Rows = picked.astype(np.int64) + np.arange(prompts, dtype=np.int64)[:, None] * responses
    return rows


def second_wins(gap: Floats, uniform: Floats, beta: float, scale: float) -> NDArray[np.bool_]:
    """Whether b is preferred, given `gap` = r_b - r_a (n,) and a uniform number in [0, 1) for each pair.

    b wins where uniform < sigmoid(beta * gap / scale). Negative `beta` is noise-free: the larger reward wins, and equal
    rewards are decided by uniform < 0.5.
    """
    if beta < 0:
        return np.where(gap == 0, uniform < 0.5, gap > 0)
    with np.errstate(over="ignore"):  # an infinite logit is a certain label, not a mistake
        logit = beta * gap / scale
    return np.less(uniform, sigmoid(logit))


def sigmoid(logit: Floats) -> Floats:
    """1 / (1 + exp(-logit)) without overflow: the exponential is only ever taken of a non-positive number."""
    small = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1.0, small) / (1.0 + small)


def reward_scale(rewards: Floats, scale: float | str) -> float:
    """The divisor s of reward differences: the given number, or for "std" the standard deviation of all `rewards`.

    Raises:
        ValueError: "std" when all rewards are equal.
    """
    if not isinstance(scale, str):
        return scale
    deviation = float(rewards.std(dtype=np.float64))
    if deviation == 0:
        raise ValueError("scale: std, but all golden rewards are equal; give a number as scale")
    return deviation

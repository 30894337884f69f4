"""Stage `annotate`: simulated preference annotations from golden rewards.

Follows section 4 of "Rethinking Reward Modeling" (arXiv 2411.04991, ICLR 2025) and its script `step5_train_rms.py`.
The choice of responses, and the uniform number that decides each label, depend on the seed but not on `beta`, `scale`
or the number of annotations: noise levels are compared on the same pairs with the same luck, and fewer
annotations are a prefix of more.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workers.annotator import Floats, reward_scale, second_wins
from workers.reward_models.configs import AnnotateConfig
from workers.reward_models.embeddings import (
    Embeddings,
    open_embeddings,
    read_scores,
    require_aligned,
)
from workers.reward_models.pairs import Rows, two_different
from workers.seeding import generator
from workers.tables import ANNOTATIONS

#: Dimensions in which `sampling: d_optimal` compares embeddings, and prompts whose pairs are chosen at once. Both are
#: this project's choices.
PROJECTION, BLOCK_PROMPTS = 64, 256


def annotate(
    config: AnnotateConfig, out: Path, *, scores: list[Path], embeddings: list[Path] | None = None
) -> dict[str, float]:
    """Annotate one pair of responses for each of the first n prompts.

    Args:
        config: the choice of responses, and the errors of the annotator.
        out: receives `annotations.parquet` (`tables.ANNOTATIONS`), prompt by prompt.
        scores: artifacts of the golden rewards.
        embeddings: artifacts of the same responses; `sampling: d_optimal` alone reads them.

    Returns:
        `flip_rate`, the share of annotations whose loser has the strictly larger golden reward; `mean_reward_gap`, the
        mean |r_b - r_a| in units of the golden reward (not divided by the scale).

    Raises:
        ValueError: fewer prompts than annotations, fewer than two responses per prompt, a reward that is not finite,
            `scale: std` when all rewards are equal, or no embeddings, or others, for `sampling: d_optimal`.
    """
    rewards = read_scores(scores)
    if config.sampling == "d_optimal":
        if not embeddings:
            raise ValueError("sampling: d_optimal needs the embeddings of the responses: wire the input `embeddings`")
        require_aligned(embeddings, scores)
        candidates = d_optimal_rows(open_embeddings(embeddings), config.seed)
    else:
        candidates = candidate_rows(rewards, config.sampling, config.seed)
    first, second = draw_pairs(candidates, config)
    uniform = generator(config.seed, "annotate/noise").random(len(rewards))[: config.annotations]
    flat = rewards.ravel().astype(np.float64)
    gap = flat[second] - flat[first]
    wins = second_wins(gap, uniform, config.beta, reward_scale(rewards, config.scale))
    winner, loser = np.where(wins, second, first), np.where(wins, first, second)
    reward_gap = np.where(wins, gap, -gap)
    ANNOTATIONS.write({"winner": winner, "loser": loser, "reward_gap": reward_gap}, out)
    return {"flip_rate": float((reward_gap < 0).mean()), "mean_reward_gap": float(np.abs(gap).mean())}


def draw_pairs(candidates: Rows, config: AnnotateConfig) -> tuple[Rows, Rows]:
    """Draw the responses a and b of each annotation, flat rows (n,) and (n,), from the candidates (prompts, 2).

    Cross-prompt: a is drawn from the two candidates of prompt i, a prompt j uniformly from *all* prompts, b from the
    candidates of j. As in the released script j may equal i, and b may then be a itself; the script draws j from the
    first n prompts only, but then the pairs of 5,000 annotations would not be among those of 10,000.
    Same-prompt: a and b are the two candidates of i.

    Raises:
        ValueError: fewer prompts than annotations.
    """
    prompts = len(candidates)
    if config.annotations > prompts:
        raise ValueError(
            f"{config.annotations} annotations were asked for, but there are {prompts} train prompts and each is"
            " annotated once: lower `annotations`, or use more train prompts"
        )
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
    """Choose the two responses of each prompt that may be annotated, as flat rows (prompts, 2).

    Responses are ranked from the lowest golden reward (rank 0) to the highest as in `step3.5_processing_data.py`,
    equals by their response id. `random`: two different responses; `similar`: the middle ranks k // 2 - 1 and k // 2
    (4 and 5 of 10); `diversified`: the first and the last rank.

    Raises:
        ValueError: fewer than two responses per prompt.
    """
    prompts, responses = rewards.shape
    _require_two(responses)
    if sampling == "random":
        picked = np.stack(two_different(generator(seed, "annotate/candidates"), responses, prompts), axis=1)
    else:
        ranks = [responses // 2 - 1, responses // 2] if sampling == "similar" else [0, responses - 1]
        picked = np.argsort(rewards, axis=1, kind="stable")[:, ranks]
    rows: Rows = picked.astype(np.int64) + np.arange(prompts, dtype=np.int64)[:, None] * responses
    return rows


def d_optimal_rows(embeddings: Embeddings, seed: int) -> Rows:
    """Choose the two responses of each prompt whose comparison is most informative, as flat rows (prompts, 2).

    The design is greedy and D-optimal for a reward that is linear in the embedding, past-aware as in "Reviving The
    Classics: Active Reward Modeling" (Shen, Sun, Ton; arXiv 2502.04354): of a prompt's pairs it takes the one with the
    largest v' A^-1 v, where v is the difference of the two embeddings and A the sum of v v' over the prompts before (in
    blocks of `BLOCK_PROMPTS`). Unlike there, no reward model is fitted on the way, hence the weights p (1 - p) of the
    Fisher information are left out; and embeddings are projected at random to `PROJECTION` dimensions, in which A can
    be estimated from few prompts.

    Raises:
        ValueError: fewer than two responses per prompt, or an embedding that is not finite.
    """
    responses, dimension = embeddings.responses, embeddings.dimension
    _require_two(responses)
    left, right = np.triu_indices(responses, 1)
    axes = generator(seed, "annotate/projection").standard_normal((dimension, min(dimension, PROJECTION)))
    information: Floats | None = None
    rows: Rows = np.empty((embeddings.prompts, 2), np.int64)
    for first in range(0, embeddings.prompts, BLOCK_PROMPTS):
        prompts = np.arange(first, min(first + BLOCK_PROMPTS, embeddings.prompts))
        flat = (prompts[:, None] * responses + np.arange(responses)).ravel()
        projected = (embeddings.gather(flat) @ axes).reshape(len(prompts), responses, -1)
        differences = projected[:, left] - projected[:, right]
        if information is None:
            # The prior: the information of one pair of average length, in all directions alike.
            information = np.eye(axes.shape[1]) * max(float((differences**2).mean()), np.finfo(np.float64).tiny)
        gain = (differences @ np.linalg.inv(information) * differences).sum(axis=2)
        best = gain.argmax(axis=1)
        rows[prompts] = np.stack([left[best], right[best]], axis=1) + prompts[:, None] * responses
        chosen = differences[np.arange(len(prompts)), best]
        information = information + chosen.T @ chosen
    return rows


def _require_two(responses: int) -> None:
    if responses < 2:
        raise ValueError(f"{responses} response per train prompt, but a comparison needs 2: raise `responses`")

"""Stage `annotate_by_judge`: a judge in the place of the simulated annotator."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workers.judges.annotated_pairs import read_annotated_pairs
from workers.judges.configs import AnnotateByJudgeConfig
from workers.judges.judged_pairs import JudgedPairs, majority
from workers.seeding import generator
from workers.tables import ANNOTATIONS


def annotate_by_judge(
    config: AnnotateByJudgeConfig, out: Path, *, annotations: Path, responses: list[Path], verdicts: Path
) -> dict[str, float]:
    """Let a judge choose the winner of each annotated pair.

    Its preference is the majority of its verdicts; where there is none, where the two orders disagree, and where both
    answers are the same text, a coin decides. The coin of annotation i depends on the seed and i alone.

    Args:
        config: where a response ends, and the seed.
        out: receives `annotations.parquet`: the same pairs in the same order.
        annotations: artifact of the pairs; their winners do not matter.
        responses: shards of the responses that were annotated.
        verdicts: artifact of the judge's verdicts about the pairs.

    Returns:
        `flip_rate` and `mean_reward_gap`, as `annotate` defines them: the share of annotations whose loser has the
        strictly larger golden reward, which is the judge's error rate, and the mean of |gap|. `undecided_rate`: the
        share of coins.

    Raises:
        ValueError: a pair without verdict, or what `read_annotated_pairs` raises.
    """
    pairs = read_annotated_pairs(annotations, responses, config.cut_at)
    table = ANNOTATIONS.read(annotations)
    winner, loser, gap = (table[name].to_numpy() for name in ("winner", "loser", "reward_gap"))
    judged = JudgedPairs(verdicts, repeats="each")
    right = [None if pair.winner == pair.loser else majority(judged.verdicts_about(*pair)) for pair in pairs]
    undecided = np.array([each is None for each in right])
    against = np.array([each is False for each in right])
    # Heads is the smaller row, whichever was the winner: the coin knows nothing of golden rewards.
    heads = generator(config.seed, "annotate_by_judge/coin").random(len(pairs)) < 0.5
    turned = np.where(undecided, heads != (winner < loser), against)
    reward_gap = np.where(turned, -gap, gap)
    ANNOTATIONS.write(
        {
            "winner": np.where(turned, loser, winner),
            "loser": np.where(turned, winner, loser),
            "reward_gap": reward_gap,
        },
        out,
    )
    return {
        "flip_rate": float((reward_gap < 0).mean()),
        "mean_reward_gap": float(np.abs(gap).mean()),
        "undecided_rate": float(undecided.mean()),
    }

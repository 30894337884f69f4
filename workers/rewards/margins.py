"""Stage `margins`: the golden reward of the chosen answer minus that of the rejected one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workers.checkpoints import NONE, Checkpoints
from workers.rewards.configs import MarginsConfig
from workers.rewards.scoring import score_pairs


def margins(
    config: MarginsConfig,
    out: Path,
    *,
    golden: Path,
    preferences: Path,
    batch_size: int = 64,
    checkpoints: Checkpoints = NONE,
) -> dict[str, float]:
    """Subtract the golden reward of the rejected answer from that of the chosen one, in each row.

    Each answer is read as prompt + answer, or as a chat. Texts longer than `max_tokens` lose their beginning. The head
    computes in float32 whatever `dtype` is.

    Args:
        config: how to read the texts.
        out: receives `margins.npy`, float32 of shape (rows,), in the order of `preferences`.
        golden: artifact of a sequence classifier with one label.
        preferences: artifact of the rows.
        batch_size: answers of `max_tokens` per forward pass, more if they are shorter, fewer where memory runs out.
        checkpoints: those of the step.

    Returns:
        `mean_reward_gap`, the mean margin in units of the reward model.

    Raises:
        ValueError: no rows; the golden model is no one-label classifier; a reward is not finite (row named); or
            `chat` without a chat template.
        FileNotFoundError: the golden model cannot be read.
    """
    _, (chosen, rejected) = score_pairs(golden, preferences, [["chosen", "rejected"]], config, batch_size, checkpoints)
    gaps = (chosen.astype(np.float64) - rejected).astype(np.float32)
    np.save(out / "margins.npy", gaps)
    return {"mean_reward_gap": float(gaps.mean(dtype=np.float64))}

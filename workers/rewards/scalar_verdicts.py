"""Stage `scalar_verdicts`: a scalar reward model as a judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workers.checkpoints import NONE, Checkpoints
from workers.rewards.configs import ScalarVerdictsConfig
from workers.rewards.scoring import score_pairs
from workers.tables import VERDICTS


def scalar_verdicts(
    config: ScalarVerdictsConfig,
    out: Path,
    *,
    scalar: Path,
    preferences: Path,
    batch_size: int = 64,
    checkpoints: Checkpoints = NONE,
) -> dict[str, float]:
    """Let a scalar reward model choose between the two answers of each row.

    It prefers the answer with the strictly greater reward, as RewardBench counts (arXiv 2403.13787); of equal ones the
    rejected. Rewards do not depend on the order of the answers: each row has a verdict for both orders, so that no
    share of places depends on which answer is right. Transcripts longer than `max_tokens` lose their beginning.

    Args:
        config: how to read the texts.
        out: receives `verdicts.parquet` in the order of `preferences`; `request`, `text` and `unread` are empty.
        scalar: artifact of a sequence classifier with one label.
        preferences: artifact of (prompt, chosen, rejected) rows.
        batch_size: answers of `max_tokens` per forward pass, more if they are shorter, fewer where memory runs out.
        checkpoints: those of the step.

    Returns:
        `verdicts`: two per row. `ties`: rows with equal rewards.

    Raises:
        ValueError: there are no rows, the model has more than one label, a reward is not finite, or `chat` without a
            chat template.
        FileNotFoundError: the model cannot be read.
    """
    table, rewards = score_pairs(scalar, preferences, [["chosen"], ["rejected"]], config, batch_size, checkpoints)
    prompts, chosen, rejected = (table.column(name).to_pylist() for name in ("prompt", "chosen", "rejected"))
    rows = table.num_rows
    right = rewards[0] > rewards[1]
    columns = {
        "prompt": prompts * 2,
        "first": chosen + rejected,
        "second": rejected + chosen,
        "drawn": [True] * rows + [False] * rows,
        "hint": [0] * 2 * rows,
        "sample": [0] * 2 * rows,
        "request": [""] * 2 * rows,
        "text": [""] * 2 * rows,
        "unread": [""] * 2 * rows,
        "verdict": np.concatenate([np.where(right, 1, 2), np.where(right, 2, 1)]).astype(np.int8),
    }
    VERDICTS.write(columns, out)
    return {"verdicts": float(2 * rows), "ties": float((rewards[0] == rewards[1]).sum())}

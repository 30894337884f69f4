"""Stage `scalar_verdicts`: a scalar reward model as a judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workers.language_models import models
from workers.language_models.transcripts import transcript_ids
from workers.progress import Progress
from workers.rewards.configs import ScalarVerdictsConfig
from workers.rewards.scoring import load_reward_model
from workers.tables import PREFERENCES, VERDICTS, read_table, write_table


def scalar_verdicts(config: ScalarVerdictsConfig, out: Path, *, scalar: Path, preferences: Path) -> dict[str, float]:
    """Let a scalar reward model choose between the two answers of each row.

    It prefers the answer with the strictly greater reward, as RewardBench counts (arXiv 2403.13787); of equal ones the
    rejected. Rewards do not depend on the order of the answers: each row has a verdict for both orders, so that no
    share of places depends on which answer is right. Transcripts longer than `max_tokens` lose their beginning.

    Args:
        config: how to read the texts.
        out: receives `verdicts.parquet` in the order of `preferences`; `request`, `text` and `unread` are empty.
        scalar: artifact of a sequence classifier with one label.
        preferences: artifact of (prompt, chosen, rejected) rows.

    Returns:
        `verdicts`: two per row. `ties`: rows with equal rewards.

    Raises:
        ValueError: there are no rows, the model has more than one label, a reward is not finite, or `chat` without a
            chat template.
        FileNotFoundError: the model cannot be read.
    """
    source = models.locate(scalar)
    tokenizer, model = load_reward_model(source, config.dtype)
    limit = models.token_limit(model, tokenizer, config.max_tokens)
    table = read_table(preferences / "preferences.parquet", PREFERENCES)
    if table.num_rows == 0:
        raise ValueError(f"{preferences}: no preferences")
    rewards = {"chosen": np.empty(table.num_rows), "rejected": np.empty(table.num_rows)}
    size = config.batch_size * models.WINDOW
    progress = Progress("rows", table.num_rows)
    for start in range(0, table.num_rows, size):
        part = table.slice(start, size)
        prompts = part.column("prompt").to_pylist()
        for answer, found in rewards.items():
            answers = part.column(answer).to_pylist()
            ids = transcript_ids(tokenizer, prompts, answers, chat=config.chat, max_tokens=limit)
            found[start : start + len(prompts)] = models.rewards(model, tokenizer, ids, config.batch_size)
        progress.show(start + len(prompts))
    for answer, found in rewards.items():
        if not np.isfinite(found).all():
            row = int(np.flatnonzero(~np.isfinite(found))[0])
            raise ValueError(f"{preferences}: row {row}: the reward of the {answer} answer is not finite")
    prompts, chosen, rejected = (table.column(name).to_pylist() for name in ("prompt", "chosen", "rejected"))
    rows = table.num_rows
    right = rewards["chosen"] > rewards["rejected"]
    columns: dict[str, object] = {
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
    write_table(columns, VERDICTS, out / "verdicts.parquet")
    return {"verdicts": float(2 * rows), "ties": float((rewards["chosen"] == rewards["rejected"]).sum())}

"""Stage `margins`: how much better the golden reward model finds the chosen answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workers.language_models import models
from workers.language_models.transcripts import transcript_ids
from workers.model_cache import cached_model
from workers.progress import Progress
from workers.rewards.configs import MarginsConfig
from workers.rewards.scoring import load_reward_model
from workers.tables import PREFERENCES, read_table


def margins(config: MarginsConfig, out: Path, *, golden: Path, preferences: Path) -> dict[str, float]:
    """Golden reward of the chosen answer minus that of the rejected one, each read as prompt + answer or as a chat.

    Texts longer than `max_tokens` lose their beginning. The head computes in float32 whatever `dtype` is.

    Args:
        config: how to read the texts.
        out: receives `margins.npy`, float32 of shape (rows,), in the order of `preferences`.
        golden: artifact of a sequence classifier with one label.
        preferences: artifact of the rows.

    Returns:
        `mean_reward_gap`, the mean margin in units of the reward model.

    Raises:
        ValueError: no rows; the golden model is no one-label classifier; a reward is not finite (row named); or
            `chat` without a chat template.
        FileNotFoundError: the golden model cannot be read.
    """
    source = models.locate(golden)
    # The identity that `score` uses, for the same thing.
    tokenizer, model = cached_model(
        ("score", source.state(), config.dtype), lambda: load_reward_model(source, config.dtype)
    )
    limit = models.token_limit(model, tokenizer, config.max_tokens)

    path = preferences / "preferences.parquet"
    table = read_table(path, PREFERENCES)
    if table.num_rows == 0:
        raise ValueError(f"{path}: no preferences")
    found = np.empty(table.num_rows, dtype=np.float32)
    at_once = config.batch_size * models.WINDOW
    progress = Progress("rows", len(found))
    for start in range(0, table.num_rows, at_once):
        part = table.slice(start, at_once).to_pylist()
        prompts = [row["prompt"] for row in part]
        answers = [row[answer] for answer in ("chosen", "rejected") for row in part]
        ids = transcript_ids(tokenizer, 2 * prompts, answers, chat=config.chat, max_tokens=limit)
        rewards = models.rewards(model, tokenizer, ids, config.batch_size).astype(np.float64)
        chosen, rejected = rewards[: len(part)], rewards[len(part) :]
        gaps = chosen - rejected
        if not np.isfinite(gaps).all():
            row = start + int(np.flatnonzero(~np.isfinite(gaps))[0])
            raise ValueError(f"{path}: row {row + 1}: a reward is not finite (dtype {config.dtype})")
        done = start + len(part)
        found[start:done] = gaps
        progress.show(done)
    np.save(out / "margins.npy", found)
    return {"mean_reward_gap": float(found.mean(dtype=np.float64))}

"""Stage `score`: golden rewards of responses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workers.data.responses import read_responses
from workers.language_models import models
from workers.language_models.transcripts import transcript_ids
from workers.model_cache import cached_model
from workers.progress import Progress
from workers.reward_models.embeddings import write_scores
from workers.rewards.configs import ScoreConfig
from workers.rewards.scoring import load_reward_model


def score(config: ScoreConfig, out: Path, *, golden: Path, responses: Path) -> dict[str, float]:
    """Score every response with the golden reward model, at the last token of prompt + response, or of their chat.

    The response is cut where `cut_at` begins (released scripts of arXiv 2411.04991: "\\n\\nHuman"). Texts longer than
    `max_tokens` lose their beginning. The head computes in float32 whatever `dtype` is.

    Args:
        config: how to read the texts.
        out: receives `scores.npy`, float32 of shape (prompts, responses), in the order of `responses`.
        golden: artifact of a sequence classifier with one label.
        responses: artifact of the responses.

    Returns:
        What `embeddings.write_scores` does, in units of the reward model.

    Raises:
        ValueError: the golden model is no one-label classifier, a score is not finite (prompt and response named), or
            `chat` without a chat template.
        FileNotFoundError: the golden model cannot be read.
    """
    source = models.locate(golden)
    tokenizer, model = cached_model(
        ("score", source.state(), config.dtype), lambda: load_reward_model(source, config.dtype)
    )
    limit = models.token_limit(model, tokenizer, config.max_tokens)

    rows = read_responses([responses], config.cut_at)
    scores = np.empty(rows.table.num_rows, dtype=np.float32)
    progress = Progress("responses", len(scores))
    for start, prompts, answers in rows.windows(config.batch_size * models.WINDOW):
        if config.strip:
            answers = [answer.strip() for answer in answers]
        ids = transcript_ids(tokenizer, prompts, answers, chat=config.chat, max_tokens=limit)
        part = models.rewards(model, tokenizer, ids, config.batch_size)
        if not np.isfinite(part).all():
            row = start + int(np.flatnonzero(~np.isfinite(part))[0])
            raise ValueError(f"{rows.name(row)}: the reward is not finite (dtype {config.dtype})")
        scores[start : start + len(part)] = part
        progress.show(start + len(part))
    return write_scores(scores.reshape(rows.prompts, rows.responses), out)

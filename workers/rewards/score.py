"""Stage `score`: golden rewards of responses."""

from __future__ import annotations

from pathlib import Path

from workers.checkpoints import NONE, Checkpoints
from workers.data.responses import read_responses
from workers.reward_models.embeddings import write_scores
from workers.rewards.configs import ScoreConfig
from workers.rewards.scoring import score_answers


def score(
    config: ScoreConfig,
    out: Path,
    *,
    golden: Path,
    responses: Path,
    batch_size: int = 64,
    checkpoints: Checkpoints = NONE,
) -> dict[str, float]:
    """Score every response with the golden reward model, at the last token of prompt + response, or of their chat.

    The response is cut where `cut_at` begins (released scripts of arXiv 2411.04991: "\\n\\nHuman"). Texts longer than
    `max_tokens` lose their beginning. The head computes in float32 whatever `dtype` is.

    Args:
        config: how to read the texts.
        out: receives `scores.npy`, float32 of shape (prompts, responses), in the order of `responses`.
        golden: artifact of a sequence classifier with one label.
        responses: artifact of the responses.
        batch_size: responses of `max_tokens` per forward pass, more if they are shorter, fewer where memory runs out.
        checkpoints: those of the step.

    Returns:
        The metrics of `embeddings.write_scores`, in units of the reward model.

    Raises:
        ValueError: the golden model is no one-label classifier, a score is not finite (prompt and response named), or
            `chat` without a chat template.
        FileNotFoundError: the golden model cannot be read.
    """

    def read(response: str) -> str:
        if config.cut_at:
            response = response.partition(config.cut_at)[0]
        return response.strip() if config.strip else response

    rows = read_responses([responses])
    scores = score_answers(
        golden,
        rows.table,
        [["response"]],
        config,
        batch_size,
        name=rows.name,
        unit="responses",
        edit=read,
        checkpoints=checkpoints,
    )
    return write_scores(scores.reshape(rows.prompts, rows.responses), out)

"""Annotated pairs as texts, which a judge is shown and by which its verdicts are found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from workers.data.responses import read_responses
from workers.reward_models.pairs import read_pairs


class AnnotatedPair(NamedTuple):
    """The texts of one annotation."""

    prompt: str
    winner: str
    loser: str


def read_annotated_pairs(annotations: Path, responses: Sequence[Path], cut_at: str | None) -> list[AnnotatedPair]:
    """Read the texts of all annotations, in their order.

    Args:
        annotations: artifact of winners and losers, which are flat rows of the responses.
        responses: shards of the responses.
        cut_at: a response ends where this text begins; None cuts none.

    Raises:
        ValueError: an annotation compares answers to different prompts (`pairing: cross`) or points outside the
            responses, or what `read_pairs` and `read_responses` raise.
    """
    texts = read_responses(responses, cut_at)
    winners, losers = read_pairs(annotations)
    rows = texts.prompts * texts.responses
    if min(winners.min(), losers.min()) < 0 or max(winners.max(), losers.max()) >= rows:
        raise ValueError(f"{annotations}: made on other responses than these {rows} ({', '.join(map(str, responses))})")
    across = winners // texts.responses != losers // texts.responses
    if across.any():
        raise ValueError(
            f"{annotations}: {int(across.sum())} of {len(across)} annotations compare answers to different prompts,"
            " which no judge can: set `pairing: same` where they are made"
        )
    return [
        AnnotatedPair(texts.prompt[winner], texts.response[winner], texts.response[loser])
        for winner, loser in zip(winners.tolist(), losers.tolist(), strict=True)
    ]

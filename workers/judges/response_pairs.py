"""Stage `response_pairs`: pairs of a policy's responses, for a judge to label."""

from __future__ import annotations

from pathlib import Path

from workers import tables
from workers.data.responses import read_responses
from workers.judges.configs import ResponsePairsConfig


def response_pairs(config: ResponsePairsConfig, out: Path, *, responses: list[Path]) -> dict[str, float]:
    """Write `preferences.parquet`: responses 2k and 2k + 1 of a prompt as `chosen` and `rejected`, prompt by prompt.

    Returns:
        preferences: rows written. equal_pairs: pairs left out, as both responses are the same text.

    Raises:
        ValueError: too few responses per prompt, or no pair of two different ones.
    """
    texts = read_responses(responses, config.cut_at)
    if 2 * config.pairs > texts.responses:
        raise ValueError(
            f"{config.pairs} pairs per prompt need {2 * config.pairs} responses, but there are {texts.responses}: raise"
            " `responses` where they are generated, or lower `pairs`"
        )
    firsts = [prompt * texts.responses + 2 * pair for prompt in range(texts.prompts) for pair in range(config.pairs)]
    kept = [row for row in firsts if texts.response[row] != texts.response[row + 1]]
    if not kept:
        raise ValueError(
            f"all {len(firsts)} pairs are twice the same response: raise `temperature` where they are generated"
        )
    columns: dict[str, object] = {
        "prompt": [texts.prompt[row] for row in kept],
        "chosen": [texts.response[row] for row in kept],
        "rejected": [texts.response[row + 1] for row in kept],
        "subset": [""] * len(kept),
    }
    tables.write_table(columns, tables.PREFERENCES, out / "preferences.parquet")
    return {"preferences": float(len(kept)), "equal_pairs": float(len(firsts) - len(kept))}

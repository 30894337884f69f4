"""Stages `response_pairs` and `annotation_pairs`: pairs of a policy's responses, for a judge to decide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workers.data.responses import read_responses
from workers.judges.annotated_pairs import read_annotated_pairs
from workers.judges.configs import AnnotationPairsConfig, ResponsePairsConfig
from workers.tables import PREFERENCES


def response_pairs(config: ResponsePairsConfig, out: Path, *, responses: list[Path]) -> dict[str, float]:
    """Pair responses 2k and 2k + 1 of each prompt, prompt by prompt.

    Args:
        config: number of pairs per prompt, and the end of a response.
        out: receives `preferences.parquet`, the first of the two as `chosen`; pairs of equal texts are left out.
        responses: shards of the responses.

    Returns:
        `preferences`: rows written. `equal_pairs`: pairs left out.

    Raises:
        ValueError: too few responses per prompt, no pair of two different ones, or what `read_responses` raises.
    """
    texts = read_responses(responses, config.cut_at)
    if 2 * config.pairs > texts.responses:
        raise ValueError(
            f"{config.pairs} pairs per prompt need {2 * config.pairs} responses, but there are {texts.responses}: raise"
            " `responses` where they are generated, or lower `pairs`"
        )
    firsts = [prompt * texts.responses + 2 * pair for prompt in range(texts.prompts) for pair in range(config.pairs)]
    pairs = [(texts.prompt[row], texts.response[row], texts.response[row + 1]) for row in firsts]
    return _write_different(
        pairs, out, f"all {len(pairs)} pairs are twice the same response: raise `temperature` where they are generated"
    )


def annotation_pairs(
    config: AnnotationPairsConfig, out: Path, *, annotations: Path, responses: list[Path]
) -> dict[str, float]:
    """Look up the texts of annotated pairs, in the order of the annotations.

    Args:
        config: where a response ends.
        out: receives `preferences.parquet`, the winner as `chosen`; pairs of equal texts are left out.
        annotations: artifact of pairs of responses.
        responses: shards of the responses that were annotated.

    Returns:
        `preferences`: rows written. `equal_pairs`: pairs left out.

    Raises:
        ValueError: no pair of different texts, or what `read_annotated_pairs` raises.
    """
    pairs = read_annotated_pairs(annotations, responses, config.cut_at)
    return _write_different(
        pairs, out, f"{annotations}: each of the {len(pairs)} annotations compares two answers of the same text"
    )


def _write_different(pairs: Sequence[tuple[str, str, str]], out: Path, none_left: str) -> dict[str, float]:
    """Write the (prompt, one, other) of different texts, and count; `none_left` is the error if there are none."""
    kept = [pair for pair in pairs if pair[1] != pair[2]]
    if not kept:
        raise ValueError(none_left)
    prompt, chosen, rejected = zip(*kept, strict=True)
    columns = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "subset": [""] * len(kept)}
    PREFERENCES.write(columns, out)
    return {"preferences": float(len(kept)), "equal_pairs": float(len(pairs) - len(kept))}

"""Judgments by a language model on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workers.checkpoints import NONE, Checkpoints
from workers.judges.asks import Ask
from workers.judges.backends.configs import LocalJudge
from workers.judges.configs import JudgeSampleConfig
from workers.judges.requests import TOO_LONG, Written
from workers.language_models import models
from workers.language_models.sampling import sample
from workers.language_models.sampling_settings import Sampling, Stream, too_long_prompts


def judgments_by_model(
    config: JudgeSampleConfig,
    backend: LocalJudge,
    asks: Sequence[Ask],
    judge: Path | None,
    batch_size: int,
    checkpoints: Checkpoints = NONE,
) -> tuple[list[Written], int]:
    """Let the model of the artifact `judge` write the judgments, those without a hint first.

    Returns:
        A judgment per request, those without a hint before the hinted ones, and the new tokens of all, EOS not counted.

    Raises:
        ValueError: there is no `judge`, or what `sample` raises.
        FileNotFoundError: the model cannot be read.
        ImportError: the engine is vllm, and it is not installed here.
    """
    if judge is None:
        raise ValueError(
            f"backend {{engine: {backend.engine}}} writes with the `judge` input, and there is none: wire a model to "
            "it, or name an endpoint or recorded judgments"
        )
    source = models.locate(judge)
    written: list[Written] = []
    tokens = 0
    for hinted, what in ((False, "judgments"), (True, "hinted judgments")):
        group = [ask for ask in asks if bool(ask.hint) == hinted]
        if not group:
            continue
        how = Sampling(
            temperature=config.hint_temperature if hinted else config.temperature,
            top_p=config.hint_top_p if hinted else config.top_p,
            repetition_penalty=config.repetition_penalty,
            max_new_tokens=config.max_new_tokens,
            max_prompt_tokens=config.max_request_tokens,
            seed=config.seed,
            chat=config.chat,
            engine=backend.engine,
            dtype=backend.dtype,
        )
        dialogues = [ask.dialogue(config) for ask in group]
        # Cut, a request would lose the task, the question and the first answer.
        too_long = too_long_prompts(source, dialogues, how)
        short = [i for i, dialogue in enumerate(dialogues) if dialogue not in too_long]
        streams = [Stream(group[i].label, group[i].samples_label, group[i].sample) for i in short]
        fitting = [dialogues[i] for i in short]
        texts, new = sample(source, fitting, streams, how, what, batch_size, checkpoints) if short else ([], 0)
        found = dict(zip(short, texts, strict=True))
        written += [
            Written(found[i]) if i in found else Written("", f"{TOO_LONG}: the request has {too_long[dialogue]}")
            for i, dialogue in enumerate(dialogues)
        ]
        tokens += new
    if unread := sum(bool(each.unread) for each in written):
        print(f"{unread} of {len(written)} judgments are not asked for: their requests are too long", flush=True)
    return written, tokens

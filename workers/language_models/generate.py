"""Stage `generate`: responses sampled from a policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from workers.checkpoints import NONE, Checkpoints
from workers.data.responses import write_responses
from workers.language_models import models
from workers.language_models.configs import GenerateConfig
from workers.language_models.sampling import sample
from workers.language_models.sampling_settings import Sampling, Stream
from workers.tables import PROMPTS


def generate(
    config: GenerateConfig,
    out: Path,
    *,
    policy: Path,
    prompts: Path,
    batch_size: int = 64,
    checkpoints: Checkpoints = NONE,
) -> dict[str, float]:
    """Sample `responses` responses for each prompt of one shard of a split.

    A shard is a contiguous block of the split's prompts in the order of prompt_id (`numpy.array_split`). A text depends
    on (seed, split, prompt_id, response_id), prompt, policy and sampling settings (`language_models.sampling`); batch,
    shard and number of responses matter only through rounding in the forward pass. All policies of one seed use the
    same uniforms. Texts are stored whole, and may be empty.

    Args:
        config: how to sample.
        out: receives `responses.parquet`.
        policy: artifact of the model.
        prompts: artifact of the prompts.
        batch_size: texts per forward pass of transformers.
        checkpoints: those of the step.

    Returns:
        `responses`: rows written; `mean_response_tokens`: mean number of new tokens, without EOS.

    Raises:
        ValueError: the shard is empty, no room is left for a prompt, the policy gives NaN, or `chat` without a chat
            template.
        FileNotFoundError: the policy cannot be read.
        ImportError: the engine is vllm, and it is not installed here.
    """
    prompt_ids, texts = _shard(config, prompts)
    settings = Sampling(
        temperature=config.temperature,
        top_p=config.top_p,
        max_new_tokens=config.max_new_tokens,
        max_prompt_tokens=config.max_prompt_tokens,
        seed=config.seed,
        chat=config.chat,
        engine=config.engine,
        dtype=config.dtype,
    )
    names = [f"generate/{config.split}/{prompt_id}" for prompt_id in prompt_ids]
    streams = [Stream(f"{name}/{r}", name, r) for name in names for r in range(config.responses)]
    repeated = [text for text in texts for _ in range(config.responses)]
    answers, tokens = sample(models.locate(policy), repeated, streams, settings, "responses", batch_size, checkpoints)
    write_responses(prompt_ids, texts, answers, out)
    return {"responses": float(len(answers)), "mean_response_tokens": tokens / len(answers)}


def _shard(config: GenerateConfig, prompts: Path) -> tuple[list[int], list[str]]:
    """Read the ids and texts of the prompts of the shard."""
    path = PROMPTS.path(prompts)
    table = PROMPTS.read(prompts)
    table = table.filter(pc.equal(table.column("split"), config.split)).sort_by("prompt_id")
    block = np.array_split(np.arange(table.num_rows), config.shards)[config.shard]
    if not len(block):
        raise ValueError(
            f"{path}: shard {config.shard} of {config.shards} is empty: {table.num_rows} {config.split} prompts"
        )
    table = table.take(block)
    return table.column("prompt_id").to_pylist(), table.column("prompt").to_pylist()

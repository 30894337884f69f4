"""Stage `generate`: responses sampled from a policy."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from workers import models
from workers.configs import GenerateConfig
from workers.resident import resident
from workers.seeding import generator
from workers.tables import PROMPTS, RESPONSES, read_table, write_table

#: Seconds between two lines of progress.
PROGRESS_EVERY = 15.0


def generate(config: GenerateConfig, out: Path, *, policy: Path, prompts: Path) -> dict[str, float]:
    """Sample `responses` responses for each prompt of one shard of a split.

    A shard is a contiguous block of the split's prompts in the order of prompt_id (`numpy.array_split`). Sampling is
    by temperature and nucleus (Holtzman et al. 2020, arXiv 1904.09751). Token t of a response comes from the t-th
    uniform of that response's own generator, by inversion of the cumulative nucleus, so a text depends on (seed,
    split, prompt_id, response_id), prompt, policy and sampling settings; batch, shard and number of responses matter
    only through rounding in the forward pass. All policies of one seed see the same uniforms.

    Texts end at EOS (the tokenizer's, or those of the model's generation config, from which nothing else is taken)
    or after `max_new_tokens`; they are stored whole, and may be empty.

    Args:
        config: how to sample.
        out: receives `responses.parquet`.
        policy: artifact of the model.
        prompts: artifact of the prompts.

    Returns:
        `responses`: rows written; `mean_response_tokens`: mean new tokens, EOS not counted.

    Raises:
        ValueError: the shard is empty, no room is left for a prompt, or the policy gives NaN.
        FileNotFoundError: the policy cannot be read.
    """
    prompt_ids, texts = _shard(config, prompts)
    source = models.locate(policy)

    def load() -> tuple[PreTrainedTokenizerBase, PreTrainedModel, list[int]]:
        tokenizer = models.load_tokenizer(source)
        model = models.load_model(source, AutoModelForCausalLM, tokenizer, dtype=config.dtype).to(models.device())
        return tokenizer, model, _generation_only(model, tokenizer.eos_token_id)

    tokenizer, model, ends = resident(("generate", source.state(), config.dtype), load)
    limit = models.token_limit(model, tokenizer, config.max_prompt_tokens + config.max_new_tokens)
    if limit <= config.max_new_tokens:
        raise ValueError(f"max_new_tokens ({config.max_new_tokens}) leaves no room in {limit} tokens of context")
    prompt_tokens = models.tokenise(tokenizer, texts, limit - config.max_new_tokens)

    rows = [(prompt, response) for prompt in range(len(texts)) for response in range(config.responses)]
    answers: list[str] = []
    tokens, printed = 0, time.monotonic()
    for start in range(0, len(rows), config.batch_size):
        batch = rows[start : start + config.batch_size]
        labels = [f"generate/{config.split}/{prompt_ids[p]}/{r}" for p, r in batch]
        uniforms = np.stack([generator(config.seed, label).random(config.max_new_tokens) for label in labels])
        ids, mask = models.pad([prompt_tokens[p] for p, _ in batch], tokenizer.pad_token_id, "left")
        new = _sample(model, ids, mask, uniforms, config, ends, tokenizer.pad_token_id)
        new = [_until(row, ends) for row in new]
        tokens += sum(map(len, new))
        answers += tokenizer.batch_decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if time.monotonic() - printed > PROGRESS_EVERY:
            print(f"generate: {len(answers)} of {len(rows)} responses", flush=True)
            printed = time.monotonic()

    write_table(
        {
            "prompt_id": [prompt_ids[p] for p, _ in rows],
            "response_id": [r for _, r in rows],
            "prompt": [texts[p] for p, _ in rows],
            "response": answers,
        },
        RESPONSES,
        out / "responses.parquet",
    )
    return {"responses": float(len(rows)), "mean_response_tokens": tokens / len(rows)}


class _Nucleus(LogitsProcessor):
    """Leaves one token a row: the one that the row's next uniform falls on."""

    def __init__(self, uniforms: np.ndarray, prompt_width: int, temperature: float, top_p: float) -> None:
        self.uniforms = torch.as_tensor(uniforms, dtype=torch.float32, device=models.device())
        self.prompt_width = prompt_width
        self.temperature = temperature
        self.top_p = top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = input_ids.shape[1] - self.prompt_width
        share, order = torch.softmax(scores.float() / self.temperature, -1).sort(dim=-1, descending=True, stable=True)
        total = share.cumsum(-1)
        if total[:, -1].isnan().any():
            raise ValueError("the policy gives NaN instead of probabilities (float16 overflow? try bfloat16)")
        # The nucleus is the shortest head with at least top_p: tokens that have less than top_p before them.
        last = ((total - share) < self.top_p).sum(-1, keepdim=True).clamp(min=1) - 1
        drawn = self.uniforms[:, step : step + 1] * total.gather(-1, last)
        token = order.gather(-1, torch.minimum(torch.searchsorted(total, drawn, right=True), last))
        return torch.full_like(scores, -torch.inf).scatter(-1, token, 0.0)


@torch.inference_mode()
def _sample(
    model: PreTrainedModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    uniforms: np.ndarray,
    config: GenerateConfig,
    ends: list[int],
    pad_id: int,
) -> list[list[int]]:
    """New tokens of each row of the left-padded batch, padded behind the first EOS."""
    where = models.device()
    whole = model.generate(
        input_ids=ids.to(where),
        attention_mask=mask.to(where),
        # Greedy, because the processor has already drawn.
        generation_config=GenerationConfig(
            do_sample=False, max_new_tokens=config.max_new_tokens, eos_token_id=ends, pad_token_id=pad_id
        ),
        logits_processor=[_Nucleus(uniforms, ids.shape[1], config.temperature, config.top_p)],
    )
    return whole[:, ids.shape[1] :].tolist()


def _generation_only(model: PreTrainedModel, eos: int | None) -> list[int]:
    """Drop the model's own generation defaults (`generate` would fill gaps with them); return its EOS ids."""
    own = model.generation_config.eos_token_id
    ends = {eos} | set(own if isinstance(own, list) else [own])
    model.generation_config = GenerationConfig()
    return sorted(end for end in ends if end is not None)


def _until(row: list[int], ends: list[int]) -> list[int]:
    return row[: next((i for i, token in enumerate(row) if token in ends), len(row))]


def _shard(config: GenerateConfig, prompts: Path) -> tuple[list[int], list[str]]:
    """Ids and texts of the shard's prompts."""
    path = prompts / "prompts.parquet"
    table = read_table(path, PROMPTS)
    table = table.filter(pc.equal(table.column("split"), config.split)).sort_by("prompt_id")
    block = np.array_split(np.arange(table.num_rows), config.shards)[config.shard]
    if not len(block):
        raise ValueError(
            f"{path}: shard {config.shard} of {config.shards} is empty: {table.num_rows} {config.split} prompts"
        )
    table = table.take(block)
    return table.column("prompt_id").to_pylist(), table.column("prompt").to_pylist()

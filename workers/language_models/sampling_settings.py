"""Settings of sampling, and what follows from them for any engine: prompts that fit, and tokens that end a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import GenerationConfig, PreTrainedTokenizerBase

from workers.data.chat import render
from workers.language_models import models


@dataclass(frozen=True)
class Sampling:
    """How texts are sampled; names as in `GenerateConfig` and `JudgeSampleConfig`."""

    temperature: float
    """0 takes the most likely token."""
    top_p: float
    max_new_tokens: int
    max_prompt_tokens: int
    seed: int
    repetition_penalty: float = 1.0
    """Logits of tokens that the prompt or the text has already are divided by it where positive, multiplied where
    negative (Keskar et al. 2019, arXiv 1909.05858, as in transformers and vLLM)."""
    chat: bool = False
    engine: Literal["transformers", "vllm"] = "transformers"
    dtype: str = "float32"
    batch_size: int = 64

    @property
    def max_tokens(self) -> int:
        """Tokens of prompt and text together."""
        return self.max_prompt_tokens + self.max_new_tokens


def prompt_tokens(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], limit: int, how: Sampling
) -> list[list[int]]:
    """Token ids of each prompt, in the chat template if asked for, with room for the new tokens.

    Raises:
        ValueError: `limit`, the context in tokens, is used up by the new ones; or there is no chat template.
    """
    room = _room(limit, how)
    # Samples of one prompt are tokenised once.
    distinct = list(dict.fromkeys(prompts))
    texts = [render(tokenizer, prompt) for prompt in distinct] if how.chat else distinct
    rows = models.tokenise(tokenizer, texts, room + 1, special=not how.chat)
    # One token more than there is room for tells which ones are too long.
    if long := [i for i, row in enumerate(rows) if len(row) > room]:
        print(f"{len(long)} of {len(rows)} prompts have more than {room} tokens and lose their beginning")
        cut = models.tokenise(tokenizer, [texts[i] for i in long], room, special=not how.chat)
        for i, row in zip(long, cut, strict=True):
            rows[i] = row
    ids = dict(zip(distinct, rows, strict=True))
    return [ids[prompt] for prompt in prompts]


def too_long_prompts(source: models.Source, prompts: Sequence[str], how: Sampling) -> dict[str, str]:
    """The prompts that `sample` would cut -> "5,210 tokens, 4,096 allowed". The model itself is not loaded.

    Raises:
        ValueError: no room is left for a prompt, or `chat` without a chat template.
        FileNotFoundError: the model cannot be read.
    """
    tokenizer = models.load_tokenizer(source)
    room = _room(models.read_token_limit(source, tokenizer, how.max_tokens), how)
    distinct = list(dict.fromkeys(prompts))
    texts = [render(tokenizer, prompt) for prompt in distinct] if how.chat else distinct
    rows = models.tokenise(tokenizer, texts, None, special=not how.chat)
    return {
        prompt: f"{len(row):,} tokens, {room:,} allowed"
        for prompt, row in zip(distinct, rows, strict=True)
        if len(row) > room
    }


def _room(limit: int, how: Sampling) -> int:
    """Tokens that a prompt may have in a context of `limit`."""
    room = min(limit - how.max_new_tokens, how.max_prompt_tokens)
    if room <= 0:
        raise ValueError(f"max_new_tokens ({how.max_new_tokens}) leaves no room in {limit} tokens of context")
    return room


def end_tokens(tokenizer: PreTrainedTokenizerBase, own: GenerationConfig) -> list[int]:
    """Ids of the tokens that end a text: the tokenizer's, and those of the model's generation config."""
    named = own.eos_token_id
    ends = {tokenizer.eos_token_id} | set(named if isinstance(named, list) else [named])
    return sorted(end for end in ends if end is not None)


def until_end(row: list[int], ends: list[int]) -> list[int]:
    """The tokens before the first that ends a text."""
    return row[: next((i for i, token in enumerate(row) if token in ends), len(row))]

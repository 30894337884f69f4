"""Settings of sampling, and their effect with any engine: prompts that fit, and tokens that end a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from transformers import GenerationConfig, PreTrainedTokenizerBase

from workers.language_models import models
from workers.language_models.transcripts import prompt_ids


@dataclass(frozen=True)
class Sampling:
    """Settings of sampling; names as in `GenerateConfig` and `JudgeSampleConfig`."""

    temperature: float
    """Divisor of the logits; 0 takes the most likely token."""
    top_p: float
    max_new_tokens: int
    max_prompt_tokens: int
    seed: int
    repetition_penalty: float = 1.0
    """Divisor of positive, factor of negative logits of tokens that the prompt or the text has already (Keskar et al.
    2019, arXiv 1909.05858, as in transformers and vLLM)."""
    chat: bool = False
    engine: Literal["transformers", "vllm"] = "transformers"
    dtype: str = "float32"

    @property
    def max_tokens(self) -> int:
        """Most tokens of prompt and text together."""
        return self.max_prompt_tokens + self.max_new_tokens


class Stream(NamedTuple):
    """Which random numbers a text is made of; texts of one stream are independent."""

    label: str
    """Name of the numbers of this text."""
    prompt: str
    """Name that it shares with the other samples of its prompt."""
    sample: int
    """Its number among those, from 0."""


def prompt_tokens(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], limit: int, settings: Sampling
) -> list[list[int]]:
    """Tokenise each prompt, in the chat template if `chat`, with room for the new tokens.

    Raises:
        ValueError: `limit`, the context in tokens, is used up by the new ones; a prompt has no token to go on from; or
            there is no chat template.
    """
    room = _room(limit, settings)
    # Samples of one prompt are tokenised once.
    distinct = list(dict.fromkeys(prompts))
    rows = prompt_ids(tokenizer, distinct, chat=settings.chat, max_tokens=room)
    if empty := [prompts.index(prompt) for prompt, row in zip(distinct, rows, strict=True) if not row]:
        raise ValueError(
            f"prompt {empty[0] + 1} of {len(prompts)} is empty, and the tokenizer has no token that begins a text, so "
            "the model has nothing to go on from: leave such prompts out"
        )
    ids = dict(zip(distinct, rows, strict=True))
    return [ids[prompt] for prompt in prompts]


def too_long_prompts(source: models.Source, prompts: Sequence[str], settings: Sampling) -> dict[str, str]:
    """Find the prompts that `sample` would cut, each with "5,210 tokens, 4,096 allowed"; the model is not loaded.

    Raises:
        ValueError: no room is left for a prompt, or `chat` without a chat template.
        FileNotFoundError: the model cannot be read.
    """
    tokenizer = models.load_tokenizer(source)
    room = _room(models.read_token_limit(source, tokenizer, settings.max_tokens), settings)
    distinct = list(dict.fromkeys(prompts))
    rows = prompt_ids(tokenizer, distinct, chat=settings.chat)
    return {
        prompt: f"{len(row):,} tokens, {room:,} allowed"
        for prompt, row in zip(distinct, rows, strict=True)
        if len(row) > room
    }


def _room(limit: int, settings: Sampling) -> int:
    """Return the greatest number of tokens of a prompt in a context of `limit`."""
    room = min(limit - settings.max_new_tokens, settings.max_prompt_tokens)
    if room <= 0:
        raise ValueError(f"max_new_tokens ({settings.max_new_tokens}) leaves no room in {limit} tokens of context")
    return room


def end_tokens(tokenizer: PreTrainedTokenizerBase, own: GenerationConfig) -> list[int]:
    """Return the ids of the tokens that end a text: the tokenizer's, and those of the model's generation config."""
    named = own.eos_token_id
    ends = {tokenizer.eos_token_id} | set(named if isinstance(named, list) else [named])
    return sorted(end for end in ends if end is not None)


def until_end(row: list[int], ends: list[int]) -> list[int]:
    """Return the tokens before the first that ends a text."""
    return row[: next((i for i, token in enumerate(row) if token in ends), len(row))]

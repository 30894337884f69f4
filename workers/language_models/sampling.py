"""Texts sampled from a language model, for `generate` and `judge_sample`; here with transformers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from workers.device import device
from workers.language_models import models, vllm
from workers.language_models.batches import BatchSize, pad
from workers.language_models.last_states import longest_shared, read_beginnings
from workers.language_models.nucleus import draw
from workers.language_models.sampling_settings import Sampling, Stream, end_tokens, prompt_tokens, until_end
from workers.model_cache import cached_model
from workers.progress import Progress
from workers.seeding import generator

_NAN = "the model gives NaN instead of probabilities (float16 overflow? try bfloat16)"


def sample(
    source: models.Source,
    prompts: Sequence[str],
    streams: Sequence[Stream],
    settings: Sampling,
    what: str,
    batch_size: int,
) -> tuple[list[str], int]:
    """Sample one continuation of each prompt.

    Sampling is by temperature and nucleus (Holtzman et al. 2020, arXiv 1904.09751). With transformers, token t of a
    text comes from the t-th uniform of `generator(seed, label)`, by inversion of the cumulative nucleus, so a text
    depends on seed, label, prompt, model and settings; its batch matters only through rounding in the forward pass.
    vLLM has a generator of its own for each text, seeded with (seed, name of the prompt) plus the number of the sample.

    Texts end at EOS (the tokenizer's, or those of the model's generation config, from which nothing else is taken) or
    after `max_new_tokens`; they are whole, and may be empty. The model stays in `workers.model_cache`.

    Args:
        source: the model.
        prompts: dialogues; longer ones than there is room for lose their beginning, which is printed.
        streams: the random numbers of each text.
        settings: how to sample.
        what: name of the texts in lines of progress.
        batch_size: texts per forward pass of transformers, fewer where memory runs out; vLLM makes its own batches.

    Returns:
        The texts, and how many new tokens they have together, EOS not counted.

    Raises:
        ValueError: no room is left for a prompt, the model gives NaN, or `chat` without a chat template.
        FileNotFoundError: the model cannot be read.
        ImportError: the engine is vllm, and it is not installed here.
    """
    if settings.engine == "vllm":
        tokenizer, new = vllm.new_tokens(source, prompts, streams, settings)
    else:
        tokenizer, new = _new_tokens(source, prompts, streams, settings, what, batch_size)
    texts = tokenizer.batch_decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return texts, sum(map(len, new))


def _new_tokens(
    source: models.Source,
    prompts: Sequence[str],
    streams: Sequence[Stream],
    settings: Sampling,
    what: str,
    batch_size: int,
) -> tuple[PreTrainedTokenizerBase, list[list[int]]]:
    """Sample with transformers; return the tokenizer and the new tokens of each prompt."""

    def load() -> tuple[PreTrainedTokenizerBase, PreTrainedModel, list[int]]:
        tokenizer = models.load_tokenizer(source)
        model = models.load_model(source, AutoModelForCausalLM, tokenizer, dtype=settings.dtype).to(device())
        ends = end_tokens(tokenizer, model.generation_config)
        model.generation_config = GenerationConfig()  # `generate` would fill gaps with the model's own defaults
        return tokenizer, model, ends

    tokenizer, model, ends = cached_model(("sampling", source.state(), settings.dtype), load)
    limit = models.token_limit(model, tokenizer, settings.max_tokens)
    rows = prompt_tokens(tokenizer, prompts, limit, settings)
    new: list[list[int]] = [[]] * len(rows)
    progress = Progress(what, len(rows))

    def continued(batch: np.ndarray) -> list[list[int]]:
        uniforms = np.stack([generator(settings.seed, streams[i].label).random(settings.max_new_tokens) for i in batch])
        made: list[list[int]] = _batch(
            model, [rows[i] for i in batch], uniforms, settings, ends, tokenizer.pad_token_id
        )
        return made

    done = 0
    # The longest first, so that too little memory shows at once; samples of a prompt stay together.
    for batch, sampled in BatchSize(batch_size).apply(
        continued, np.argsort([-len(row) for row in rows], kind="stable")
    ):
        for i, row in zip(batch, sampled, strict=True):
            new[i] = until_end(row, ends)
        done += len(batch)
        progress.show(done)
    return tokenizer, new


class _Draw(LogitsProcessor):
    """A processor that leaves one token per row: the one that the next uniform falls on, or the most likely one."""

    def __init__(self, uniforms: np.ndarray, prompts: torch.Tensor, mask: torch.Tensor, settings: Sampling) -> None:
        self.uniforms = torch.as_tensor(uniforms, dtype=torch.float32, device=prompts.device)
        self.prompts = prompts
        self.mask = mask
        self.settings = settings
        self.seen: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = input_ids.shape[1] - self.prompts.shape[1]
        if self.settings.repetition_penalty != 1:
            scores = self._penalised(input_ids, scores.float())
        if self.settings.temperature == 0:
            token = scores.argmax(-1, keepdim=True)
            if scores.gather(-1, token).isnan().any():  # NaN counts as the greatest
                raise ValueError(_NAN)
            return torch.full_like(scores, -torch.inf).scatter(-1, token, 0.0)
        share = torch.softmax(scores.float() / self.settings.temperature, -1)
        if share[:, 0].isnan().any():  # one makes all of its row so
            raise ValueError(_NAN)
        token = draw(share, self.uniforms[:, step : step + 1], self.settings.top_p)
        return torch.full_like(scores, -torch.inf).scatter(-1, token, 0.0)

    def _penalised(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Apply the penalty as `RepetitionPenaltyLogitsProcessor` of transformers does, but do not count padding.

        That one takes the pad token, often EOS, for a part of the prompt in rows that are padded, so that a text would
        depend on the other rows of its batch.
        """
        if self.seen is None:
            padded = torch.zeros_like(scores).scatter_add_(1, self.prompts, self.mask.to(scores.dtype))
            self.seen = padded > 0
        else:
            self.seen.scatter_(1, input_ids[:, -1:], True)
        penalty = self.settings.repetition_penalty
        return torch.where(self.seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


@torch.inference_mode()
def _batch(
    model: PreTrainedModel,
    rows: Sequence[list[int]],
    uniforms: np.ndarray,
    settings: Sampling,
    ends: list[int],
    pad_id: int,
) -> list[list[int]]:
    """Sample the new tokens of each prompt of a batch, padded behind the first EOS."""
    ids, mask = (each.to(device()) for each in pad(rows, pad_id, "left"))
    whole = model.generate(
        input_ids=ids,
        attention_mask=mask,
        past_key_values=_read_once(model, rows, pad_id),
        # Greedy, because the processor has already drawn.
        generation_config=GenerationConfig(
            do_sample=False, max_new_tokens=settings.max_new_tokens, eos_token_id=ends, pad_token_id=pad_id
        ),
        logits_processor=[_Draw(uniforms, ids, mask, settings)],
    )
    sampled: list[list[int]] = whole[:, ids.shape[1] :].tolist()
    return sampled


def _read_once(model: PreTrainedModel, rows: Sequence[list[int]], pad_id: int) -> DynamicCache | None:
    """Read each distinct prompt of a batch once, but for its last token; None where that is no gain."""
    numbers: dict[tuple[int, ...], int] = {}
    of_row = [numbers.setdefault(tuple(row), len(numbers)) for row in rows]
    longest = max(map(len, rows))
    if len(numbers) == len(rows) or longest == 1 or longest_shared(model.base_model) < longest:
        return None
    cache, _ = read_beginnings(model.base_model, [prompt[:-1] for prompt in numbers], of_row, pad_id)
    return cache

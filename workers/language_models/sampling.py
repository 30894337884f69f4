"""Texts sampled from a language model, for `generate` and `judge_sample`; here with transformers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from workers.checkpoints import NONE, Checkpoints, found_arrays, keep_arrays
from workers.device import device
from workers.language_models import models, vllm
from workers.language_models.batches import Passes, longest_first, pad
from workers.language_models.last_states import longest_shared, read_beginnings
from workers.language_models.nucleus import draw
from workers.language_models.sampling_settings import Sampling, Stream, end_tokens, prompt_tokens, until_end
from workers.model_cache import cached_model
from workers.progress import Progress
from workers.seeding import generator

_NAN = "the model gives NaN instead of probabilities (float16 overflow? try bfloat16)"


#: Texts for which vLLM is asked at once: so many that it seldom waits for the last of them, and few enough that some
#: minutes of a GPU bring them.
_VLLM_TEXTS = 32_768

#: Positions among the texts, and the new tokens of each.
Sampled = tuple[NDArray[np.int64], list[list[int]]]


def sample(
    source: models.Source,
    prompts: Sequence[str],
    streams: Sequence[Stream],
    settings: Sampling,
    what: str,
    batch_size: int,
    checkpoints: Checkpoints = NONE,
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
        what: name of the texts in lines of progress; letters and spaces, another for each call of a step.
        batch_size: texts per forward pass of transformers, fewer where memory runs out; vLLM makes its own batches.
        checkpoints: those of the step.

    Returns:
        The texts, and how many new tokens they have together, EOS not counted.

    Raises:
        ValueError: no room is left for a prompt, the model gives NaN, or `chat` without a chat template.
        FileNotFoundError: the model cannot be read.
        ImportError: the engine is vllm, and it is not installed here.
    """
    tokens: dict[int, list[int]] = {}
    name = what.replace(" ", "")
    for arrays in found_arrays(checkpoints, name):
        tokens |= zip(arrays["texts"].tolist(), _split(arrays), strict=True)
    if tokens:
        print(f"{len(tokens):,} of {len(prompts):,} {what} were sampled by an earlier attempt", flush=True)
    progress, kept = Progress(what, len(prompts), len(tokens)), len(tokens)
    if settings.engine == "vllm":

        def show(more: int) -> None:
            progress.show(len(tokens) + more)

        tokenizer, parts = _by_vllm(source, prompts, streams, settings, tokens.keys(), show)
    else:
        tokenizer, parts = _by_transformers(source, prompts, streams, settings, batch_size, tokens.keys())
    unkept: list[Sampled] = []
    for part in parts:
        unkept.append(part)
        tokens |= zip(part[0].tolist(), part[1], strict=True)
        progress.show(len(tokens))
        if len(tokens) < len(prompts) and checkpoints.due() and keep_arrays(checkpoints, name, kept, _joined(unkept)):
            kept, unkept = len(tokens), []
    rows = [tokens[text] for text in range(len(prompts))]
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return texts, sum(map(len, rows))


def _joined(parts: Sequence[Sampled]) -> dict[str, NDArray[Any]]:
    """Return sampled texts as arrays: their positions, their lengths in tokens, and all their tokens."""
    rows = [row for _, rows in parts for row in rows]
    return {
        "texts": np.concatenate([texts for texts, _ in parts]),
        "lengths": np.array([len(row) for row in rows]),
        "tokens": np.array([token for row in rows for token in row], dtype=np.int32),
    }


def _split(arrays: Mapping[str, NDArray[Any]]) -> list[list[int]]:
    """Return the tokens of each text."""
    ends = np.cumsum(arrays["lengths"])
    return [row.tolist() for row in np.split(arrays["tokens"], ends[:-1])]


def _by_vllm(
    source: models.Source,
    prompts: Sequence[str],
    streams: Sequence[Stream],
    settings: Sampling,
    done: Collection[int],
    on_progress: Callable[[int], None],
) -> tuple[PreTrainedTokenizerBase, Iterator[Sampled]]:
    """Sample with vLLM; return the tokenizer and the texts that are not done, part by part."""
    missing = np.array([text for text in range(len(prompts)) if text not in done], dtype=np.int64)

    def parts() -> Iterator[Sampled]:
        for start in range(0, len(missing), _VLLM_TEXTS):
            texts = missing[start : start + _VLLM_TEXTS]
            chosen = [prompts[text] for text in texts], [streams[text] for text in texts]
            yield texts, vllm.new_tokens(source, *chosen, settings, on_progress)

    return models.load_tokenizer(source), parts()


def _by_transformers(
    source: models.Source,
    prompts: Sequence[str],
    streams: Sequence[Stream],
    settings: Sampling,
    batch_size: int,
    done: Collection[int],
) -> tuple[PreTrainedTokenizerBase, Iterator[Sampled]]:
    """Sample with transformers; return the tokenizer and the texts that are not done, batch by batch."""

    def load() -> tuple[PreTrainedTokenizerBase, PreTrainedModel, list[int]]:
        tokenizer = models.load_tokenizer(source)
        model = models.load_model(source, AutoModelForCausalLM, tokenizer, dtype=settings.dtype).to(device())
        ends = end_tokens(tokenizer, model.generation_config)
        model.generation_config = GenerationConfig()  # `generate` would fill gaps with the model's own defaults
        return tokenizer, model, ends

    tokenizer, model, ends = cached_model(("sampling", source.state(), settings.dtype), load)
    limit = models.token_limit(model, tokenizer, settings.max_tokens)
    rows = prompt_tokens(tokenizer, prompts, limit, settings)

    def continued(batch: np.ndarray) -> list[list[int]]:
        uniforms = np.stack([generator(settings.seed, streams[i].label).random(settings.max_new_tokens) for i in batch])
        made = _batch(model, [rows[i] for i in batch], uniforms, settings, ends, tokenizer.pad_token_id)
        return [until_end(row, ends) for row in made]

    # Samples of a prompt stay together. Each has the same room, since logits take as much for a short prompt.
    passes, widths = Passes(batch_size * limit), np.full(len(rows), limit)
    order = [text for text in longest_first([len(row) for row in rows]).tolist() if text not in done]
    return tokenizer, passes.apply(continued, np.array(order, dtype=np.int64), widths)


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
    cache, _ = read_beginnings(model.base_model, [prompt[:-1] for prompt in numbers], pad_id).repeated(of_row)
    return cache

"""vLLM as the engine of `workers.language_models.sampling`: same distribution, same stops, other random numbers.

vLLM is not among the dependencies, because it pins a torch and a transformers of its own: it has an environment of its
own, whose interpreter a sweep names (`runtime.<entry>.python`; docs/cluster.md).

An adapter is not merged: one engine has the base, and computes with the adapter of whoever asks. In float32 the texts
are those of the merged model but for rounding; in 16 bits the sum of the weights is not rounded, but the outputs of the
layers are.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch.cuda import device_count, mem_get_info
from tqdm import tqdm
from transformers import AutoModelForCausalLM, GenerationConfig

from workers import model_cache
from workers.device import device, gpu_memory
from workers.language_models import adapters, models
from workers.language_models.sampling_settings import Sampling, Stream, end_tokens, prompt_tokens, until_end
from workers.model_cache import cached_model
from workers.seeding import derive_seed

#: Most samples that vLLM takes in one request (`VLLM_MAX_N_SEQUENCES`).
_MOST_SAMPLES = 16_384
#: Seconds that the processes of an engine have to end.
_END_WITHIN = 30.0
#: Greatest ranks that vLLM can be told to expect (`vllm.config.lora.MaxLoRARanks`, which has 1 too).
_MOST_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


@dataclass
class _Engine:
    """A vLLM engine that has a base."""

    llm: Any
    most_rank: int
    """Greatest rank of an adapter that it takes; 0 if it takes none."""
    numbers: dict[Hashable, int] = field(default_factory=dict)
    """State of an adapter's files -> the number by which vLLM knows it, from 1."""


def new_tokens(
    source: models.Source,
    prompts: Sequence[str],
    streams: Sequence[Stream],
    settings: Sampling,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[list[int]]:
    """Sample with vLLM; return the new tokens of each prompt, as `sampling.sample` describes.

    Samples of one prompt that stand together are one request, for which vLLM reads the prompt once, and gives sample j
    the seed of the request plus j. So a text depends on the name of its prompt and its number, and not on how many
    others there are; those matter only through rounding. vLLM makes its own batches. `on_progress` is called with the
    number of texts that are done.

    Raises:
        ImportError: vLLM is not installed here.
        ValueError: no room is left for a prompt; or the adapter is of another model, or one that vLLM does not serve.
        FileNotFoundError: the model cannot be read.
    """
    try:
        from vllm import LLM, SamplingParams
        from vllm.lora.request import LoRARequest
    except ImportError as error:
        raise ImportError(
            f"engine: vllm, but vLLM cannot be imported under {sys.executable} ({error}). Make an environment for it, "
            "and name its interpreter in the sweep, as runtime.<entry>.python (docs/cluster.md says how); or take "
            "engine: transformers"
        ) from error

    tokenizer = models.load_tokenizer(source)
    # A request with an adapter that is not there, or does not fit, ends the engine.
    adapter = _servable(source.adapter) if source.adapter else None
    most_rank = next(most for most in _MOST_RANKS if adapter.rank <= most) if adapter else 0
    limit = models.read_token_limit(source, tokenizer, settings.max_tokens)
    rows = prompt_tokens(tokenizer, prompts, limit, settings)
    ends = end_tokens(tokenizer, _generation_config(source))

    cpu, memory = device().type == "cpu", gpu_memory()
    # Of all that the device has; without it vLLM takes 0.9.
    share = {} if cpu or memory is None else {"gpu_memory_utilization": min(1.0, memory / mem_get_info()[1])}
    # All that the step sees, which is what it asked for (`runtime.<entry>.gpus`).
    parallel = {} if cpu else {"tensor_parallel_size": device_count()}

    def load() -> _Engine:
        lora = {"enable_lora": True, "max_loras": 1, "max_lora_rank": most_rank} if adapter else {}
        llm = LLM(
            model=source.name,
            revision=source.revision,
            tokenizer_revision=source.revision,
            dtype=settings.dtype,
            max_model_len=limit,
            generation_config="vllm",  # not the model's own defaults of sampling
            enforce_eager=cpu,  # compiling for a CPU takes minutes
            # Where a prompt is read in parts, vLLM winds the generators of seeded requests back, which a CPU's cannot.
            enable_chunked_prefill=not cpu,
            **share,
            **parallel,
            **lora,
        )
        return _Engine(llm, most_rank)

    identity = ("vllm", source.base.state(), settings.dtype, limit)
    engine = cached_model(identity, load, _end)
    if engine.most_rank < most_rank:
        model_cache.drop()
        engine = cached_model(identity, load, _end)
    put_on = None
    if adapter:
        number = _number(engine, source, adapter)
        put_on = LoRARequest(f"adapter {number}", number, adapter.name)
    requests = list(_requests(rows, streams))
    parameters = [
        SamplingParams(
            # The most likely text is the same each time.
            n=len(request) if settings.temperature else 1,
            temperature=settings.temperature,
            top_p=settings.top_p,
            repetition_penalty=settings.repetition_penalty,
            max_tokens=settings.max_new_tokens,
            stop_token_ids=ends,
            # 62 bits, so that no sum with the number of a sample has more than 63.
            seed=derive_seed(settings.seed, streams[request[0]].prompt, bits=62) + streams[request[0]].sample,
            detokenize=False,
        )
        for request in requests
    ]
    # Rows of a base together with rows of an adapter would get the adapter on a CPU (vLLM pull requests 48421, 49656).
    tokens = [{"prompt_token_ids": rows[request[0]]} for request in requests]
    bar = partial(_Bar, on_progress)
    try:
        outputs = engine.llm.generate(tokens, parameters, lora_request=put_on, use_tqdm=bar)
    except BaseException:
        # What was asked for before the failure would be answered to whoever asks next.
        model_cache.drop()
        raise
    new = []
    for request, output in zip(requests, outputs, strict=True):
        made = [list(each.token_ids) for each in sorted(output.outputs, key=lambda each: each.index)]
        new += [until_end(row, ends) for row in (made if len(made) == len(request) else made * len(request))]
    return new


class _Bar(tqdm):
    """The bar that vLLM draws, told as a number."""

    def __init__(self, on_progress: Callable[[int], None], *arguments: Any, **options: Any) -> None:
        # It also has one for requests that are on their way in.
        self._on_progress = on_progress if options.get("desc") == "Processed prompts" else None
        super().__init__(*arguments, **{**options, "file": io.StringIO()})

    def update(self, n: float | None = 1) -> bool | None:
        """Count `n` texts more."""
        drawn: bool | None = super().update(n)
        if self._on_progress:
            self._on_progress(int(self.n))
        return drawn

    def display(self, *_: Any, **__: Any) -> None:
        """Draw nothing."""


def _requests(rows: Sequence[list[int]], streams: Sequence[Stream]) -> Iterator[range]:
    """Yield the texts that one request asks for: successive samples of one prompt."""
    start = 0
    for end in range(1, len(rows) + 1):
        first = streams[start]
        expected = (first.prompt, first.sample + end - start)
        if end == len(rows) or streams[end][1:] != expected or rows[end] != rows[start] or end - start == _MOST_SAMPLES:
            yield range(start, end)
            start = end


def _servable(folder: Path) -> adapters.Adapter:
    """Read an adapter.

    Raises:
        FileNotFoundError: the folder lacks a file.
        ValueError: vLLM does not serve such an adapter.
    """
    adapter = adapters.read(folder)
    remedy = "take engine: transformers, or train with lora: {merged: true}"
    if adapter.whole:
        raise ValueError(
            f"{folder}: vLLM serves no adapter with modules trained whole ({', '.join(adapter.whole)}); {remedy}"
        )
    if adapter.rank > _MOST_RANKS[-1]:
        raise ValueError(
            f"{folder}: vLLM serves adapters up to rank {_MOST_RANKS[-1]}, this has {adapter.rank}; {remedy}"
        )
    return adapter


def _number(engine: _Engine, source: models.Source, adapter: adapters.Adapter) -> int:
    """Return the number by which an engine knows an adapter; a new one was compared with the base.

    Raises:
        ValueError: it is of another model.
    """
    state = source.state()
    if state not in engine.numbers:
        adapter.check(models.empty_model(source, AutoModelForCausalLM))
        engine.numbers[state] = len(engine.numbers) + 1
    return engine.numbers[state]


def _end(engine: _Engine) -> None:
    """End the processes of an engine: now and then they outlive the last reference to it, with all its memory."""
    engine.llm.llm_engine.engine_core.shutdown(timeout=_END_WITHIN)


def _generation_config(source: models.Source) -> GenerationConfig:
    """Read the generation config of a model; an empty one where it has none."""
    try:
        return GenerationConfig.from_pretrained(source.name, revision=source.revision)
    except OSError:
        return GenerationConfig()

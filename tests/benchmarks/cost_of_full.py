"""What `sweeps/full.yaml` costs in GPU-hours, from first principles; prints the tables of `docs/cost.md`.

Counts of responses and precisions are those of the plan, operations those of the models' shapes. Nothing was measured
on a GPU: how much of a device's peak is reached is an assumption, and stands in the table.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "benchmarks")]

from model_flops import all_weights, cache_bytes, forward_flops  # noqa: E402
from transformers import GemmaConfig, GPT2Config, LlamaConfig, PretrainedConfig  # noqa: E402

from orchestrator.session import open_session  # noqa: E402

#: Gemma: arXiv 2403.08295, table 1. Llama 3: arXiv 2407.21783, table 3. GPT-2 large: its config on the Hub.
GEMMA_2B = GemmaConfig(num_hidden_layers=18, hidden_size=2048, intermediate_size=16384, num_attention_heads=8,
                       num_key_value_heads=1, head_dim=256, vocab_size=256_000)  # fmt: skip
GEMMA_7B = GemmaConfig(num_hidden_layers=28, hidden_size=3072, intermediate_size=24576, num_attention_heads=16,
                       num_key_value_heads=16, head_dim=256, vocab_size=256_000)  # fmt: skip
LLAMA_8B = LlamaConfig(num_hidden_layers=32, hidden_size=4096, intermediate_size=14336, num_attention_heads=32,
                       num_key_value_heads=8, vocab_size=128_256)  # fmt: skip
GPT2_LARGE = GPT2Config(n_layer=36, n_embd=1280, n_head=20)
POLICIES = {"gemma-2b": GEMMA_2B, "gemma-7b": GEMMA_7B, "llama3-8b": LLAMA_8B}
GOLDEN = {"harmless": GPT2_LARGE, "helpful": GEMMA_7B}

#: Prompts of hh-rlhf that have at most 450 tokens (arXiv 2411.04991).
PROMPTS = {"train": {"harmless": 41_876, "helpful": 42_846}, "test": {"harmless": 2_273, "helpful": 2_292}}
#: Assumed tokens of a prompt, and of a response of a policy without and with SFT: most of the former reach the limit.
PROMPT, RESPONSE = 150, {False: 128, True: 55}
#: Tokens that pass, padding included, over the fewest that could: as counted on real prompts and answers.
PADDING = {"train": 1.26, "test": 1.03}

#: An H100 SXM: dense TFLOP/s (NVIDIA's sheet), and how much of it reading, and training, is assumed to reach.
PEAK = {"bfloat16": 989, "tf32": 495, "float32": 67}
READING = {"bfloat16": 400, "tf32": 250, "float32": 50}
TRAINING = 350
#: Its bytes per second, the bytes that vLLM takes of it (0.92 of 80 GB), and the texts that vLLM samples at once.
BANDWIDTH, MEMORY, TOGETHER = 3.35e12, 0.92 * 80e9, 1024
#: Tokens per second that vLLM is assumed to sample; Llama's are those of Llama 3.1 8B that morphllm.com tells.
SAMPLING = {"gemma-2b": 25_000, "gemma-7b": 10_000, "llama3-8b": 12_500}

#: What makes `full.yaml` compute in the precision of the paper (section 4: embeddings in float32).
RELEASED = tuple(f"stages.embed_{split}.config.dtype=float32" for split in ("train", "test"))


@dataclass(frozen=True)
class Cost:
    """A line of the table."""

    stage: str
    work: str
    """With its unit."""
    rate: str
    hours: float
    least: float
    """GPU-hours at the peak of the device."""


def responses(split: str, dataset: str, each: int) -> int:
    """Return the responses to a data set's prompts, of one policy."""
    return PROMPTS[split][dataset] * each


@cache
def costs(overrides: tuple[str, ...] = ()) -> tuple[Cost, ...]:
    """Return what the stages that run on GPUs cost, in the order of the sweep.

    Args:
        overrides: of the sweep, as after `-s`.
    """
    plan = open_session(REPOSITORY / "sweeps" / "full.yaml", list(overrides)).plan
    steps = {plan.entry_of(number): number for number in range(len(plan))}
    config = {entry: plan.step(number).config for entry, number in steps.items()}
    each = {split: int(config[f"generate_{split}"]["responses"]) for split in PROMPTS}
    return (
        _sft(),
        *(_generate(name, each) for name in POLICIES),
        *(_score(dataset, each, str(config["score_test"]["dtype"])) for dataset in GOLDEN),
        _embed(each, str(config["embed_test"]["dtype"])),
    )


def _sft() -> Cost:
    """All rows of both data sets twice, forward and backward: three times the forward pass (with LoRA less)."""
    length = PROMPT + 75
    tokens = 2 * sum(PROMPTS["train"].values()) * length
    forward = sum(forward_flops(config, length, logits=True) for config in POLICIES.values())
    return _flops("sft", 3 * tokens * forward, TRAINING, PEAK["bfloat16"])


def _generate(policy: str, each: dict[str, int]) -> Cost:
    tokens = sum(responses(split, dataset, each[split]) * length
                 for split in PROMPTS for dataset in GOLDEN for length in RESPONSE.values())  # fmt: skip
    work, rate = f"{tokens / 1e9:.2f} G tokens", SAMPLING[policy]
    return Cost(
        f"generate, {policy}", work, f"{rate:,} tokens/s", tokens / rate / 3600, tokens / fastest(policy) / 3600
    )


def fastest(policy: str) -> float:
    """Return the tokens per second that no engine can pass.

    A step, one token for each of the texts sampled at once, reads all weights and the keys and values of these texts,
    and computes; it takes at least the longer of the two.
    """
    config, context = POLICIES[policy], PROMPT + RESPONSE[False] / 2
    weights, cache = 2 * all_weights(config), context * cache_bytes(config)
    texts = min(TOGETHER, (MEMORY - weights) / cache)
    flops = texts * forward_flops(config, context, logits=True)
    return texts / max((weights + texts * cache) / BANDWIDTH, flops / (1e12 * PEAK["bfloat16"]))


def _score(dataset: str, each: dict[str, int], dtype: str) -> Cost:
    flops = len(POLICIES) * _read(GOLDEN[dataset], [dataset], each)
    return _flops(f"score, {dataset}, {dtype}", flops, READING[dtype], PEAK[dtype])


def _embed(each: dict[str, int], dtype: str) -> Cost:
    flops = len(POLICIES) * _read(GEMMA_2B, list(GOLDEN), each)
    return _flops(f"embed, {dtype}", flops, READING[dtype], PEAK[dtype])


def _read(config: PretrainedConfig, datasets: Sequence[str], each: dict[str, int]) -> float:
    """Return the operations of reading the responses of a family of policies, each prompt once."""
    return sum(
        PADDING[split] * PROMPTS[split][dataset] * (PROMPT + each[split] * length)
        * forward_flops(config, PROMPT + length)
        for split in PROMPTS for dataset in datasets for length in RESPONSE.values()
    )  # fmt: skip


def _flops(stage: str, flops: float, rate: int, peak: int) -> Cost:
    hours = flops / 1e12 / 3600
    return Cost(stage, f"{flops / 1e18:.2f} EFLOP", f"{rate} TFLOP/s", hours / rate, hours / peak)


def lines(overrides: tuple[str, ...] = ()) -> list[str]:
    """Return the table in Markdown."""
    found = costs(overrides)
    return [
        "| stage | work | assumed rate | GPU-hours | at the device's peak |",
        "|---|---|---|---|---|",
        *(f"| {each.stage} | {each.work} | {each.rate} | {each.hours:.1f} | {each.least:.1f} |" for each in found),
        f"| **all** | | | **{sum(each.hours for each in found):.1f}** | {sum(each.least for each in found):.1f} |",
    ]


if __name__ == "__main__":
    print("\n".join([*lines(), "", *lines(RELEASED)]))

"""Generation: the seed fixes the text, nothing else leaks in, and shards fit together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from workers import tables
from workers.data.responses import read_responses
from workers.language_models import models
from workers.language_models.configs import GenerateConfig
from workers.language_models.generate import generate
from workers.seeding import generator

pytestmark = pytest.mark.train


def run(out: Path, policy: Path, prompts: Path, batch_size: int = 8, **settings: Any) -> list[dict[str, Any]]:
    out.mkdir(exist_ok=True)
    config = GenerateConfig.model_validate({"split": "train", "responses": 2, "max_new_tokens": 12} | settings)
    metrics = generate(config, out, policy=policy, prompts=prompts, batch_size=batch_size)
    rows = tables.RESPONSES.read(out).to_pylist()
    assert set(metrics) == set(config.declared())
    assert metrics["responses"] == len(rows)
    return rows


def texts(rows: list[dict[str, Any]]) -> list[str]:
    return [row["response"] for row in rows]


def test_each_prompt_of_the_split_has_its_responses_in_order(
    tiny_policy: Path, tiny_prompts: Path, tmp_path: Path
) -> None:
    rows = run(tmp_path, tiny_policy, tiny_prompts, split="test", responses=3)
    known = {row["prompt_id"]: row["prompt"] for row in tables.PROMPTS.read(tiny_prompts).to_pylist()}
    assert [(row["prompt_id"], row["response_id"]) for row in rows] == [
        (p, r) for p in (8, 9, 10, 11) for r in range(3)
    ]
    assert all(row["prompt"] == known[row["prompt_id"]] for row in rows)
    assert len(set(texts(rows))) > 6
    assert read_responses([tmp_path]).responses == 3


def test_the_seed_fixes_the_text_whatever_ran_before(tiny_policy: Path, tiny_prompts: Path, tmp_path: Path) -> None:
    first = texts(run(tmp_path, tiny_policy, tiny_prompts))
    torch.manual_seed(5)
    np.random.default_rng(5).random(3)
    assert texts(run(tmp_path, tiny_policy, tiny_prompts)) == first
    other = texts(run(tmp_path, tiny_policy, tiny_prompts, seed=1))
    assert sum(a == b for a, b in zip(first, other, strict=True)) < len(first) / 2


def test_the_text_is_that_of_a_literal_one_token_at_a_time_sampler(
    tiny_policy: Path, tiny_prompts: Path, tmp_path: Path
) -> None:
    """Independent arithmetic in numpy float64, one row at a time, without padding or cache."""
    rows = run(tmp_path, tiny_policy, tiny_prompts, temperature=0.8, top_p=0.9)
    source = models.locate(tiny_policy)
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModelForCausalLM, tokenizer)
    for row in rows[:6]:
        ids = tokenizer(row["prompt"])["input_ids"]
        new: list[int] = []
        for uniform in generator(0, f"generate/train/{row['prompt_id']}/{row['response_id']}").random(12):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids + new])).logits[0, -1].double().numpy() / 0.8
            share = np.exp(logits - logits.max())
            share /= share.sum()
            order = np.argsort(-share, kind="stable")
            nucleus = order[: int(np.searchsorted(np.cumsum(share[order]), 0.9)) + 1]
            within = np.cumsum(share[nucleus]) / share[nucleus].sum()
            token = int(nucleus[int(np.searchsorted(within, uniform, side="right"))])
            if token == tokenizer.eos_token_id:
                break
            new.append(token)
        assert tokenizer.decode(new, skip_special_tokens=True) == row["response"]


def test_neither_shards_nor_batches_nor_more_responses_change_a_text(
    tiny_policy: Path, tiny_prompts: Path, tmp_path: Path
) -> None:
    """Up to rounding in the forward pass, which this small float32 model does not feel."""
    whole = run(tmp_path / "whole", tiny_policy, tiny_prompts)
    sharded = [
        row
        for shard in range(3)
        for row in run(tmp_path / str(shard), tiny_policy, tiny_prompts, shards=3, shard=shard)
    ]
    assert sharded == whole
    assert run(tmp_path / "batch", tiny_policy, tiny_prompts, batch_size=3) == whole
    more = run(tmp_path / "more", tiny_policy, tiny_prompts, responses=4)
    assert [row for row in more if row["response_id"] < 2] == whole


def test_shards_are_contiguous_blocks_as_of_array_split(tiny_policy: Path, tiny_prompts: Path, tmp_path: Path) -> None:
    blocks = [
        sorted({row["prompt_id"] for row in run(tmp_path, tiny_policy, tiny_prompts, shards=3, shard=i)})
        for i in range(3)
    ]
    assert blocks == [list(block) for block in np.array_split(np.arange(8), 3)]


def test_generation_defaults_of_the_model_do_not_leak_in(tiny_policy: Path, tiny_prompts: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_policy / "model", tmp_path / "model")
    path = tmp_path / "model" / "generation_config.json"
    settings = {"do_sample": True, "temperature": 0.01, "top_k": 1, "repetition_penalty": 3.0, "min_new_tokens": 9}
    path.write_text(json.dumps(json.loads(path.read_text()) | settings | {"max_length": 20}))
    plain = texts(run(tmp_path / "a", tiny_policy, tiny_prompts))
    assert texts(run(tmp_path / "b", tmp_path, tiny_prompts)) == plain


def test_a_low_temperature_and_a_small_nucleus_give_the_greedy_text(
    tiny_policy: Path, tiny_prompts: Path, tmp_path: Path
) -> None:
    cold = texts(run(tmp_path, tiny_policy, tiny_prompts, temperature=1e-4, top_p=1.0))
    assert cold == texts(run(tmp_path, tiny_policy, tiny_prompts, top_p=1e-6, seed=3))
    assert cold[0::2] == cold[1::2]


def test_texts_end_at_eos_and_may_be_empty(tiny_policy: Path, tiny_prompts: Path, tmp_path: Path) -> None:
    """With every token as an end of text, each text is empty at once."""
    shutil.copytree(tiny_policy / "model", tmp_path / "model")
    path = tmp_path / "model" / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": list(range(400))}))
    out = tmp_path / "out"
    assert set(texts(run(out, tmp_path, tiny_prompts))) == {""}


def test_long_prompts_lose_their_beginning_for_the_model_but_not_in_the_table(
    tiny_policy: Path, tmp_path: Path
) -> None:
    tail = "\n\nHuman: How do I mend a boat?\n\nAssistant:"
    found = []
    limit = len(models.load_tokenizer(models.locate(tiny_policy))(tail)["input_ids"])
    for name, prompt in (("long", "\n\nHuman: boat" * 200 + tail), ("short", tail)):
        folder = tmp_path / name
        folder.mkdir()
        columns = {"prompt_id": [0], "split": ["train"], "prompt": [prompt]}
        tables.PROMPTS.write(columns, folder)
        (row, _) = run(tmp_path / f"{name}-out", tiny_policy, folder, max_prompt_tokens=limit)
        assert row["prompt"] == prompt
        found.append(row["response"])
    assert found[0] == found[1]


def test_with_chat_prompts_are_put_into_the_template_of_the_tokenizer(
    tiny_policy: Path, tiny_prompts: Path, tmp_path: Path
) -> None:
    """A template that spells the dialogue as it was gives the texts that go without a template."""
    with pytest.raises(ValueError, match="no chat template"):
        run(tmp_path / "none", tiny_policy, tiny_prompts, chat=True)
    plain = run(tmp_path / "plain", tiny_policy, tiny_prompts)
    tokenizer = models.load_tokenizer(models.locate(tiny_policy))
    start = tokenizer.decode(tokenizer("x")["input_ids"]).removesuffix("x")  # special tokens, if it adds any
    shutil.copytree(tiny_policy / "model", tmp_path / "model")
    template = tmp_path / "model" / "chat_template.jinja"
    template.write_text(start + "{{ '\\n\\nHuman: ' + messages[0].content + '\\n\\nAssistant:' }}")
    assert run(tmp_path / "same", tmp_path, tiny_prompts, chat=True) == plain
    template.write_text("{{ messages[0].content }}")
    assert texts(run(tmp_path / "other", tmp_path, tiny_prompts, chat=True)) != texts(plain)


def test_an_empty_shard_is_an_error(tiny_policy: Path, tiny_prompts: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shard 8 of 9 is empty: 8 train prompts"):
        run(tmp_path, tiny_policy, tiny_prompts, shards=9, shard=8)


def test_more_new_tokens_than_context_are_an_error(tiny_policy: Path, tiny_prompts: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"max_new_tokens \(256\) leaves no room in 256 tokens"):
        run(tmp_path, tiny_policy, tiny_prompts, max_new_tokens=256)


def test_a_policy_that_gives_nan_is_an_error(tiny_policy: Path, tiny_prompts: Path, tmp_path: Path) -> None:
    source = models.locate(tiny_policy)
    tokenizer = models.load_tokenizer(source)
    broken = models.load_model(source, AutoModelForCausalLM, tokenizer)
    with torch.no_grad():
        broken.model.norm.weight[0] = torch.nan
    models.save_model(broken, tokenizer, tmp_path)
    with pytest.raises(ValueError, match="NaN"):
        run(tmp_path / "out", tmp_path, tiny_prompts)

"""Judgments of a local model: what is asked in which order, and that nothing but seed and texts matters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, RepetitionPenaltyLogitsProcessor

from workers import tables
from workers.judges.configs import JudgeSampleConfig
from workers.judges.parse import strict_verdict
from workers.judges.requests import hinted_request, request
from workers.judges.sample import judge_sample
from workers.language_models import models
from workers.language_models.configs import PolicyConfig, TinyLlama, TinyModel
from workers.language_models.policy import policy
from workers.language_models.sampling import sample
from workers.language_models.sampling_settings import Sampling, Stream
from workers.seeding import generator

pytestmark = pytest.mark.train

Rows = list[dict[str, Any]]

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def tiny_judge(tiny_demonstrations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer Llama with room for whole requests."""
    out = tmp_path_factory.mktemp("judge")
    sizes = TinyLlama(layers=1, hidden=32, heads=2, vocabulary=400, context=512, steps=5, batch_size=8)
    policy(PolicyConfig(model=TinyModel(tiny=sizes)), out, demonstrations=tiny_demonstrations)
    return out


def write_pairs(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    prompts, chosen, rejected = zip(*rows, strict=True)
    columns = {"prompt": prompts, "chosen": chosen, "rejected": rejected, "subset": [""] * len(rows)}
    tables.PREFERENCES.write(columns, folder)
    return folder


def pairs(count: int) -> list[tuple[str, str, str]]:
    return [(f"\n\nHuman: How do I mend boat {i}?\n\nAssistant:", f" Glue {i}.", f" No, {i}.") for i in range(count)]


def run(out: Path, preferences: Path, judge: Path | None, batch_size: int = 8, **settings: Any) -> Rows:
    out.mkdir(parents=True, exist_ok=True)
    small = {"samples": 2, "max_new_tokens": 8, "backend": {"engine": "transformers"}}
    config = JudgeSampleConfig.model_validate(small | settings)
    metrics = judge_sample(config, out, preferences=preferences, judge=judge, batch_size=batch_size)
    rows = tables.JUDGMENTS.read(out).to_pylist()
    assert set(metrics) == set(config.declared())
    assert metrics["judgments"] == len(rows)
    return rows


def by_texts(rows: Rows) -> dict[tuple[Any, ...], str]:
    return {(row["prompt"], row["first"], row["second"], row["hint"], row["sample"]): row["text"] for row in rows}


def test_each_pair_has_its_samples_then_one_judgment_per_hint_in_the_order_of_the_pairs(
    tiny_judge: Path, tmp_path: Path
) -> None:
    rows = run(tmp_path, write_pairs(tmp_path, pairs(3)), tiny_judge, hints=True)
    assert [(row["hint"], row["sample"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (2, 0)] * 3
    assert [row["prompt"] for row in rows] == [prompt for prompt, _, _ in pairs(3) for _ in range(4)]
    assert all({row["first"], row["second"]} == {f" Glue {i // 4}.", f" No, {i // 4}."} for i, row in enumerate(rows))
    assert all(row["drawn"] for row in rows)
    for row in rows:  # the request is the same for hinted judgments
        assert row["request"] == request(row["prompt"], row["first"], row["second"], "json", True, 0)
    assert len({row["text"] for row in rows}) > 8


def test_a_hinted_judgment_is_a_rationale_of_the_hinted_request_with_the_verdict_of_the_hint(
    tiny_judge: Path, tmp_path: Path
) -> None:
    settings = {"samples": 0, "hints": True, "hint_temperature": 0.7, "hint_top_p": 0.8, "repetition_penalty": 1.3}
    rows = run(tmp_path, write_pairs(tmp_path, pairs(2)), tiny_judge, **settings)
    told = [hinted_request(row["prompt"], row["first"], row["second"], "json", 0, row["hint"]) for row in rows]
    streams = [Stream(label(row), label(row), 0) for row in rows]
    how = Sampling(0.7, 0.8, max_new_tokens=8, max_prompt_tokens=4096, seed=0, repetition_penalty=1.3)
    reasons, _ = sample(models.locate(tiny_judge), told, streams, how, "reasons", 64)
    assert [json.loads(row["text"]) for row in rows] == [
        {"rationale": text.strip(), "verdict": row["hint"]} for text, row in zip(reasons, rows, strict=True)
    ]
    read = [strict_verdict(row["text"], "json", True) for row in rows if json.loads(row["text"])["rationale"]]
    assert read
    assert set(read) <= {1, 2}


def label(row: dict[str, Any]) -> str:
    import hashlib

    texts = [row["prompt"], row["first"], row["second"], row["hint"], row["sample"]]
    return f"judge_sample/{hashlib.sha256(json.dumps(texts).encode()).hexdigest()}"


def test_the_text_is_that_of_a_literal_one_token_at_a_time_sampler(tiny_judge: Path, tmp_path: Path) -> None:
    """Without padding or cache, in float64, with the repetition penalty of transformers."""
    settings = {"temperature": 0.9, "top_p": 0.9, "repetition_penalty": 1.4}
    preferences = write_pairs(tmp_path, [*pairs(2), ("\n\nHuman: Hi?\n\nAssistant:", " a", " b")])
    rows = run(tmp_path, preferences, tiny_judge, **settings)
    source = models.locate(tiny_judge)
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModelForCausalLM, tokenizer)
    penalty = RepetitionPenaltyLogitsProcessor(1.4)
    for row in rows[1:6:2]:
        ids = tokenizer(row["request"])["input_ids"]
        new: list[int] = []
        for uniform in generator(0, label(row)).random(8):
            with torch.no_grad():
                whole = torch.tensor([ids + new])
                logits = penalty(whole, model(input_ids=whole).logits[:, -1])[0].double().numpy() / 0.9
            share = np.exp(logits - logits.max())
            share /= share.sum()
            order = np.argsort(-share, kind="stable")
            nucleus = order[: int(np.searchsorted(np.cumsum(share[order]), 0.9)) + 1]
            within = np.cumsum(share[nucleus]) / share[nucleus].sum()
            token = int(nucleus[int(np.searchsorted(within, uniform, side="right"))])
            if token == tokenizer.eos_token_id:
                break
            new.append(token)
        assert f" {tokenizer.decode(new, skip_special_tokens=True).strip()}" == row["text"]


def test_temperature_0_takes_the_most_likely_token_as_transformers_does(tiny_judge: Path, tmp_path: Path) -> None:
    rows = run(tmp_path, write_pairs(tmp_path, pairs(3)), tiny_judge, temperature=0, repetition_penalty=1.3)
    source = models.locate(tiny_judge)
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModelForCausalLM, tokenizer)
    for row in rows:
        ids = torch.tensor([tokenizer(row["request"])["input_ids"]])
        whole = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=8,
            repetition_penalty=1.3,
        )
        assert f" {tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True).strip()}" == row["text"]


def test_padding_does_not_count_as_seen_for_the_repetition_penalty(tiny_judge: Path, tmp_path: Path) -> None:
    """The pad token here is the one that a short prompt goes on with: held back, its text would change in company."""
    short, long = "\n\nHuman: Hi\n\nAssistant:", "\n\nHuman: How do I mend a boat?\n\nAssistant:"
    tokenizer = models.load_tokenizer(models.locate(tiny_judge))
    model = models.load_model(models.locate(tiny_judge), AutoModelForCausalLM, tokenizer)
    ids = torch.tensor([tokenizer(short)["input_ids"]])
    with torch.no_grad():
        logits = RepetitionPenaltyLogitsProcessor(3.0)(ids, model(input_ids=ids).logits[:, -1])
    shutil.copytree(tiny_judge / "model", tmp_path / "model")
    path = tmp_path / "model" / "tokenizer_config.json"
    pad = tokenizer.convert_ids_to_tokens(int(logits.argmax()))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token": pad}))
    source = models.locate(tmp_path)
    assert models.load_tokenizer(source).pad_token_id == int(logits.argmax())

    how = Sampling(0.0, 1.0, max_new_tokens=4, max_prompt_tokens=400, seed=0, repetition_penalty=3.0)
    streams = [Stream(name, name, 0) for name in ("a", "b")]
    alone, _ = sample(source, [short], streams[:1], how, "texts", 64)
    together, _ = sample(source, [short, long], streams, how, "texts", 64)
    assert together[0] == alone[0]


def test_neither_shards_batches_samples_limit_nor_other_rows_change_a_judgment(
    tiny_judge: Path, tmp_path: Path
) -> None:
    preferences = write_pairs(tmp_path / "pairs", pairs(5))
    settings = {"hints": True, "wordings": 3}
    whole = run(tmp_path / "whole", preferences, tiny_judge, **settings)
    sharded = [
        row
        for shard in range(2)
        for row in run(tmp_path / str(shard), preferences, tiny_judge, shards=2, shard=shard, **settings)
    ]
    assert sharded == whole
    assert run(tmp_path / "batch", preferences, tiny_judge, batch_size=3, **settings) == whole
    more = run(tmp_path / "more", preferences, tiny_judge, samples=3, limit=2, **settings)
    assert by_texts(whole).items() >= by_texts([row for row in more if row["sample"] < 2]).items()
    assert {row["prompt"] for row in more} == {prompt for prompt, _, _ in pairs(2)}
    turned = write_pairs(tmp_path / "turned", pairs(5)[::-1])
    assert by_texts(run(tmp_path / "other", turned, tiny_judge, **settings)) == by_texts(whole)


def test_labels_do_not_matter(tiny_judge: Path, tmp_path: Path) -> None:
    rows = run(tmp_path / "a", write_pairs(tmp_path / "p", pairs(4)), tiny_judge, hints=True, orders="both", wordings=4)
    turned = write_pairs(tmp_path / "q", [(prompt, low, high) for prompt, high, low in pairs(4)])
    assert run(tmp_path / "b", turned, tiny_judge, hints=True, orders="both", wordings=4) == rows


def test_a_pair_in_several_rows_is_judged_once(tiny_judge: Path, tmp_path: Path) -> None:
    (prompt, high, low), other = pairs(2)
    preferences = write_pairs(tmp_path, [(prompt, high, low), other, (prompt, low, high)])
    rows = run(tmp_path, preferences, tiny_judge, samples=1)
    assert [row["prompt"] for row in rows] == [prompt, other[0]]


def shown_first(preferences: Path, out: Path, judge: Path, **settings: Any) -> list[bool]:
    """For each pair, whether the preferred answer " Glue …" stands first where the order was drawn."""
    rows = run(out, preferences, judge, samples=1, max_new_tokens=1, **settings)
    return [row["first"].startswith(" Glue") for row in rows if row["drawn"]]


def test_orders_are_drawn_by_seed_and_chosen_first_moves_their_share(tiny_judge: Path, tmp_path: Path) -> None:
    preferences = write_pairs(tmp_path, pairs(60))
    small = {"batch_size": 60}
    fair = shown_first(preferences, tmp_path, tiny_judge, **small)
    assert 15 < sum(fair) < 45
    assert fair == shown_first(preferences, tmp_path, tiny_judge, **small)
    assert fair != shown_first(preferences, tmp_path, tiny_judge, seed=1, **small)
    assert all(shown_first(preferences, tmp_path, tiny_judge, chosen_first=1, **small))
    assert not any(shown_first(preferences, tmp_path, tiny_judge, chosen_first=0, **small))
    assert 46 <= sum(shown_first(preferences, tmp_path, tiny_judge, chosen_first=0.9, **small)) < 60


def test_both_orders_show_the_drawn_one_first_and_leave_its_judgments_alone(tiny_judge: Path, tmp_path: Path) -> None:
    preferences = write_pairs(tmp_path, pairs(3))
    drawn = run(tmp_path / "drawn", preferences, tiny_judge)
    both = run(tmp_path / "both", preferences, tiny_judge, orders="both")
    assert [row for row in both if row["drawn"]] == drawn
    assert [row["drawn"] for row in both] == [True, True, False, False] * 3
    other = [row for row in both if not row["drawn"]]
    assert [(row["second"], row["first"]) for row in other] == [(row["first"], row["second"]) for row in drawn]


def test_wordings_are_drawn_per_pair_among_the_first_ones(tiny_judge: Path, tmp_path: Path) -> None:
    preferences = write_pairs(tmp_path, pairs(30))
    rows = run(tmp_path, preferences, tiny_judge, wordings=3, samples=1, orders="both", max_new_tokens=1)
    found = []
    for row in rows:
        shown = (row["prompt"], row["first"], row["second"])
        asked = [request(*shown, "json", True, wording) for wording in range(6)]
        found.append(asked.index(row["request"]))
    assert found[0::2] == found[1::2]  # both orders of a pair are asked alike
    assert set(found) == {0, 1, 2}


def test_the_form_without_a_rationale_and_brackets_are_asked_for(tiny_judge: Path, tmp_path: Path) -> None:
    preferences = write_pairs(tmp_path, pairs(1))
    (row, _) = run(tmp_path, preferences, tiny_judge, form="brackets", rationale=False)
    assert row["request"] == request(row["prompt"], row["first"], row["second"], "brackets", False, 0)
    rows = run(tmp_path, preferences, tiny_judge, form="brackets", hints=True, samples=0)
    assert [row["text"][-6:] for row in rows] == [" [[A]]", " [[B]]"]


def test_with_chat_the_request_is_put_into_the_template_of_the_tokenizer(tiny_judge: Path, tmp_path: Path) -> None:
    preferences = write_pairs(tmp_path, pairs(2))
    with pytest.raises(ValueError, match="no chat template"):
        run(tmp_path / "none", preferences, tiny_judge, chat=True)
    shutil.copytree(tiny_judge / "model", tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(TEMPLATE)
    rows = run(tmp_path / "chat", preferences, tmp_path, chat=True, temperature=0, repetition_penalty=1)
    assert [row["request"] for row in rows] == [row["request"] for row in run(tmp_path / "x", preferences, tiny_judge)]
    source = models.locate(tmp_path)
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModelForCausalLM, tokenizer)
    for row in rows[::2]:
        asked = row["request"].removeprefix("\n\nHuman: ").removesuffix("\n\nAssistant:")
        text = f"{tokenizer.bos_token or ''}<user>{asked}<assistant>"
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        whole = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
        assert f" {tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True).strip()}" == row["text"]


def test_a_request_that_is_too_long_is_not_asked_and_says_so_instead_of_losing_its_beginning(
    tiny_judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = ("\n\nHuman: " + "boat " * 600 + "?\n\nAssistant:", " a", " b")
    preferences = write_pairs(tmp_path, [pairs(2)[0], long, pairs(2)[1]])
    rows = run(tmp_path / "all", preferences, tiny_judge, hints=True)
    told = [row for row in rows if row["prompt"] == long[0]]
    tokens = len(models.load_tokenizer(models.locate(tiny_judge))(told[0]["request"])["input_ids"])
    assert told[0]["unread"] == f"too long: the request has {tokens:,} tokens, 504 allowed"
    assert [(row["text"], row["hint"]) for row in told] == [(" ", 0), (" ", 0), (" ", 1), (" ", 2)]
    assert all(row["unread"].startswith("too long: ") for row in told)
    assert "boat " * 600 in told[0]["request"].replace("?", " ")
    assert "4 of 12 judgments are not asked for: their requests are too long" in capsys.readouterr().out
    # The others are what they are without it.
    others = run(tmp_path / "others", write_pairs(tmp_path / "short", pairs(2)), tiny_judge, hints=True)
    assert [row for row in rows if not row["unread"]] == others

    config = JudgeSampleConfig.model_validate({"samples": 1, "max_new_tokens": 8, "max_request_tokens": 100})
    metrics = judge_sample(config, tmp_path, preferences=preferences, judge=tiny_judge)
    assert metrics == {"judgments": 3, "mean_judgment_tokens": 0, "judge_too_long": 3}


def test_a_request_of_just_as_many_tokens_as_there_is_room_for_is_asked(tiny_judge: Path, tmp_path: Path) -> None:
    preferences = write_pairs(tmp_path, pairs(1))
    asked = request(*(pairs(1)[0][0], " Glue 0.", " No, 0."), "json", True, 0)
    tokens = len(models.load_tokenizer(models.locate(tiny_judge))(asked)["input_ids"])
    settings = {"samples": 1, "chosen_first": 1}
    assert not run(tmp_path, preferences, tiny_judge, max_request_tokens=tokens, **settings)[0]["unread"]
    assert run(tmp_path, preferences, tiny_judge, max_request_tokens=tokens - 1, **settings)[0]["unread"] == (
        f"too long: the request has {tokens} tokens, {tokens - 1} allowed"
    )


def test_a_local_backend_without_a_judge_and_an_empty_shard_are_errors(tiny_judge: Path, tmp_path: Path) -> None:
    preferences = write_pairs(tmp_path, pairs(2))
    with pytest.raises(ValueError, match=r"writes with the `judge` input.*wire a model"):
        run(tmp_path, preferences, None)
    with pytest.raises(ValueError, match="shard 2 of 3 is empty: 2 pairs"):
        run(tmp_path, preferences, tiny_judge, shards=3, shard=2)


def test_the_model_stays_resident_for_the_next_shard(tiny_judge: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_judge / "model", tmp_path / "model")
    preferences = write_pairs(tmp_path, pairs(2))
    from workers import model_cache

    run(tmp_path, preferences, tmp_path, shards=2, shard=0)
    kept = model_cache._kept
    run(tmp_path, preferences, tmp_path, shards=2, shard=1, hints=True)
    assert kept is not None
    assert model_cache._kept is kept

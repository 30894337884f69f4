"""The contract of both engines: what is sampled, where texts end, and what does not matter.

vLLM is taken where it is installed (`make test-vllm`); all that is promised for transformers alone is in
`test_generate.py`.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folder_checkpoints import FolderCheckpoints, StoppedError
from transformers import AutoModelForCausalLM

from workers.language_models import models
from workers.language_models.sampling import sample
from workers.language_models.sampling_settings import Sampling, Stream

pytestmark = pytest.mark.train

PROMPTS = [f"\n\nHuman: How do I mend {thing}?\n\nAssistant:" for thing in ("a boat", "it", "the old door")]
#: Draws of a test of a distribution, and its level. They tell a temperature that is a quarter higher, and any nucleus
#: that is smaller, as the tests show.
DRAWS = 4_000
LEVEL = 1e-4


@pytest.fixture(
    params=[
        "transformers",
        pytest.param(
            "vllm",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("vllm") is None, reason="vLLM is not installed here: make test-vllm"
            ),
        ),
    ]
)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(vllm_policy: Path) -> models.Source:
    return models.locate(vllm_policy)


def draw(
    source: models.Source, engine: str, prompts: list[str], streams: list[Stream] | None = None, **settings: Any
) -> list[str]:
    options = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 12, "max_prompt_tokens": 64, "seed": 0} | settings
    streams = streams or [Stream(f"text {i}", f"prompt {i}", 0) for i in range(len(prompts))]
    return sample(source, prompts, streams, Sampling(engine=engine, **options), "texts", 256)[0]  # type: ignore[arg-type]


def samples(name: str, count: int) -> list[Stream]:
    return [Stream(f"{name}/{i}", name, i) for i in range(count)]


def next_texts(source: models.Source, prompt: str, temperature: float, top_p: float) -> dict[str, float]:
    """Text of one new token -> its probability, computed literally in float64."""
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModelForCausalLM, tokenizer)
    with torch.no_grad():
        logits = model(**tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)).logits[0, -1]
    share = (logits.double() / temperature).softmax(-1).numpy()
    order = np.argsort(-share, kind="stable")
    nucleus = order[: int(np.searchsorted(np.cumsum(share[order]), top_p)) + 1] if top_p < 1 else order
    found: Counter[str] = Counter()
    for token in nucleus:
        text = "" if token == tokenizer.eos_token_id else tokenizer.decode([token], skip_special_tokens=True)
        found[text] += share[token] / share[nucleus].sum()
    return dict(found)


def p_value(drawn: list[str], expected: dict[str, float]) -> float:
    """Of a chi-square test, rare texts taken together; 0 if a text was drawn that cannot be."""
    counts = Counter(drawn)
    if counts.keys() - expected.keys():
        return 0.0
    common = [text for text, share in expected.items() if share * len(drawn) >= 5]
    observed = [counts[text] for text in common]
    wanted = [expected[text] * len(drawn) for text in common]
    if (rest := len(drawn) - sum(wanted)) > 1e-6 * len(drawn):
        observed.append(len(drawn) - sum(observed))
        wanted.append(rest)
    return chi_square(observed, wanted)


def chi_square(observed: list[float], expected: list[float]) -> float:
    """P value of Pearson's test; without scipy, which the environment of vLLM lacks."""
    statistic = sum((seen - share) ** 2 / share for seen, share in zip(observed, expected, strict=True))
    half = torch.tensor([(len(expected) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.0, 0.8), (1.3, 0.9)])
def test_the_next_token_has_the_distribution_of_the_model(
    source: models.Source, engine: str, temperature: float, top_p: float
) -> None:
    how = {"temperature": temperature, "top_p": top_p, "max_new_tokens": 1}
    drawn = draw(source, engine, [PROMPTS[0]] * DRAWS, samples("a", DRAWS), **how)
    assert p_value(drawn, next_texts(source, PROMPTS[0], temperature, top_p)) > LEVEL
    # Of prompts with names of their own as well, so of other seeds.
    alone = [Stream(f"{i}", f"{i}", 0) for i in range(DRAWS)]
    drawn = draw(source, engine, [PROMPTS[0]] * DRAWS, alone, **how)
    assert p_value(drawn, next_texts(source, PROMPTS[0], temperature, top_p)) > LEVEL
    # The power that these draws have.
    assert p_value(drawn, next_texts(source, PROMPTS[0], 1.25 * temperature, top_p)) < LEVEL
    assert p_value(drawn, next_texts(source, PROMPTS[0], temperature, top_p - 0.1)) < LEVEL


def test_the_tokens_of_a_text_and_the_samples_of_a_prompt_are_independent(source: models.Source, engine: str) -> None:
    """Two tokens, and two successive samples, in a table of whether each is the likeliest."""
    likeliest = max(found := next_texts(source, PROMPTS[0], 1.0, 1.0), key=lambda text: found[text])
    share = found[likeliest]
    drawn = draw(source, engine, [PROMPTS[0]] * DRAWS, samples("a", DRAWS), max_new_tokens=1)
    hits = np.array([text == likeliest for text in drawn])
    both = int((hits[::2] & hits[1::2]).sum())
    pairs = DRAWS // 2
    assert chi_square([both, pairs - both], [pairs * share**2, pairs * (1 - share**2)]) > LEVEL
    assert 0.05 < share < 0.95, "or this shows nothing"


def test_greedy_texts_are_token_by_token_the_most_likely(source: models.Source, engine: str) -> None:
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModelForCausalLM, tokenizer)
    for prompt, text in zip(PROMPTS, draw(source, engine, PROMPTS, temperature=0.0), strict=True):
        ids = tokenizer(prompt)["input_ids"]
        start = len(ids)
        while len(ids) < start + 12:
            with torch.no_grad():
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                ids.pop()
                break
        assert tokenizer.decode(ids[start:], skip_special_tokens=True) == text


def test_texts_end_at_what_ends_a_text_and_may_be_empty(
    vllm_policy: Path, source: models.Source, engine: str, tmp_path: Path
) -> None:
    drawn = draw(source, engine, PROMPTS, temperature=0.0)
    tokenizer = models.load_tokenizer(source)
    ids = tokenizer(drawn[0], add_special_tokens=False)["input_ids"]
    shutil.copytree(vllm_policy / "model", tmp_path / "model")
    path = tmp_path / "model" / "generation_config.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps(before | {"eos_token_id": [tokenizer.eos_token_id, ids[3]]}))
    (ended, *_) = draw(models.locate(tmp_path), engine, PROMPTS, temperature=0.0)
    assert ended == tokenizer.decode(ids[: ids.index(ids[3])])
    path.write_text(json.dumps(before | {"eos_token_id": list(range(len(tokenizer)))}))
    assert set(draw(models.locate(tmp_path), engine, PROMPTS)) == {""}


def test_a_prompt_loses_its_beginning_where_it_is_longer_than_the_room_and_only_there(
    source: models.Source, engine: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenizer = models.load_tokenizer(source)
    ids = tokenizer(PROMPTS[0])["input_ids"]
    assert draw(source, engine, [PROMPTS[0]], max_prompt_tokens=len(ids)) == draw(source, engine, [PROMPTS[0]])
    capfd.readouterr()
    long = "\n\nHuman: boat" * 50 + PROMPTS[0]
    short, cut = (draw(source, engine, [each], max_prompt_tokens=len(ids)) for each in (PROMPTS[0], long))
    assert short == cut
    assert "1 of 1 texts" in capfd.readouterr().out
    # The whole context.
    whole = tokenizer.decode(tokenizer(PROMPTS[1] * 40)["input_ids"][-230:])
    assert len(draw(source, engine, [whole], max_prompt_tokens=1000, max_new_tokens=20)) == 1


def test_an_empty_prompt_is_continued_from_what_begins_a_text_and_is_an_error_where_nothing_does(
    vllm_policy: Path, source: models.Source, engine: str, tmp_path: Path
) -> None:
    first, second = draw(source, engine, ["", ""], samples("a", 2), max_new_tokens=12)
    assert first != second
    shutil.copytree(vllm_policy / "model", tmp_path / "model")
    path = tmp_path / "model" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["post_processor"] = None
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"prompt 2 of 3 is empty.*no token that begins a text"):
        draw(models.locate(tmp_path), engine, [PROMPTS[0], "", PROMPTS[1]])


def test_a_text_depends_on_neither_the_others_nor_their_order_nor_on_whether_it_was_stopped(
    source: models.Source, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 with transformers up to rounding, which this model does not feel; with vLLM on one machine."""
    prompts = [PROMPTS[i // 6] for i in range(18)]
    streams = [stream for name in "abc" for stream in samples(name, 6)]
    whole = draw(source, engine, prompts, streams)
    assert len(set(whole)) > 12
    order = np.random.default_rng(0).permutation(18)
    shuffled = draw(source, engine, [prompts[i] for i in order], [streams[i] for i in order])
    assert [shuffled[int(place)] for place in np.argsort(order)] == whole
    assert draw(source, engine, prompts[4:9], streams[4:9]) == whole[4:9]
    monkeypatch.setattr("workers.language_models.sampling._VLLM_TEXTS", 4)
    how = Sampling(1.0, 1.0, max_new_tokens=12, max_prompt_tokens=64, seed=0, engine=engine)  # type: ignore[arg-type]
    with pytest.raises(StoppedError):
        sample(source, prompts, streams, how, "texts", 4, FolderCheckpoints(tmp_path / "kept", due=[1, 2], stop=3))
    rest = FolderCheckpoints(tmp_path / "kept")
    assert sample(source, prompts, streams, how, "texts", 4, rest)[0] == whole
    # Eight of eighteen were there, and no moment comes after the last batch.
    assert rest.asked == 2

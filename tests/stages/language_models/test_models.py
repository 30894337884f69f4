"""Models as artifacts: references, errors that say what to do, and texts that keep their end."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from workers.config import HubModel, LocalPath
from workers.language_models import models

pytestmark = pytest.mark.train


def test_a_local_model_is_referred_to_and_not_copied(tiny_policy: Path, tmp_path: Path) -> None:
    folder = str(tiny_policy / "model")
    models.write_reference(LocalPath(path=folder, sha256="0" * 64), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["reference.json"]
    assert models.locate(tmp_path) == models.Source(folder, local=True)


def test_a_hub_model_keeps_its_revision(tmp_path: Path) -> None:
    models.write_reference(HubModel(hub="google/gemma-2b", revision="v1"), tmp_path)
    assert json.loads((tmp_path / "reference.json").read_text()) == {"hub": "google/gemma-2b", "revision": "v1"}
    assert models.locate(tmp_path) == models.Source("google/gemma-2b", local=False, revision="v1")


def test_a_reference_to_a_folder_that_is_gone_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "reference.json").write_text('{"path": "/nowhere/model"}')
    with pytest.raises(FileNotFoundError, match=r"/nowhere/model.*reference.json.*not there"):
        models.locate(tmp_path)
    with pytest.raises(FileNotFoundError, match="not there"):
        models.write_reference(LocalPath(path="/nowhere/model", sha256="0" * 64), tmp_path)


def test_an_artifact_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a model artifact"):
        models.locate(tmp_path)


def test_an_unreachable_hub_model_says_what_to_do() -> None:
    source = models.Source("nobody/no-such-model", local=False)
    with pytest.raises(FileNotFoundError, match=r"hf download nobody/no-such-model.*HF_HOME.*\{path: …\}"):
        models.load_tokenizer(source)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        models.locate(LocalPath(path=str(tmp_path), sha256="0" * 64))
    (tmp_path / "config.json").write_text("{}")
    source = models.locate(LocalPath(path=str(tmp_path), sha256="0" * 64))
    with pytest.raises(ValueError, match=str(tmp_path)):
        models.load_tokenizer(source)


def test_a_folder_without_weights_is_refused(tiny_policy: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_policy / "model", tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    source = models.locate(tmp_path)
    with pytest.raises(FileNotFoundError, match="not a readable model folder"):
        models.load_model(source, AutoModelForCausalLM, models.load_tokenizer(source))


def test_missing_weights_are_an_error_and_not_random_numbers(tiny_policy: Path) -> None:
    source = models.locate(tiny_policy)
    tokenizer = models.load_tokenizer(source)
    with pytest.raises(ValueError, match=r"lacks score\.weight"):
        models.load_model(source, AutoModelForSequenceClassification, tokenizer)


def test_a_tokenizer_without_a_pad_token_pads_with_eos(tiny_policy: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_policy / "model", tmp_path / "model")
    path = tmp_path / "model" / "tokenizer_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "pad_token"}))
    source = models.locate(tmp_path)
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModelForCausalLM, tokenizer)
    assert tokenizer.pad_token == tokenizer.eos_token
    assert model.config.pad_token_id == tokenizer.eos_token_id


def test_models_are_loaded_for_evaluation_in_the_wanted_dtype(tiny_policy: Path) -> None:
    source = models.locate(tiny_policy)
    model = models.load_model(source, AutoModelForCausalLM, models.load_tokenizer(source), dtype="bfloat16")
    assert not model.training
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_weights_that_are_a_pickle_and_code_beside_a_model_are_not_executed(tiny_policy: Path, tmp_path: Path) -> None:
    folder, ran = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(tiny_policy / "model", folder)
    (folder / "model.safetensors").unlink()

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    torch.save({"model.embed_tokens.weight": Evil()}, folder / "pytorch_model.bin")
    source = models.Source(str(folder), local=True)
    tokenizer = models.load_tokenizer(source)
    with pytest.raises(pickle.UnpicklingError, match="weights"):
        models.load_model(source, AutoModelForCausalLM, tokenizer)
    (folder / "evil.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\nclass Model: ...\n")
    config = json.loads((folder / "config.json").read_text())
    named = {"model_type": "evil", "auto_map": {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config | named))
    with pytest.raises(ValueError, match="trust_remote_code"):
        models.load_model(source, AutoModelForCausalLM, tokenizer)
    assert not ran.exists()

"""Which device a step computes on: what it was promised, whatever the process can see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from workers.device import NoGpuError, device, promise_gpu
from workers.device_memory import NoRoomError
from workers.language_models import models
from workers.language_models.configs import SftConfig
from workers.language_models.sft import sft
from workers.model_cache import cached_model

pytestmark = pytest.mark.train


@pytest.fixture(autouse=True)
def _no_promise() -> Iterator[None]:
    yield
    promise_gpu(None)


@pytest.mark.parametrize(
    ("visible", "promised", "expected"),
    [(True, True, "cuda"), (True, False, "cpu"), (True, None, "cuda"), (False, False, "cpu"), (False, None, "cpu")],
)
def test_a_step_computes_on_a_gpu_exactly_if_it_was_promised_one(
    visible: bool, promised: bool | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: visible)
    promise_gpu(promised)
    assert device().type == expected


def test_a_gpu_that_was_promised_and_is_not_there_is_an_error_with_the_remedy() -> None:
    promise_gpu(True)
    with pytest.raises(NoGpuError, match=r"sees none here.*device: cpu under runtime"):
        device()


def test_a_model_that_one_step_put_on_the_gpu_is_not_that_of_a_step_without() -> None:
    loaded = []
    for promised in (True, True, False):
        promise_gpu(promised)
        loaded.append(cached_model("model", object))
    assert loaded[0] is loaded[1]
    assert loaded[1] is not loaded[2]


def test_training_refuses_several_gpus_since_each_would_get_a_batch(
    tiny_policy: Path, tiny_demonstrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**40, 2**40))

    def train(out: Path) -> dict[str, float]:
        out.mkdir()
        config = SftConfig(batch_size=64, epochs=1)
        return sft(config, out, policy=tiny_policy, demonstrations=tiny_demonstrations)

    with pytest.raises(ValueError, match=r"8 GPUs are visible, and the batch would be 8 times the 64 rows.*gpus: 1"):
        train(tmp_path / "gpus")
    promise_gpu(False)
    assert train(tmp_path / "cpu")["sft_steps"] == 1


def test_a_model_that_does_not_fit_is_not_even_loaded_and_the_error_says_so(
    tiny_policy: Path, tiny_golden: Path, tiny_demonstrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**20, 2**36))
    for folder, auto in ((tiny_policy, AutoModelForCausalLM), (tiny_golden, AutoModelForSequenceClassification)):
        source = models.locate(folder)
        tokenizer = models.load_tokenizer(source)
        with monkeypatch.context() as patch:
            patch.setattr(auto, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
            with pytest.raises(NoRoomError, match=r"model: needs \d+ MiB on the GPU.*1 MiB are free of the 64\.0 GiB"):
                models.load_model(source, auto, tokenizer)
        promise_gpu(False)
        model = models.load_model(source, auto, tokenizer)
        promise_gpu(None)
        found = models.weight_bytes(source, auto, "bfloat16", num_labels=1)
        assert found == 2 * sum(weight.numel() for weight in model.parameters())
    # The weights would fit, but not with their gradients and the two moments of Adam.
    size = models.weight_bytes(models.locate(tiny_policy), AutoModelForCausalLM, "float32")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**29 + 2 * size, 2**36))
    with pytest.raises(NoRoomError, match=r"training .*model: needs"):
        sft(SftConfig(), tmp_path, policy=tiny_policy, demonstrations=tiny_demonstrations)

"""Which device a step computes on: what it was promised, whatever the process can see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from workers.device import NoGpuError, device, promise_gpu
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

    def train(out: Path) -> dict[str, float]:
        out.mkdir()
        config = SftConfig(batch_size=64, epochs=1)
        return sft(config, out, policy=tiny_policy, demonstrations=tiny_demonstrations)

    with pytest.raises(ValueError, match=r"8 GPUs are visible, and the batch would be 8 times the 64 rows.*gpus: 1"):
        train(tmp_path / "gpus")
    promise_gpu(False)
    assert train(tmp_path / "cpu")["sft_steps"] == 1

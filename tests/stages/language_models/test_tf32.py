"""`dtype: tf32`: float32 weights whose products a GPU rounds, where there is such a GPU, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from workers import precision
from workers.config import Config
from workers.language_models import models
from workers.language_models.configs import EmbedConfig, GenerateConfig
from workers.language_models.embed import embed
from workers.rewards.configs import MarginsConfig, ScalarVerdictsConfig, ScoreConfig
from workers.rewards.margins import margins
from workers.rewards.scalar_model import Float32Linear
from workers.rewards.scalar_verdicts import scalar_verdicts
from workers.rewards.score import score

pytestmark = pytest.mark.train

SWITCH = torch.backends.cuda.matmul
READING = (EmbedConfig, ScoreConfig, MarginsConfig, ScalarVerdictsConfig)


@pytest.mark.parametrize("stage", ["embed", "score", "margins", "scalar_verdicts"])
def test_a_cpu_has_no_tf32_and_computes_nothing_in_its_place(
    stage: str, tiny_golden: Path, tiny_responses: Path, tiny_preferences: Path, tmp_path: Path
) -> None:
    runs: dict[str, Callable[[], object]] = {
        "embed": lambda: embed(EmbedConfig(dtype="tf32"), tmp_path, responses=tiny_responses, policy=tiny_golden),
        "score": lambda: score(ScoreConfig(dtype="tf32"), tmp_path, golden=tiny_golden, responses=tiny_responses),
        "margins": lambda: margins(
            MarginsConfig(dtype="tf32"), tmp_path, golden=tiny_golden, preferences=tiny_preferences
        ),
        "scalar_verdicts": lambda: scalar_verdicts(
            ScalarVerdictsConfig(dtype="tf32"), tmp_path, scalar=tiny_golden, preferences=tiny_preferences
        ),
    }
    with pytest.raises(ValueError, match=r"dtype: tf32, but the step computes on a CPU.*choose dtype: float32"):
        runs[stage]()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["float32", "tf32"])
def test_products_are_rounded_in_every_pass_of_a_tf32_step_but_not_in_the_head_and_not_afterwards(
    dtype: str, tiny_golden: Path, tiny_responses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On this machine torch's switch changes no number, but it is the one that GPUs obey."""
    monkeypatch.setattr(precision, "require", lambda dtype: None)
    before, seen, of_heads = SWITCH.fp32_precision, set(), set()
    embedding, head = torch.nn.Embedding.forward, torch.nn.functional.linear

    def in_pass(self: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        seen.add(SWITCH.fp32_precision)
        return embedding(self, ids)

    def in_head(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if len(weight) == 1:
            of_heads.add(SWITCH.fp32_precision)
        return head(hidden, weight, bias)

    monkeypatch.setattr(torch.nn.Embedding, "forward", in_pass)
    monkeypatch.setattr(torch.nn.functional, "linear", in_head)
    score(ScoreConfig.model_validate({"dtype": dtype}), tmp_path, golden=tiny_golden, responses=tiny_responses)
    embed(EmbedConfig.model_validate({"dtype": dtype}), tmp_path, responses=tiny_responses, policy=tiny_golden)
    assert seen == {"tf32" if dtype == "tf32" else "ieee"}
    assert of_heads == {"ieee"}
    assert SWITCH.fp32_precision == before


def test_the_head_is_not_rounded_where_the_whole_classifier_is_one_pass() -> None:
    layer = torch.nn.Linear(4, 1)
    layer.__class__ = Float32Linear
    seen = []
    layer.register_forward_pre_hook(lambda *_: seen.append(SWITCH.fp32_precision))
    linear = torch.nn.functional.linear

    def looking(*given: torch.Tensor) -> torch.Tensor:
        seen.append(SWITCH.fp32_precision)
        return linear(*given)

    with precision.matmul_precision("tf32"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "linear", looking)
        layer(torch.ones(2, 4))
    assert seen == ["tf32", "ieee"]


@pytest.mark.parametrize("config", READING)
def test_tf32_is_another_key_and_float32_has_the_key_that_it_always_had(config: type[Config]) -> None:
    default, rounded = config().identity(), config.model_validate({"dtype": "tf32"}).identity()
    assert default["dtype"] == "float32"
    assert rounded == default | {"dtype": "tf32"}


def test_weights_are_float32_and_training_and_sampling_have_no_tf32(tiny_policy: Path) -> None:
    source = models.locate(tiny_policy)
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModelForCausalLM, tokenizer, dtype="tf32")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert models.weight_bytes(source, AutoModelForCausalLM, "tf32") == 4 * sum(
        weight.numel() for weight in model.parameters()
    )
    with pytest.raises(ValueError, match="'float32', 'bfloat16' or 'float16'"):
        GenerateConfig.model_validate({"split": "train", "responses": 1, "dtype": "tf32"})

"""The arithmetic of `docs/cost.md` is that of `full.yaml` and of its models' shapes."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.train

PAGE = Path(__file__).parents[2] / "docs" / "cost.md"


def test_the_tables_of_the_page_are_what_plan_and_shapes_give() -> None:
    from cost_of_full import RELEASED, lines

    page = PAGE.read_text(encoding="utf-8")
    assert "\n".join(lines()) in page
    assert "\n".join(lines(RELEASED)) in page


def test_all_of_it_takes_less_than_sixty_gpu_hours_and_in_the_released_precision_it_does_not() -> None:
    from cost_of_full import RELEASED, costs

    assert sum(each.hours for each in costs()) < 60 < sum(each.hours for each in costs(RELEASED))
    assert all(each.least < each.hours for each in costs() + costs(RELEASED))


def test_the_released_precision_is_the_only_difference() -> None:
    from cost_of_full import RELEASED, costs

    assert [each.work for each in costs()] == [each.work for each in costs(RELEASED)]
    changed = [b for a, b in zip(costs(), costs(RELEASED), strict=True) if a != b]
    assert [each.stage for each in changed] == ["embed, float32"]


def test_responses_are_those_of_the_paper() -> None:
    from cost_of_full import PROMPTS, responses

    each = {"train": 10, "test": 500}
    assert 6 * sum(responses(split, dataset, each[split]) for split in each for dataset in PROMPTS[split]) == 18_778_320


def test_weights_are_as_many_as_are_published() -> None:
    """Model cards: 2.51, 8.54, 8.03 and 0.774 billion."""
    from cost_of_full import GPT2_LARGE, POLICIES
    from model_flops import all_weights

    counted = {name: all_weights(config) for name, config in POLICIES.items()}
    assert counted == {"gemma-2b": 2_506_172_416, "gemma-7b": 8_537_680_896, "llama3-8b": 8_030_261_248}
    assert all_weights(GPT2_LARGE) == 774_030_080


def test_operations_are_those_that_torch_counts() -> None:
    """A model with several key heads less, a text of one token: attention is then next to nothing."""
    import torch
    from model_flops import forward_flops
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        num_hidden_layers=2, hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=100,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.ones(3, 16, dtype=torch.int64))
    # An eager pass computes all pairs of tokens, and the formula half of them; norms are not products.
    norms = 2 * 2 * 2 * 64
    whole = forward_flops(config, 2 * 16, logits=True) - norms
    assert counter.get_total_flops() == pytest.approx(3 * 16 * whole, rel=0.01)

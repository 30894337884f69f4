"""Tokens drawn from a nucleus: sorting the likeliest only gives the tokens that sorting all gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workers.language_models import nucleus
from workers.language_models.nucleus import draw

pytestmark = pytest.mark.train


def drawn_by_sorting_all(share: torch.Tensor, uniforms: torch.Tensor, top_p: float) -> list[int]:
    """As published, a row at a time in numpy."""
    tokens = []
    for row, uniform in zip(share.numpy(), uniforms[:, 0].numpy(), strict=True):
        order = np.argsort(-row, kind="stable")
        total = np.cumsum(row[order], dtype=np.float32)
        last = int(np.searchsorted(np.float32(top_p) <= total, True)) if (total >= np.float32(top_p)).any() else -1
        last = len(row) - 1 if last < 0 else last
        tokens.append(int(order[min(int(np.searchsorted(total, uniform * total[last], side="right")), last)]))
    return tokens


@pytest.mark.parametrize("top_p", [0.1, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0, 1000.0])
def test_the_token_is_that_of_sorting_all(temperature: float, top_p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(40, 3000, generator=draws)
    # Many equal ones, as of bfloat16.
    logits[20:] = logits[20:].bfloat16().float().round()
    share = torch.softmax(logits / temperature, -1)
    uniforms = torch.rand(40, 1, generator=draws)
    uniforms[0], uniforms[1] = 0.0, float(np.nextafter(np.float32(1), np.float32(0)))
    found = draw(share, uniforms, top_p)
    monkeypatch.setattr(nucleus, "_HEAD", 3000)
    assert torch.equal(found, draw(share, uniforms, top_p))
    if top_p < 1:
        literal = drawn_by_sorting_all(share, uniforms, top_p)
        assert np.mean(np.array(literal) == found[:, 0].numpy()) > 0.95


def test_equal_tokens_at_the_edge_of_what_is_sorted_are_not_left_out() -> None:
    """Of 3,000 tokens of one share the nucleus is the first 300, and no head of 1,024 can tell which those are."""
    share = torch.full((2, 3000), 1 / 3000)
    found = draw(share, torch.tensor([[0.0], [0.999999]]), 0.1)
    assert found[0].item() == 0
    assert 295 <= found[1].item() <= 300

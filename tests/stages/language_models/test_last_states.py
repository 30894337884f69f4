"""Texts of one prompt read it once, and have the states and rewards that each has by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from workers.language_models import last_states as module
from workers.language_models import models
from workers.language_models.batches import Passes
from workers.language_models.last_states import is_shareable, last_states

pytestmark = pytest.mark.train

_SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_GROUPED = _SIZES | {"num_key_value_heads": 1}
CONFIGS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**_GROUPED),
    "gemma": lambda: transformers.GemmaConfig(**_GROUPED, head_dim=8),
    "qwen2": lambda: transformers.Qwen2Config(**_GROUPED),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=34, bos_token_id=1, eos_token_id=2
    ),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=60, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=16
    ),
    "neox": lambda: transformers.GPTNeoXConfig(**_SIZES),
    # Their layers forget: wide enough for these texts, and too narrow.
    "mistral": lambda: transformers.MistralConfig(**_GROUPED, sliding_window=64),
    "mistral, narrow": lambda: transformers.MistralConfig(**_GROUPED, sliding_window=8),
    "gemma2": lambda: transformers.Gemma2Config(**_GROUPED, head_dim=8, sliding_window=64),
    "gemma2, narrow": lambda: transformers.Gemma2Config(**_GROUPED, head_dim=8, sliding_window=8),
    "bert": lambda: transformers.BertConfig(**_SIZES, pad_token_id=0),
}


def texts() -> tuple[list[list[int]], list[str]]:
    """Texts of four prompts: one of them has a single text, one text is its prompt, and one begins otherwise."""
    draw = np.random.default_rng(0)
    rows, groups = [], []
    for name, length, count in (("a", 20, 5), ("b", 12, 3), ("c", 30, 1), ("d", 2, 4)):
        prompt = draw.integers(3, 60, length).tolist()
        for _ in range(count):
            rows.append(prompt + draw.integers(3, 60, int(draw.integers(1, 4))).tolist())
            groups.append(name)
    rows[1] = rows[0][:20]
    rows[7] = rows[7][1:]
    return rows, groups


def model_of(name: str, auto: Any = AutoModel, **more: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config = CONFIGS[name]()
    config.update(more)
    model: PreTrainedModel = auto.from_config(config)
    return model.eval()


def count_tokens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens, padding included, of all passes from now on."""
    passed: list[int] = []
    pad = module.pad

    def counted(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = pad(*arguments)
        passed.append(ids.numel())
        return ids, mask

    monkeypatch.setattr(module, "pad", counted)
    return passed


@pytest.mark.parametrize("sequences", [1, 4, 64])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_state_is_that_of_the_text_alone(name: str, sequences: int) -> None:
    model, (rows, groups) = model_of(name), texts()
    found = np.full((len(rows), 16), np.nan)
    for chosen, states in last_states(model, rows, groups, 0, Passes(sequences * 34)):
        assert np.isnan(found[chosen]).all()
        found[chosen] = states.numpy()
    with torch.inference_mode():
        alone = [model(input_ids=torch.tensor([row])).last_hidden_state[0, -1].numpy() for row in rows]
    np.testing.assert_allclose(found, alone, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_a_prompt_costs_is_paid_once_by_models_of_which_tokens_see_only_those_before(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(name)
    prompt = list(range(3, 23))
    rows = [[*prompt, token] for token in range(30, 50)]
    passed = count_tokens(monkeypatch)
    list(last_states(model, rows, ["a"] * 20, 0, Passes(64 * 34)))
    shared = name != "bert" and "narrow" not in name
    assert passed == ([20, 20] if shared else [420])
    assert is_shareable(model) is (name != "bert")
    # Without anything in common there is one pass.
    passed.clear()
    list(last_states(model, rows, range(20), 0, Passes(64 * 34)))
    assert passed == [420]


def test_the_ends_of_several_prompts_are_read_together_by_their_length(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")
    prompts = [list(range(3, 23)), list(range(23, 43))]
    rows = [prompt + [token] * length for prompt in prompts for token in range(43, 48) for length in (10, 1)]
    passed = count_tokens(monkeypatch)
    # Half of the room is for prompts: both fit. In the other half are 5 rows of 20 + 10 tokens, or 7 of 20 + 1.
    list(last_states(model, rows, ["a"] * 10 + ["b"] * 10, 0, Passes(2 * 5 * 30)))
    assert passed == [2 * 20, 5 * 10, 5 * 10, 7, 3]


def test_where_memory_runs_out_behind_many_prompts_fewer_are_held(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_of("llama")
    rows = [[first] * 8 + [second, third] for first in range(3, 11) for second in (20, 21) for third in (30, 31)]
    groups = [row[0] for row in rows]
    whole = dict(_by_row(last_states(model, rows, groups, 0, Passes(4096))))
    held: list[int] = []
    repeated = module.Beginnings.repeated

    def limited(self: module.Beginnings, of_row: Any) -> Any:
        held.append(len(self.mask))
        if len(self.mask) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return repeated(self, of_row)

    monkeypatch.setattr(module.Beginnings, "repeated", limited)
    found = dict(_by_row(last_states(model, rows, groups, 0, Passes(4096))))
    assert sorted(found) == list(range(len(rows)))
    assert max(held) == 8
    assert held[-1] == 2
    assert "8 sequences do not fit into memory: on with 4" in capsys.readouterr().out
    for row, state in whole.items():
        np.testing.assert_allclose(found[row], state, atol=2e-5, rtol=2e-5)


def _by_row(passed: Any) -> Any:
    for chosen, states in passed:
        yield from zip(chosen.tolist(), states.numpy(), strict=True)


@pytest.mark.parametrize("name", ["llama", "gemma", "gpt2", "qwen2"])
def test_a_reward_is_that_of_the_classifier_itself_also_behind_pad_tokens(name: str) -> None:
    from workers.rewards.scalar_model import ScalarModel

    model = model_of(name, AutoModelForSequenceClassification, num_labels=1, pad_token_id=0)
    rows, groups = texts()
    rows[2] = [*rows[2], 0, 0]
    tokenizer: Any = type("Tokenizer", (), {"pad_token_id": 0})
    found = ScalarModel(tokenizer, model).rewards(rows, groups, Passes(64 * 34))
    with torch.inference_mode():
        alone = [float(model(input_ids=torch.tensor([row])).logits) for row in rows]
    np.testing.assert_allclose(found, alone, atol=2e-5, rtol=2e-5)


def test_a_text_without_a_token_is_named() -> None:
    with pytest.raises(ValueError, match="text 2 of 2 has no token"):
        list(last_states(model_of("llama"), [[3], []], ["a", "a"], 0, Passes(4)))


def test_attention_is_torchs_own_where_the_architecture_has_it(tiny_policy: Path) -> None:
    source = models.locate(tiny_policy)
    model = models.load_model(source, AutoModel, models.load_tokenizer(source))
    assert model.config._attn_implementation == "sdpa"
    found = {name: model_of(name).config._attn_implementation for name in CONFIGS}
    # The scores of Gemma 2 are capped, which torch's function cannot do.
    assert {name for name, attention in found.items() if attention != "sdpa"} == {"gemma2", "gemma2, narrow"}

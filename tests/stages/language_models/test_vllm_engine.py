"""The vLLM engine, where vLLM is installed; elsewhere, the error that names what to install."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import psutil
import pytest
import torch

from workers import model_cache
from workers.language_models import adapters, models
from workers.language_models.sampling import sample
from workers.language_models.sampling_settings import Sampling, Stream

pytestmark = pytest.mark.train

HERE = importlib.util.find_spec("vllm") is not None
PROMPTS = [f"\n\nHuman: How do I mend {thing}?\n\nAssistant:" for thing in ("a boat", "it", "the old door")] * 4
STREAMS = [Stream(f"text {i}", f"prompt {i}", 0) for i in range(len(PROMPTS))]


@pytest.mark.skipif(HERE, reason="vLLM is installed here")
def test_without_vllm_the_error_says_what_to_install(tiny_policy: Path) -> None:
    how = Sampling(1.0, 1.0, 4, 64, seed=0, engine="vllm")
    with pytest.raises(ImportError, match=r"engine: vllm.*runtime\.<entry>\.python.*engine: transformers"):
        sample(models.locate(tiny_policy), PROMPTS, STREAMS, how, "texts", 64)


needs_vllm = pytest.mark.skipif(not HERE, reason="vLLM is not installed here; it wants an environment of its own")


@pytest.fixture
def source(vllm_policy: Path) -> models.Source:
    return models.locate(vllm_policy)


@needs_vllm
def test_with_vllm_the_seed_fixes_the_text_and_greedy_texts_are_those_of_transformers(source: models.Source) -> None:
    def texts(engine: str, count: int, **settings: float) -> list[str]:
        options = {"temperature": 1.2, "top_p": 0.95, "repetition_penalty": 1.2} | settings
        how = Sampling(max_new_tokens=16, max_prompt_tokens=64, seed=0, engine=engine, **options)  # type: ignore[arg-type]
        return sample(source, PROMPTS[:count], STREAMS[:count], how, "texts", 64)[0]

    drawn = texts("vllm", 12)
    assert len(set(drawn)) > 6
    assert texts("vllm", 12) == drawn
    assert texts("vllm", 5) == drawn[:5]
    # 48 prompts of 200 tokens are more than vLLM reads at once.
    long = [f"{prompt * 20}{i}" for i, prompt in enumerate(PROMPTS * 4)]
    how = Sampling(1.0, 0.9, max_new_tokens=4, max_prompt_tokens=200, seed=0, engine="vllm")
    assert len(sample(source, long, STREAMS * 4, how, "texts", 64)[0]) == 48
    assert texts("vllm", 12, temperature=0.0) == texts("transformers", 12, temperature=0.0)


@needs_vllm
def test_samples_of_a_prompt_are_the_same_however_many_are_asked_for_at_once(source: models.Source) -> None:
    streams = [Stream(f"{name}/{i}", name, i) for name in ("a", "b") for i in range(6)]
    prompts = [PROMPTS[0]] * 6 + [PROMPTS[1]] * 6

    def texts(first: int, last: int, **settings: float) -> list[str]:
        options = {"temperature": 1.2, "top_p": 0.95} | settings
        how = Sampling(max_new_tokens=16, max_prompt_tokens=64, seed=0, engine="vllm", **options)  # type: ignore[arg-type]
        return sample(source, prompts[first:last], streams[first:last], how, "texts", 64)[0]

    whole = texts(0, 12)
    assert len(set(whole)) > 8
    assert texts(0, 2) + texts(2, 9) + texts(9, 12) == whole
    greedy = texts(0, 12, temperature=0.0)
    assert (len(set(greedy[:6])), len(set(greedy[6:]))) == (1, 1)


def adapted(
    base: models.Source, folder: Path, rank: int, whole: dict[str, torch.Tensor] | None = None
) -> models.Source:
    """The policy with an adapter of random numbers that change its texts."""
    folder.mkdir()
    torch.manual_seed(rank)
    layers = {
        f"model.layers.0.self_attn.{part}_proj": adapters.Factors(torch.randn(rank, 64), torch.randn(64, rank), 0.5)
        for part in "qv"
    }
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank / 2, "bias": "none"}
    settings |= {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["lm_head"] if whole else None}
    made = adapters.Adapter("random", layers, whole or {}, settings)
    models.save_adapter(made, models.load_tokenizer(base), base, "float32", folder)
    return models.locate(folder)


def greedy(source: models.Source, engine: str) -> list[str]:
    how = Sampling(0.0, 1.0, max_new_tokens=16, max_prompt_tokens=64, seed=0, engine=engine)  # type: ignore[arg-type]
    return sample(source, PROMPTS[:3], STREAMS[:3], how, "texts", 64)[0]


@needs_vllm
def test_one_engine_serves_a_base_and_its_adapters_with_the_texts_of_transformers(
    source: models.Source, tmp_path: Path
) -> None:
    small, other = adapted(source, tmp_path / "small", 4), adapted(source, tmp_path / "other", 8)
    # Two on each other, of rank 12.
    folder = tmp_path / "both"
    folder.mkdir()
    models.save_adapter(adapters.read(small.adapter), models.load_tokenizer(small), other, "float32", folder)
    both = models.locate(folder)
    expected = [greedy(each, "transformers") for each in (source, small, other, both)]
    assert len(set(map(tuple, expected))) == 4
    assert greedy(source, "vllm") == expected[0]
    assert greedy(small, "vllm") == expected[1]
    engine = model_cache.kept()
    order = (0, 1, 2, 0, 2, 1)
    served = [greedy((source, small, other)[which], "vllm") for which in order]
    assert served == [expected[which] for which in order]
    assert model_cache.kept() is engine
    # The greater rank wants another engine, which serves the others as well.
    assert greedy(both, "vllm") == expected[3]
    assert model_cache.kept() is not engine
    engine = model_cache.kept()
    assert [greedy(each, "vllm") for each in (source, small, other)] == expected[:3]
    assert model_cache.kept() is engine


@needs_vllm
def test_an_adapter_that_would_end_the_engine_is_refused_before_it_is_asked(
    source: models.Source, tiny_demonstrations: Path, tmp_path: Path
) -> None:
    expected = greedy(source, "vllm")
    fit = adapted(source, tmp_path / "fit", 4)
    greedy(fit, "vllm")
    engine = model_cache.kept()
    gone = adapted(source, tmp_path / "gone", 4)
    (tmp_path / "gone" / "adapter" / adapters.WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/gone/adapter' lacks {adapters.WEIGHTS}"):
        greedy(gone, "vllm")
    with pytest.raises(ValueError, match=r"adapters up to rank 512, this has 513.*merged: true"):
        greedy(adapted(source, tmp_path / "large", 513), "vllm")
    head = {"lm_head.weight": torch.zeros(400, 64)}
    with pytest.raises(ValueError, match=r"no adapter with modules trained whole \(lm_head.weight\).*transformers"):
        greedy(adapted(source, tmp_path / "head", 4, head), "vllm")
    odd = adapters.read(fit.adapter)
    factors = next(iter(odd.layers.values()))
    odd = adapters.Adapter("odd", {"model.layers.7.self_attn.q_proj": factors}, {}, odd.settings)
    (tmp_path / "odd").mkdir()
    models.save_adapter(odd, models.load_tokenizer(source), source, "float32", tmp_path / "odd")
    with pytest.raises(ValueError, match=r"belongs to another model: it changes model.layers.7.self_attn.q_proj"):
        greedy(models.locate(tmp_path / "odd"), "vllm")
    assert greedy(source, "vllm") == expected
    assert model_cache.kept() is engine


@needs_vllm
def test_an_engine_is_gone_with_all_its_processes_before_another_model_is_loaded(source: models.Source) -> None:
    how = Sampling(1.0, 0.9, max_new_tokens=4, max_prompt_tokens=64, seed=0, engine="vllm")
    sample(source, PROMPTS, STREAMS, how, "texts", 64)
    before = psutil.Process().children(recursive=True)
    assert any(each.memory_info().rss > 100e6 for each in before)
    model_cache.drop()
    left = [each for each in psutil.Process().children(recursive=True) if each.memory_info().rss > 100e6]
    assert not left

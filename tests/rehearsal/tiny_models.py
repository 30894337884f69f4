"""Tiny random models of the architectures that `sweeps/full.yaml` names, with tokenizers that behave like theirs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

#: Size of each vocabulary: the bytes, some hundred merges, and the special tokens.
VOCABULARY = 512
#: Standard deviation of the weights: golden rewards of different texts differ by about one.
SPREAD = 0.3


class Kind(NamedTuple):
    """What makes a model one of its family: architecture, ratio of heads, special tokens.

    The ids of the special tokens are their positions among (bos, eos, pad), each counted once.
    """

    model: type[PreTrainedModel]
    sizes: PretrainedConfig
    bos: str
    eos: str
    pad: str | None
    begins: bool
    """Whether texts begin with `bos`."""


def _gemma(model: type[PreTrainedModel], kv_heads: int) -> Kind:
    sizes = transformers.GemmaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=kv_heads, head_dim=8, max_position_embeddings=1024, initializer_range=SPREAD, num_labels=1,
        bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    return Kind(model, sizes, "<bos>", "<eos>", "<pad>", True)


def kinds() -> dict[str, Kind]:
    """The models of `full.yaml` by their names on the Hub; the last two are the golden reward models."""
    llama = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, initializer_range=SPREAD,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    gpt2 = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=1024, initializer_range=SPREAD,
        num_labels=1, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    end = "<|endoftext|>"
    return {
        # All heads of gemma-2b share one key and value; those of gemma-7b do not.
        "google/gemma-2b": _gemma(transformers.GemmaForCausalLM, 1),
        "google/gemma-7b": _gemma(transformers.GemmaForCausalLM, 2),
        # Neither Llama 3 nor GPT-2 has a pad token.
        "meta-llama/Meta-Llama-3-8B": Kind(
            transformers.LlamaForCausalLM, llama, "<|begin_of_text|>", "<|end_of_text|>", None, True
        ),
        "Ray2333/gpt2-large-harmless-reward_model": Kind(
            transformers.GPT2ForSequenceClassification, gpt2, end, end, None, False
        ),
        "weqweasdas/RM-Gemma-7B": _gemma(transformers.GemmaForSequenceClassification, 2),
    }


def make(folder: Path, texts: Iterable[str]) -> dict[str, Path]:
    """Write every model to a folder of its own; the same bytes every time.

    Args:
        folder: receives the folders.
        texts: what the tokenizers are trained on.

    Returns:
        Name on the Hub -> folder.
    """
    transformers.utils.logging.disable_progress_bar()
    texts = list(texts)
    places = {}
    for number, (name, kind) in enumerate(kinds().items()):
        place = places[name] = folder / name.replace("/", "--")
        tokenizer = _tokenizer(texts, kind)
        torch.manual_seed(number)
        kind.model(kind.sizes).save_pretrained(place)
        tokenizer.save_pretrained(place)
    return places


def _tokenizer(texts: list[str], kind: Kind) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = [each for each in dict.fromkeys((kind.bos, kind.eos, kind.pad)) if each]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    if kind.begins:
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{kind.bos} $A", special_tokens=[(kind.bos, bpe.token_to_id(kind.bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=kind.bos, eos_token=kind.eos, pad_token=kind.pad, model_max_length=1024
    )

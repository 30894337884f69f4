"""Stage `policy`: the language model that a sweep starts from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers import models as tokenizer_models
from tokenizers import trainers as tokenizer_trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from workers.device import device
from workers.language_models import models
from workers.language_models.batches import pad, tokenise
from workers.language_models.configs import PolicyConfig, TinyLlama, TinyModel
from workers.progress import Progress
from workers.seeding import derive_seed, generator
from workers.tables import DEMONSTRATIONS

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
#: A byte-level vocabulary holds every byte and the three special tokens at least.
SMALLEST_VOCABULARY = 256 + 3


def policy(config: PolicyConfig, out: Path, *, demonstrations: Path | None = None) -> dict[str, float]:
    """Refer to a published or local model, or make a small Llama from the demonstrations.

    The small Llama (`{tiny: …}`) has a byte-level BPE tokenizer trained on the demonstrations and seeded random
    weights, then `steps` AdamW steps (betas 0.9 and 0.999, weight decay 0.01, gradient norm clipped at 1) of plain
    language modelling on prompt + response; texts longer than its context lose their beginning.

    Args:
        config: which model.
        out: receives `model/` or `reference.json`.
        demonstrations: text for the small Llama; not read otherwise.

    Raises:
        ValueError: a tiny model without demonstrations, or with sizes that cannot be built.
        FileNotFoundError: `{path: …}` is not there.
    """
    if not isinstance(config.model, TinyModel):
        models.write_reference(config.model, out)
        return {}
    if demonstrations is None:
        raise ValueError("a tiny policy is made from text: give the policy stage a `demonstrations` input")
    tiny = config.model.tiny
    if tiny.hidden % (2 * tiny.heads):
        raise ValueError(f"tiny policy: hidden ({tiny.hidden}) must be a multiple of twice the heads ({tiny.heads})")
    if tiny.vocabulary < SMALLEST_VOCABULARY:
        raise ValueError(f"tiny policy: vocabulary ({tiny.vocabulary}) must be at least {SMALLEST_VOCABULARY}")
    table = DEMONSTRATIONS.read(demonstrations)
    columns = (table.column(name).to_pylist() for name in ("prompt", "response"))
    texts = [prompt + response for prompt, response in zip(*columns, strict=True)]
    if not texts:
        raise ValueError(f"{demonstrations}: no demonstrations to make a tiny policy from")
    tokenizer = _tokenizer(texts, tiny)
    model = _random_llama(tokenizer, tiny)
    rows = [[*ids, tokenizer.eos_token_id] for ids in tokenise(tokenizer, texts, tiny.context - 1)]
    _train(model, rows, tiny)
    models.save_model(model, tokenizer, out)
    return {}


def _tokenizer(texts: list[str], tiny: TinyLlama) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(tokenizer_models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = tokenizer_trainers.BpeTrainer(
        vocab_size=tiny.vocabulary,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, bpe.token_to_id(BOS))])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BOS, eos_token=EOS, pad_token=PAD, model_max_length=tiny.context
    )


def _random_llama(tokenizer: PreTrainedTokenizerFast, tiny: TinyLlama) -> LlamaForCausalLM:
    torch.manual_seed(derive_seed(tiny.seed, "policy/weights"))
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=tiny.hidden,
            # SwiGLU at two thirds of four times the width: LLaMA (arXiv 2302.13971), section 2.2.
            intermediate_size=8 * tiny.hidden // 3,
            num_hidden_layers=tiny.layers,
            num_attention_heads=tiny.heads,
            num_key_value_heads=tiny.heads,
            max_position_embeddings=tiny.context,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _train(model: LlamaForCausalLM, rows: list[list[int]], tiny: TinyLlama) -> None:
    where = device()
    model.to(where).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=tiny.learning_rate)
    order = _batches(len(rows), tiny)
    progress = Progress("optimizer steps", tiny.steps)
    for step in range(tiny.steps):
        # No attention mask: attention is causal and the padding is on the right, so no real token sees it.
        ids, mask = pad([rows[i] for i in next(order)], pad_id=0, side="right")
        labels = ids.masked_fill(mask == 0, -100)
        loss = model(input_ids=ids.to(where), labels=labels.to(where), use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 20 == 0 or step == tiny.steps - 1:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
        progress.show(step + 1)
    model.to("cpu").eval()


def _batches(rows: int, tiny: TinyLlama) -> Iterator[np.ndarray]:
    """Yield batches of row numbers without end: shuffled passes over the rows, incomplete batches left out."""
    draws = generator(tiny.seed, "policy/batches")
    size = min(tiny.batch_size, rows)
    while True:
        order = draws.permutation(rows)
        for start in range(0, rows - size + 1, size):
            yield order[start : start + size]

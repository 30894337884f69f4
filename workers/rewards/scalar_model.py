"""Scalar reward models: sequence classifiers with one label, whose head computes in float32.

A reward in bfloat16 has 8 significant bits: two answers with rewards near 5 differ by 1/32 or are a tie.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from workers.config import ReadingDtype
from workers.device import device
from workers.language_models import models
from workers.language_models.batches import Passes, in_batches
from workers.language_models.last_states import is_shareable, last_states
from workers.model_cache import cached_model
from workers.precision import matmul_precision

#: Names of the head in transformers: `score` of causal language models, `classifier` of encoders.
HEADS = ("score", "classifier")


class Float32Linear(torch.nn.Linear):
    """A linear layer that computes in float32 whatever the type of its input, also under autocast and beside tf32."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map (…, in_features) of any type to (…, out_features) in float32."""
        with torch.autocast(hidden.device.type, enabled=False), matmul_precision("float32"):
            return torch.nn.functional.linear(hidden.float(), self.weight, self.bias)


@dataclass(frozen=True)
class ScalarModel:
    """A scalar reward model and its tokenizer."""

    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    """On `device()`."""

    def rewards(self, rows: Sequence[Sequence[int]], groups: Sequence[Hashable], passes: Passes) -> NDArray[np.float32]:
        """Return the reward (rows,) of each row of token ids, in their order.

        As transformers does, it is read at the last token that is not the pad token.

        Args:
            rows: token ids.
            groups: rows of the same group probably begin with the same tokens, which are then read once.
            passes: how many rows at once.
        """
        rewards = np.empty(len(rows), dtype=np.float32)
        pad_id = self.tokenizer.pad_token_id
        body, head = self.model.base_model, getattr(self.model, HEADS[0], None)
        if head is not None and is_shareable(body):
            for chosen, states in last_states(body, [_until_pad(row, pad_id) for row in rows], groups, pad_id, passes):
                with torch.inference_mode():
                    rewards[chosen] = head(states)[:, 0].float().cpu().numpy()
            return rewards

        @torch.inference_mode()
        def forward(ids: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
            # Padding is on the right because the classifiers derive no positions from the attention mask.
            logits = self.model(input_ids=ids, attention_mask=mask).logits
            return np.asarray(logits[:, 0].float().cpu().numpy())

        for chosen, found in in_batches(rows, pad_id, passes, forward):
            rewards[chosen] = found
        return rewards


def _until_pad(row: Sequence[int], pad_id: int) -> Sequence[int]:
    """Return a row without pad tokens at its end: many tokenizers pad with the token that ends a text."""
    return row[: next((end for end in range(len(row), 0, -1) if row[end - 1] != pad_id), 1)]


def load_scalar_model(golden: Path, dtype: ReadingDtype) -> ScalarModel:
    """Load the model of a `golden` artifact for scoring, or return it if this process loaded it last.

    Raises:
        FileNotFoundError, ValueError: as `load_classifier`.
    """
    source = models.locate(golden)

    def load() -> ScalarModel:
        tokenizer = models.load_tokenizer(source)
        return ScalarModel(tokenizer, load_classifier(source, tokenizer, dtype).to(device()))

    return cached_model(("scalar", source.state(), models.weight_type(dtype)), load)


def load_classifier(
    source: models.Source, tokenizer: PreTrainedTokenizerBase, dtype: ReadingDtype, *, new_head: bool = False
) -> PreTrainedModel:
    """Load a sequence classifier with one label onto the CPU, its head in float32.

    Args:
        source: a classifier, or with `new_head` any language model.
        tokenizer: its tokenizer.
        dtype: of all weights but those of the head.
        new_head: draw the head from torch's global generator where the checkpoint has none.

    Raises:
        FileNotFoundError: the model cannot be read.
        ValueError: it lacks other weights, has more than one label, or a head that cannot be found in order to be kept
            in float32.
    """
    # Encoders have a pooler as well, which the checkpoint of a bare language model may lack.
    new = (*(f"{name}." for name in HEADS), "pooler.") if new_head else ()
    options = {"num_labels": 1} if new_head else {}
    model = models.load_model(source, AutoModelForSequenceClassification, tokenizer, dtype=dtype, new=new, **options)
    if model.config.num_labels != 1:
        raise ValueError(f"{source.name}: a reward model has one label, this has {model.config.num_labels}")
    heads = head_names(model)
    if models.weight_type(dtype) != torch.float32 and not heads:
        raise ValueError(
            f"{source.name}: {type(model).__name__} has no head called {' or '.join(HEADS)}, so it cannot be kept in "
            f"float32 beside dtype {dtype}: use dtype: float32"
        )
    for name in heads:
        head = getattr(model, name).float()
        for layer in head.modules():
            # Not a new module: names and values of the weights stay those of the checkpoint.
            if type(layer) is torch.nn.Linear:
                layer.__class__ = Float32Linear
    return model


def head_names(model: PreTrainedModel) -> list[str]:
    """Return the names of the modules that are the head: one, or none where it is called otherwise."""
    return [name for name in HEADS if hasattr(model, name)]

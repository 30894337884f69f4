"""Scalar reward models: sequence classifiers with one label, whose head computes in float32.

A reward in bfloat16 has 8 significant bits: two answers with rewards near 5 differ by 1/32 or are a tie.
"""

from __future__ import annotations

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from workers.config import Dtype
from workers.device import device
from workers.language_models import models

#: Names of the head in transformers: `score` of causal language models, `classifier` of encoders.
HEADS = ("score", "classifier")


class Float32Linear(torch.nn.Linear):
    """A linear layer that computes in float32 whatever the type of its input, and also under autocast."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(…, in_features) of any type to (…, out_features) in float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            return torch.nn.functional.linear(hidden.float(), self.weight, self.bias)


def load_scalar(
    source: models.Source, tokenizer: PreTrainedTokenizerBase, *, dtype: Dtype, new: tuple[str, ...] = ()
) -> PreTrainedModel:
    """Load a scalar reward model, or make one of a language model if its head may be `new`.

    Raises:
        FileNotFoundError: the model cannot be read.
        ValueError: it lacks weights that are not `new`, has more than one label, or a head that cannot be found in
            order to be kept in float32.
    """
    model = models.load_model(
        source,
        AutoModelForSequenceClassification,
        tokenizer,
        dtype=dtype,
        new=new,
        **({"num_labels": 1} if new else {}),
    )
    if model.config.num_labels != 1:
        raise ValueError(f"{source.name}: a reward model has one label, this has {model.config.num_labels}")
    if dtype != "float32" and not heads(model):
        raise ValueError(
            f"{source.name}: {type(model).__name__} has no head called {' or '.join(HEADS)}, so it cannot be kept in "
            f"float32 beside dtype {dtype}: use dtype: float32"
        )
    for name in heads(model):
        for layer in getattr(model, name).modules():
            # Not a new module: names and values of the weights stay those of the checkpoint.
            if type(layer) is torch.nn.Linear:
                layer.__class__ = Float32Linear
    return head_in_float32(model)


def load_reward_model(source: models.Source, dtype: Dtype) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and model of a scalar reward model that is only asked, on `device()`.

    Raises:
        FileNotFoundError, ValueError: as `load_scalar`.
    """
    tokenizer = models.load_tokenizer(source)
    return tokenizer, load_scalar(source, tokenizer, dtype=dtype).to(device())


def heads(model: PreTrainedModel) -> list[str]:
    """The name of the head, in a list."""
    return [name for name in HEADS if hasattr(model, name)]


def head_in_float32(model: PreTrainedModel) -> PreTrainedModel:
    """The model, the weights of its head in float32."""
    for name in heads(model):
        getattr(model, name).float()
    return model

"""Hidden states at the ends of texts; what several texts begin with is read once for all of them.

Of K responses of R tokens to a prompt of P, reading each with its prompt costs K(P + R) tokens, and reading the prompt
once P + KR. A text's state is the same up to rounding, as with any other batch.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from inspect import signature

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from workers.device import device
from workers.language_models.batches import BatchSize, pad

#: Texts are read in two passes, what they share and the rest, if that has at most this part of the tokens. A pass costs
#: more than its tokens, and a prompt that is shared by two answers of its length saves a quarter.
_WORTH_TWO_PASSES = 0.8


def last_states(
    body: PreTrainedModel, rows: Sequence[Sequence[int]], groups: Sequence[Hashable], pad_id: int, size: BatchSize
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Pass rows of token ids through a model without a head.

    Args:
        body: the model, on `device()`.
        rows: token ids, at least one in each row.
        groups: rows of the same group probably begin with the same tokens.
        pad_id: the pad token.
        size: how many rows at once. The longest come first, so that too little memory shows at once.

    Yields:
        Positions in `rows` (int64), and the hidden states of the last layer at the last tokens of these rows, of shape
        (positions, d), on the device.

    Raises:
        ValueError: a row has no token.
    """
    if empty := [i for i, row in enumerate(rows) if not len(row)]:
        raise ValueError(f"text {empty[0] + 1} of {len(rows)} has no token, so it has no last state")
    longest = longest_shared(body)

    @torch.inference_mode()
    def states(chosen: np.ndarray) -> torch.Tensor:
        batch = [rows[i] for i in chosen]
        beginnings, of_row = _beginnings(batch, [groups[i] for i in chosen])
        ends = [row[len(beginnings[number]) :] for row, number in zip(batch, of_row, strict=True)]
        whole = max(map(len, beginnings)) + max(map(len, ends))
        in_two = len(beginnings) * max(map(len, beginnings)) + len(batch) * max(map(len, ends))
        if whole > longest or in_two > _WORTH_TWO_PASSES * len(batch) * max(map(len, batch)):
            return _read(body, batch, pad_id)
        return _read_ends(body, beginnings, of_row, ends, pad_id)

    yield from size.apply(states, _order(rows, groups))


def is_shareable(body: PreTrainedModel) -> bool:
    """Tell whether what several texts begin with can be read once: each token sees only those before it."""
    return longest_shared(body) > 0


def longest_shared(body: PreTrainedModel) -> float:
    """Return the longest texts, in tokens, that may share what they begin with; 0 if none may.

    A layer with a sliding window forgets the tokens before it, and with them which of them were padding.
    """
    causal = [module.is_causal for module in body.modules() if hasattr(module, "is_causal")]
    takes = signature(body.forward).parameters.keys()
    if not causal or not all(causal) or not {"position_ids", "past_key_values", "use_cache"} <= takes:
        return 0
    layers = DynamicCache(config=body.config).layers
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return 0
    return min((layer.sliding_window - 1 for layer in layers if layer.is_sliding), default=math.inf)


def _order(rows: Sequence[Sequence[int]], groups: Sequence[Hashable]) -> np.ndarray:
    """Return the rows group by group, in each the longest first, and so the groups."""
    members: dict[Hashable, list[int]] = {}
    for i in sorted(range(len(rows)), key=lambda i: -len(rows[i])):
        members.setdefault(groups[i], []).append(i)
    return np.array([i for group in members.values() for i in group], dtype=np.int64)


def _beginnings(batch: Sequence[Sequence[int]], groups: Sequence[Hashable]) -> tuple[list[Sequence[int]], list[int]]:
    """Return what the rows of each group begin with, without the last token of any, and for each row which it is."""
    members: dict[Hashable, list[Sequence[int]]] = {}
    for row, group in zip(batch, groups, strict=True):
        members.setdefault(group, []).append(row)
    numbers = {group: number for number, group in enumerate(members)}
    shared = [_common_beginning([row[:-1] for row in each]) for each in members.values()]
    return shared, [numbers[group] for group in groups]


def _common_beginning(rows: Sequence[Sequence[int]]) -> Sequence[int]:
    """Return what all rows begin with; no two differ earlier than the first and the last in order."""
    low, high = min(rows, key=list), max(rows, key=list)
    return low[: next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))]


def _read(body: PreTrainedModel, batch: Sequence[Sequence[int]], pad_id: int) -> torch.Tensor:
    ids, mask = (each.to(device()) for each in pad(batch, pad_id, "right"))
    hidden: torch.Tensor = body(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden[torch.arange(len(ids), device=ids.device), mask.sum(1) - 1]


def _read_ends(
    body: PreTrainedModel,
    beginnings: Sequence[Sequence[int]],
    of_row: Sequence[int],
    ends: Sequence[Sequence[int]],
    pad_id: int,
) -> torch.Tensor:
    """Read each beginning once, and then the end of each row behind the beginning that it has."""
    cache, before = read_beginnings(body, beginnings, of_row, pad_id)
    ids, mask = (each.to(device()) for each in pad(ends, pad_id, "right"))
    # Padding stands at the last position: those behind it may be more than the model knows.
    positions = before.sum(1, keepdim=True) + mask.cumsum(1) - 1
    hidden: torch.Tensor = body(
        input_ids=ids,
        attention_mask=torch.cat([before, mask], dim=1),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return hidden[torch.arange(len(ids), device=ids.device), mask.sum(1) - 1]


def read_beginnings(
    body: PreTrainedModel, beginnings: Sequence[Sequence[int]], of_row: Sequence[int], pad_id: int
) -> tuple[DynamicCache, torch.Tensor]:
    """Read each beginning once.

    Args:
        body: a model without its head that may share texts of this length (`longest_shared`).
        beginnings: token ids; shorter ones are padded on the left.
        of_row: for each row of a batch, the number of its beginning.
        pad_id: the pad token.

    Returns:
        The cache behind which the rows are read on, and its attention mask, int64 of shape (rows, longest beginning).
    """
    ids, mask = (each.to(device()) for each in pad(beginnings, pad_id, "left"))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = body(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True).past_key_values
    chosen = torch.tensor(of_row, device=ids.device)
    cache.batch_select_indices(chosen)
    return cache, mask[chosen]

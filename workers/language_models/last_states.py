"""Hidden states at the ends of texts; what several texts begin with is read once for all of them.

Of K responses of R tokens to a prompt of P, reading each with its prompt costs K(P + R) tokens, and reading the prompt
once P + KR. A text's state is the same up to rounding, as with any other batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from inspect import signature

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from workers.device import device
from workers.language_models.batches import Passes, longest_first, pad

#: The texts of a group are read in two passes, what they share and the rest, if that has at most this part of the
#: tokens. A pass costs more than its tokens, and a prompt that is shared by two answers of its length saves a quarter.
_WORTH_TWO_PASSES = 0.8


@dataclass(frozen=True)
class _Group:
    """Texts that are read behind what all of them begin with."""

    beginning: Sequence[int]
    rows: Sequence[int]
    """Positions."""


def last_states(
    body: PreTrainedModel, rows: Sequence[Sequence[int]], groups: Sequence[Hashable], pad_id: int, passes: Passes
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Pass rows of token ids through a model without a head.

    Args:
        body: the model, on `device()`.
        rows: token ids, at least one in each row.
        groups: rows of the same group probably begin with the same tokens.
        pad_id: the pad token.
        passes: how many rows at once. The longest come first, so that too little memory shows at once.

    Yields:
        Positions in `rows` (int64), and the hidden states of the last layer at the last tokens of these rows, of shape
        (positions, d), on the device.

    Raises:
        ValueError: a row has no token.
    """
    if empty := [i for i, row in enumerate(rows) if not len(row)]:
        raise ValueError(f"text {empty[0] + 1} of {len(rows)} has no token, so it has no last state")
    shared, alone = _divide(rows, groups, longest_shared(body))
    lengths = [len(row) for row in rows]

    @torch.inference_mode()
    def whole(chosen: np.ndarray) -> torch.Tensor:
        ids, mask = (each.to(device()) for each in pad([rows[i] for i in chosen], pad_id, "right"))
        return _last(body(input_ids=ids, attention_mask=mask).last_hidden_state, mask)

    @torch.inference_mode()
    def behind_beginnings(numbers: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
        chosen = [shared[number] for number in numbers]
        read = read_beginnings(body, [group.beginning for group in chosen], pad_id)
        place = {i: at for at, group in enumerate(chosen) for i in group.rows}
        ends = {i: rows[i][len(chosen[at].beginning) :] for i, at in place.items()}

        def states(batch: np.ndarray) -> torch.Tensor:
            return _read_ends(body, *read.repeated([place[i] for i in batch]), [ends[i] for i in batch], pad_id)

        here = np.array(list(place), dtype=np.int64)
        order = here[longest_first([len(ends[i]) for i in here])]
        widths = np.zeros(len(rows), dtype=np.int64)
        widths[here] = [2 * (read.length + len(ends[i])) for i in here]
        done = list(passes.apply(states, order, widths))
        return np.concatenate([batch for batch, _ in done]), torch.cat([found for _, found in done])

    # Half of the room is for the beginnings, and half for those of a batch of rows, each with its end.
    beginnings = [2 * len(group.beginning) for group in shared]
    for _, found in passes.apply(behind_beginnings, longest_first(beginnings), beginnings):
        yield found
    yield from passes.apply(whole, np.array(alone, dtype=np.int64)[longest_first([lengths[i] for i in alone])], lengths)


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


def _divide(
    rows: Sequence[Sequence[int]], groups: Sequence[Hashable], longest: float
) -> tuple[list[_Group], list[int]]:
    """Return the groups of rows of which reading the beginning once is a gain, and the rows that are read whole."""
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    shared: list[_Group] = []
    alone: list[int] = []
    for each in members.values() if longest else ():
        beginning = _common_beginning([rows[i][:-1] for i in each])
        tokens = sum(len(rows[i]) for i in each)
        if tokens - (len(each) - 1) * len(beginning) <= _WORTH_TWO_PASSES * tokens:
            shared.append(_Group(beginning, each))
        else:
            alone += each
    ends = max((len(rows[i]) - len(group.beginning) for group in shared for i in group.rows), default=0)
    if not longest or max((len(group.beginning) for group in shared), default=0) + ends > longest:
        return [], list(range(len(rows)))
    return shared, alone


def _common_beginning(rows: Sequence[Sequence[int]]) -> Sequence[int]:
    """Return what all rows begin with; no two differ earlier than the first and the last in order."""
    low, high = min(rows, key=list), max(rows, key=list)
    return low[: next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))]


def _read_ends(
    body: PreTrainedModel, cache: DynamicCache, before: torch.Tensor, ends: Sequence[Sequence[int]], pad_id: int
) -> torch.Tensor:
    """Read the end of each row behind the beginning that it has in `cache`, of which `before` is the attention mask."""
    ids, mask = (each.to(device()) for each in pad(ends, pad_id, "right"))
    # Padding stands at the last position: those behind it may be more than the model knows.
    positions = before.sum(1, keepdim=True) + mask.cumsum(1) - 1
    hidden = body(
        input_ids=ids,
        attention_mask=torch.cat([before, mask], dim=1),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return _last(hidden, mask)


def _last(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]


@dataclass(frozen=True)
class Beginnings:
    """Texts that were read, behind which others are read on."""

    cache: DynamicCache
    mask: torch.Tensor
    """Which tokens of `cache` are no padding, int64 of shape (texts, longest text)."""

    @property
    def length(self) -> int:
        """Tokens of the longest."""
        return int(self.mask.shape[1])

    def repeated(self, of_row: Sequence[int]) -> tuple[DynamicCache, torch.Tensor]:
        """Return a cache for the rows of a batch, and its attention mask; row i goes on behind text `of_row[i]`."""
        chosen = torch.tensor(of_row, device=self.mask.device)
        # Shallow: what reads on puts other tensors into the layers, and changes none.
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        cache.batch_select_indices(chosen)
        return cache, self.mask[chosen]


def read_beginnings(body: PreTrainedModel, beginnings: Sequence[Sequence[int]], pad_id: int) -> Beginnings:
    """Read what texts begin with.

    Args:
        body: a model without its head that may share texts of this length (`longest_shared`).
        beginnings: token ids; shorter ones are padded on the left.
        pad_id: the pad token.
    """
    ids, mask = (each.to(device()) for each in pad(beginnings, pad_id, "left"))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = body(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True).past_key_values
    return Beginnings(cache, mask)

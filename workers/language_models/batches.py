"""Token ids in batches, and batches that shrink where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from workers.config import ReadingDtype
from workers.device import device
from workers.precision import matmul_precision

#: Number of batches that are tokenised and sorted by length together: enough to save padding, few enough to bound RAM.
WINDOW = 64

Made = TypeVar("Made")


class Passes:
    """The forward passes of one call of a stage: how much goes through at once, and how float32 is multiplied.

    A pass has room for so many tokens, padding included: for few long sequences or many short ones. The room is halved
    whenever memory runs out. It is no part of a step's identity: the other sequences of a pass change a result only
    through rounding.
    """

    def __init__(self, tokens: int, dtype: ReadingDtype = "float32") -> None:
        """Start with room for `tokens`."""
        self.tokens = tokens
        self._dtype = dtype

    def apply(
        self, forward: Callable[[np.ndarray], Made], order: np.ndarray, widths: Sequence[int] | np.ndarray
    ) -> Iterator[tuple[np.ndarray, Made]]:
        """Call `forward` with one batch of `order` after another; a batch that is too large is cut and tried again.

        Args:
            forward: computes the result of a batch.
            order: the items to cut into batches, e.g. positions of rows.
            widths: the tokens that each item needs, by its number; the widest of a batch decides for all of it. An item
                that has no room has a batch to itself.

        Yields:
            A batch, and its result.

        Raises:
            torch.OutOfMemoryError, MemoryError, RuntimeError: not even one item fits.
        """
        start = 0
        while start < len(order):
            widest = np.maximum.accumulate(np.asarray(widths)[order[start : start + max(1, self.tokens)]])
            fitting = int(np.searchsorted(widest * np.arange(1, len(widest) + 1), self.tokens, side="right"))
            batch = order[start : start + max(1, fitting)]
            try:
                with matmul_precision(self._dtype):
                    made = forward(batch)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _is_full(error) or len(batch) == 1:
                    raise
                half = (len(batch) + 1) // 2
                self.tokens = half * int(widest[len(batch) - 1])
                print(f"{len(batch)} sequences do not fit into memory: on with {half}", flush=True)
            else:
                yield batch, made
                start += len(batch)
                continue
            # Only here: the error holds what the forward pass had made so far.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _is_full(error: BaseException) -> bool:
    """Return whether memory ran out; torch reports the CPU's as a RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error) or "CUDA error: out of memory" in str(error)


def tokenise(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int | None, *, special: bool = True
) -> list[list[int]]:
    """Tokenise each text, with the special tokens of the tokenizer unless `special` is false.

    Texts longer than `max_tokens`, if that is given, lose their beginning, never their end: what is scored and embedded
    is the response, and it comes last. How many do is printed.
    """
    if not texts:  # to a tokenizer this would be one text
        return []
    tokenizer.truncation_side = "left"

    def ids(texts: Sequence[str], limit: int | None) -> list[list[int]]:
        found = tokenizer(
            list(texts),
            truncation=limit is not None,
            max_length=limit,
            add_special_tokens=special,
            return_attention_mask=False,
        )
        return list(found["input_ids"])

    if max_tokens is None:
        return ids(texts, None)
    # One token more than there is room for reveals the texts that are too long.
    rows = ids(texts, max_tokens + 1)
    if long := [i for i, row in enumerate(rows) if len(row) > max_tokens]:
        print(
            f"{len(long):,} of {len(rows):,} texts have more than {max_tokens:,} tokens and lose their beginning",
            flush=True,
        )
        for i, row in zip(long, ids([texts[i] for i in long], max_tokens), strict=True):
            rows[i] = row
    return rows


def pad(rows: Sequence[Sequence[int]], pad_id: int, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad on `side` ("left" or "right"); return token ids and attention mask, int64 of shape (rows, longest row)."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(rows), width), dtype=torch.int64)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[i, place] = torch.tensor(row, dtype=torch.int64)
        mask[i, place] = 1
    return ids, mask


def in_batches(
    rows: Sequence[Sequence[int]],
    pad_id: int,
    passes: Passes,
    forward: Callable[[torch.Tensor, torch.Tensor], np.ndarray],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pass rows of token ids through a model, the longest first so that too little memory shows at once.

    Args:
        rows: token ids.
        pad_id: the pad token; rows are padded on the right.
        passes: how many rows at once.
        forward: given token ids and attention mask of a batch on `device()`, int64 of shape (batch, longest row).

    Yields:
        Positions in `rows` (int64), and the result of `forward` for these rows.
    """
    where = device()

    def of(chosen: np.ndarray) -> np.ndarray:
        ids, mask = pad([rows[i] for i in chosen], pad_id, "right")
        return forward(ids.to(where), mask.to(where))

    lengths = [len(row) for row in rows]
    yield from passes.apply(of, longest_first(lengths), lengths)


def longest_first(lengths: Sequence[int]) -> np.ndarray:
    """Return the positions in order of falling lengths, so that too little memory shows at once; int64."""
    return np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")

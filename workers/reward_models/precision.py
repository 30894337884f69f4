"""The precision of matrix products, and embeddings as tensors of it; torch is imported only where it is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workers.device import device

if TYPE_CHECKING:
    import torch

Features = NDArray[np.floating[Any]]


@contextlib.contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Let a GPU round the factors of float32 matrix products to TF32 within the context, if `precision` is "tf32"."""
    import torch

    flags = torch.backends.cuda.matmul
    before = flags.fp32_precision
    flags.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        flags.fp32_precision = before


def factor_type(precision: str) -> torch.dtype:
    """Return the type of the factors of matrix products: bfloat16 only where hardware has it, else 200 times slower."""
    import torch

    has_it = device().type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if precision == "bfloat16" and has_it else torch.float32


def as_tensor(features: Features, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Copy `features` (n, d) to `device()`, as float32 unless `dtype` is given."""
    import torch

    # Copied, since torch cannot hold a read-only memory map; widened on the device, to move half the bytes.
    return torch.from_numpy(np.array(features)).to(device()).to(dtype or torch.float32)

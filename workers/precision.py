"""The precision of matrix products; torch is imported only where it is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from workers.device import device

if TYPE_CHECKING:
    import torch


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


def require(dtype: str) -> None:
    """Make sure that `device()` computes in `dtype`: TF32 came with Ampere (capability 8.0).

    Raises:
        ValueError: it does not; the message says what to choose.
    """
    import torch

    where = device()
    if dtype != "tf32" or (
        where.type == "cuda" and torch.version.cuda and torch.cuda.get_device_capability() >= (8, 0)
    ):
        return
    name = "a CPU" if where.type == "cpu" else torch.cuda.get_device_name()
    raise ValueError(
        f"dtype: tf32, but the step computes on {name}, which has no TF32: give it another GPU (gpus: 1 under runtime) "
        "or choose dtype: float32"
    )


def factor_type(precision: str) -> torch.dtype:
    """Return the type of the factors of matrix products: bfloat16 only where hardware has it, else 200 times slower."""
    import torch

    has_it = device().type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if precision == "bfloat16" and has_it else torch.float32

"""The device itself: products of matrices, their precision, and the speed that everything else is held against."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from check_record import NO_DEVICE, Figure, Record

from workers.device import device, promise_gpu
from workers.precision import factor_type, matmul_precision

#: (name, relative error of a product of 2,048 terms against float64 that is allowed): the rounding of one factor is
#: 2^-24, 2^-11 and 2^-9, and errors of single terms mostly cancel.
PRECISIONS = (("float32", 1e-5), ("tf32", 2e-3), ("bfloat16", 1e-2))
#: A batch of the paper's MLP, through its first layer.
ROWS, DIMENSION, WIDTH = 10_240, 2048, 1024


def products(record: Record, work: Path) -> None:
    """Look at products of matrices in every precision."""
    random = np.random.default_rng(0)
    left, right = (random.standard_normal(shape) for shape in ((512, DIMENSION), (DIMENSION, 256)))
    exact = left @ right
    for name, allowed in PRECISIONS:
        with matmul_precision(name):
            found = _product(left, right, name)
            error = float(np.abs(found - exact).max() / np.abs(exact).max())
        where = device().type
        record.expect(
            f"{name} products", error <= allowed, f"relative error on the {where}; allowed {allowed:g}",
            [Figure("error", error, "")],
        )  # fmt: skip
        rounds = name == "tf32" and torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
        if rounds:
            record.expect("tf32 is in use", error > PRECISIONS[0][1], "its error is above that of float32")
    # What one step asked for must not reach the next one.
    again = float(np.abs(_product(left, right, "float32") - exact).max() / np.abs(exact).max())
    record.expect("float32 after tf32", again <= PRECISIONS[0][1], "relative error", [Figure("error", again, "")])
    if not torch.cuda.is_available():
        record.skipped("GPU beside CPU", NO_DEVICE)
    else:
        found = _product(left, right, "float32")
        promise_gpu(False)
        error = float(np.abs(found - _product(left, right, "float32")).max() / np.abs(exact).max())
        promise_gpu(None)
        record.expect("GPU beside CPU", error <= 1e-5, "float32, relative", [Figure("difference", error, "")])
    rates = [Figure(name, peak(name) / 1e12, "TFLOP/s") for name, _ in PRECISIONS]
    record.ok("speed of products", f"{_rows():,} x {DIMENSION:,} x {WIDTH:,} on the {device().type}", rates)
    size = 2**30 if torch.cuda.is_available() else 2**26
    source = torch.empty(size // 4, device=device())
    target = torch.empty_like(source)
    rate = 2 * size / fastest(lambda: target.copy_(source), 5)
    record.ok("speed of copies", "read and written", [Figure("rate", rate / 1e9, "GB/s")])


def peak(precision: str) -> float:
    """Return the FLOP/s of a product of the shape of an MLP's first layer, in the precision of a stage."""
    dtype = factor_type(precision)
    rows = _rows()
    left, right = (torch.randn(*shape, device=device()).to(dtype) for shape in ((rows, DIMENSION), (DIMENSION, WIDTH)))
    out = torch.empty(rows, WIDTH, device=device(), dtype=dtype)
    with matmul_precision(precision):
        return 2 * rows * DIMENSION * WIDTH / fastest(lambda: torch.mm(left, right, out=out), 8)


def fastest(work: Callable[[], object], times: int) -> float:
    """Return the least seconds of several calls, after one that warms up."""
    best = float("inf")
    for number in range(times + 1):
        settle()
        clock = time.perf_counter()
        work()
        settle()
        best = min(best, time.perf_counter() - clock) if number else best
    return best


def settle() -> None:
    """Wait for what the GPU still has to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _rows() -> int:
    return ROWS if torch.cuda.is_available() else ROWS // 10


def _product(left: np.ndarray, right: np.ndarray, precision: str) -> np.ndarray:
    dtype = factor_type(precision)
    factors = [torch.from_numpy(each).to(torch.float32).to(device(), dtype) for each in (left, right)]
    return np.asarray((factors[0] @ factors[1]).double().cpu().numpy())

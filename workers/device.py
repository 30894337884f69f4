"""The device of a stage: a GPU if one was promised, otherwise the CPU, and never one in place of the other.

Importing this module does not import torch: processes that run steps without torch call `promise_gpu` too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Whether the step computes on a GPU; None if that was left open.
_gpu: bool | None = None


class NoGpuError(RuntimeError):
    """Raised where a GPU was promised and torch sees none."""


def promise_gpu(promised: bool | None) -> None:
    """Set whether the stages that are called from now on compute on a GPU; None leaves it to what torch finds."""
    global _gpu
    _gpu = promised


def gpu_promised() -> bool | None:
    """Return the last argument of `promise_gpu`, None before the first call."""
    return _gpu


def device() -> torch.device:
    """Return the GPU if one was promised, else the CPU; without a promise, a GPU if torch sees one.

    Steps with and without a GPU may share a process, and then all of them can see its GPUs.

    Raises:
        NoGpuError: a GPU was promised, and torch sees none.
    """
    import torch

    if _gpu is False:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if _gpu:
        raise NoGpuError(
            f"the step asks for a GPU, and torch {torch.__version__} sees none here: see to the driver of this machine "
            "(nvidia-smi) and to a torch with CUDA, or compute on the CPU: device: cpu under runtime, for the entry or "
            "all (-s runtime.default.device=cpu)"
        )
    return torch.device("cpu")

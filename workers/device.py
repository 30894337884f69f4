"""The device of a stage: a GPU if one was promised, otherwise the CPU, and never one in place of the other.

Importing this module does not import torch: processes that run steps without torch call `promise_gpu` too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: Whether the step computes on a GPU; None if that was left open.
_gpu: bool | None = None
#: Bytes of the GPU that the step may use; None for all that are free.
_memory: int | None = None
#: The bytes that torch was last told to keep to in this process; None for no limit.
_limited: int | None = None


class NoGpuError(RuntimeError):
    """Raised where a GPU was promised and torch sees none."""


def promise_gpu(promised: bool | None, memory: int | None = None) -> None:
    """Set whether the stages that are called from now on compute on a GPU; None leaves it to what torch finds.

    Args:
        promised: whether they do.
        memory: bytes of it that they may use, where they share it with other processes; None for all.
    """
    global _gpu, _memory
    _gpu, _memory = promised, memory


def gpu_promised() -> bool | None:
    """Return the last argument of `promise_gpu`, None before the first call."""
    return _gpu


def gpu_memory() -> int | None:
    """Return how many bytes of the GPU the step may use; None for all that are free."""
    return _memory


def device() -> torch.device:
    """Return the GPU if one was promised, else the CPU; without a promise, a GPU if torch sees one.

    Steps with and without a GPU may share a process, and then all of them can see its GPUs. From here on torch keeps to
    the memory that was promised with it: its allocator does, the 0.5 GB of a CUDA context come on top.

    Raises:
        NoGpuError: a GPU was promised, and torch sees none.
    """
    import torch

    if _gpu is False:
        return torch.device("cpu")
    if torch.cuda.is_available():
        _keep_to_memory(torch)
        return torch.device("cuda")
    if _gpu:
        raise NoGpuError(
            f"the step asks for a GPU, and torch {torch.__version__} sees none here: see to the driver of this machine "
            "(nvidia-smi) and to a torch with CUDA, or compute on the CPU: device: cpu under runtime, for the entry or "
            "all (-s runtime.default.device=cpu)"
        )
    return torch.device("cpu")


def _keep_to_memory(torch: Any) -> None:
    """Tell torch how much of the GPU this process may use, if the step before was told something else."""
    global _limited
    if _memory == _limited:
        return
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(1.0 if _memory is None else min(1.0, _memory / total))
    _limited = _memory

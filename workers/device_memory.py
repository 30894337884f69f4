"""Memory of the GPU: how much of it this process can have, looked at before something large is put there.

Without that a model is loaded for minutes and then does not fit, since another process has the rest of the device.
Importing this module does not import torch.
"""

from __future__ import annotations

from workers import model_cache
from workers.device import device, gpu_memory

#: Bytes beside the weights without which a step cannot work: workspaces of cuBLAS and the first activations.
RESERVE = 2**29


class NoRoomError(MemoryError):
    """Raised where something does not fit into the free memory of the GPU, before it is put there."""


def free_memory(*, if_dropped: bool = False) -> int:
    """Return the bytes of the GPU that this process can still use: what is free, and what torch keeps unused.

    A step with `gpu_memory` has no more than that, whatever is free.

    Args:
        if_dropped: count what this process uses as free, as it is once the cached model is dropped.
    """
    import torch

    free, _ = torch.cuda.mem_get_info()
    used = 0 if if_dropped else int(torch.cuda.memory_allocated())
    mine = int(free + torch.cuda.memory_reserved()) - used
    limit = gpu_memory()
    return max(0, mine if limit is None else min(mine, limit - used))


def require_room(needed: int, what: str) -> None:
    """Make sure that so many bytes, and `RESERVE` to work with, fit onto `device()`; does nothing on a CPU.

    A step with `gpu_memory` must find all of that free, since it is promised to the step. The cached model of
    an earlier step is dropped if the room is needed.

    Args:
        needed: bytes.
        what: names what takes them, in the error.

    Raises:
        NoRoomError: they do not. The message says how much is needed, how much is free, and who has the rest.
        NoGpuError: a GPU was promised, and torch sees none.
    """
    if device().type != "cuda":
        return
    import torch

    free, total = torch.cuda.mem_get_info()
    kept = torch.cuda.memory_reserved()
    limit = gpu_memory()
    others = f"of the {_size(total)} of the GPU; other processes hold {_size(total - free - kept)}"
    if limit is not None and free + kept < limit:
        raise NoRoomError(
            f"{what}: gpu_memory promises {_size(limit)} to the step, and {_size(free + kept)} are free {others}"
        )
    if needed + RESERVE > free_memory():
        model_cache.drop()
    room = free_memory()
    if needed + RESERVE > room:
        bound = others if limit is None else f"of the {_size(limit)} that gpu_memory allows the step"
        raise NoRoomError(
            f"{what}: needs {_size(needed)} on the GPU, and {_size(RESERVE)} to work with; "
            f"{_size(room)} are free {bound}"
        )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 or count == 0 else f"{count / 2**20:.0f} MiB"

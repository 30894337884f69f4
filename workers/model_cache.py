"""A cache of one model: the last that this process loaded, for the next step that needs it.

Loading a language model takes longer than a small shard of work with it. The orchestrator sends steps of one model to
one process (`Stage.loads`); results do not depend on it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from workers.device import gpu_promised

T = TypeVar("T")

#: The identity of the cached model, the model, and what ends it.
_kept: tuple[Hashable, Any, Callable[[Any], object] | None] | None = None


def cached_model(identity: Hashable, load: Callable[[], T], end: Callable[[T], object] | None = None) -> T:
    """Return the model cached under `identity`, or load it and cache it in place of the one before.

    Args:
        identity: everything that the model depends on. Users of the model leave it unchanged.
        load: loads the model. The one before is dropped first, since two models may not fit into memory.
        end: called with the model when it is dropped, where it is more than memory of this process.
    """
    global _kept
    # Of two steps that share a process, one may compute on its GPU and the other not.
    identity = (identity, gpu_promised())
    if _kept is None or _kept[0] != identity:
        if _kept is not None:
            drop()
        _kept = (identity, load(), end)
    loaded: T = _kept[1]
    return loaded


def drop() -> None:
    """Drop the cached model, and give its memory back, with that of whatever else nobody refers to any more."""
    global _kept
    if _kept is not None:
        _, model, end = _kept
        _kept = None
        if end:
            end(model)
        del model
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()


def kept() -> object:
    """Return what is cached now; it is another object after another model was loaded."""
    return _kept

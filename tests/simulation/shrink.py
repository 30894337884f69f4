"""Shrinks a history to the choices that it needs to go wrong."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

from choices import Place, Seed
from history import Found, History, Setting


def shrink(
    setting: Setting, found: Found, seconds: float = 60.0, progress: Callable[[int], None] = lambda left: None
) -> Found:
    """Make as many choices harmless as possible, as long as the same goes wrong; return that history with its story.

    Args:
        setting: where histories are run.
        found: a history that went wrong.
        seconds: how long this may take.
        progress: called with the number of choices that are left.
    """
    until = time.perf_counter() + seconds
    kind = kind_of(found)
    kept = dict(found.effective)
    size = len(kept)
    while size > 1:
        size = (size + 1) // 2
        places = list(kept)
        for first in range(0, len(places), size):
            without = {place: chosen for place, chosen in kept.items() if place not in places[first : first + size]}
            if len(without) < len(kept) and (tried := _still(setting, found.seed, without, kind)):
                # Choices that were not met any more go too.
                kept = {place: chosen for place, chosen in without.items() if place in tried.effective}
                progress(len(kept))
            if time.perf_counter() > until:
                size = 1
                break
    return History(setting, found.seed, kept, telling=True).run()


def _still(setting: Setting, seed: Seed, kept: Mapping[Place, float], kind: str) -> Found | None:
    tried = History(setting, seed, kept).run()
    return tried if tried.broken and kind_of(tried) == kind else None


def kind_of(found: Found) -> str:
    """Say what went wrong first, without the names of processes and steps, and without numbers."""
    text = re.sub(r"[0-9a-f]{8,}|\d+", "#", found.broken[0])
    text = re.sub(r"sim_\w+|the last driver|the driver after it|(worker # of )?driver #", "…", text)
    return " ".join(text.split()[:9])
